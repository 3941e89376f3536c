// CorrespondenceExplorer: a pixel of one image, and where its vector is found in the other. Everything is computed here, from int8 maps.

/** Is the cell the map's first best for this vector, given its own product? Its neighbours are asked first: where the answer is no, one of them mostly says so. */
function isBest(map, vector, score, cell) {
  for (const i of [cell - 1, cell + 1, cell - map.columns, cell + map.columns]) if (i >= 0 && i < map.cells && dotOne(map, vector, i) > score) return false;
  dotAll(map, vector, map.scores);
  return largest(map.scores) === cell;
}

/** Row-major indices of the k largest, each a local maximum of its 3×3 neighbourhood, so that k answers are k places. */
function peaks(values, rows, columns, k) {
  const found = [];
  for (let r = 0, i = 0; r < rows; r++) for (let c = 0; c < columns; c++, i++) {
    const v = values[i];
    if (found.length === k && v <= values[found[k - 1]]) continue;
    let top = true;
    for (let y = Math.max(r - 1, 0); top && y <= Math.min(r + 1, rows - 1); y++)
      for (let x = Math.max(c - 1, 0); x <= Math.min(c + 1, columns - 1); x++) {
        const j = y * columns + x;
        if (values[j] > v || (values[j] === v && j < i)) { top = false; break; }
      }
    if (!top) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]] < v) at--;
    found.splice(at, 0, i);
    if (found.length > k) found.pop();
  }
  return found;
}

const RAGGED = 4 * 1500;     // a contour of more pieces than this (noise, not a shape) is drawn thin, so that pointing stays smooth

/** Line segments along the borders of the cells at or above a level, in cells. */
function borders(values, rows, columns, level, out = []) {
  out.length = 0;
  for (let r = 0, i = 0; r < rows; r++) for (let c = 0; c < columns; c++, i++) {
    const here = values[i] >= level;
    if (c + 1 < columns && here !== values[i + 1] >= level) out.push(c + 1, r, c + 1, r + 1);
    if (r + 1 < rows && here !== values[i + columns] >= level) out.push(c, r + 1, c + 1, r + 1);
  }
  return out;
}

/** A packed map of Python's `quantise` as numbers, with its cell size as a share of the image. */
function openMap(packed) {
  const cells = packed.rows * packed.columns;
  return { data: int8Of(packed.data), cells, rows: packed.rows, columns: packed.columns, channels: packed.channels, scale: packed.scale, down: packed.down, across: packed.across, below: packed.below || 0, right: packed.right || 0,
           scores: new Int32Array(cells), vector: new Int32Array(packed.channels) };
}
const within = (value, count) => Math.min(Math.max(0, Math.floor(value)), count - 1);          // `below` and `right`: from a cell's centre to the place it looks at
const cellAt = (map, [x, y]) => within((y - map.below) / map.down, map.rows) * map.columns + within((x - map.right) / map.across, map.columns);
const centreOf = (map, cell) => [((cell % map.columns) + 0.5) * map.across + map.right, (Math.floor(cell / map.columns) + 0.5) * map.down + map.below];
function vectorOf(map, cell) { for (let k = 0, p = cell * map.channels; k < map.channels; k++) map.vector[k] = map.data[p + k]; return map.vector; }

/** The n-th largest of whole numbers between low and high: a histogram finds its bin, sorting the bin's few values finds it. */
function ranked(values, n, low, high, bins = 1024) {
  if (!(high > low) || n >= values.length) return low;
  const counts = new Int32Array(bins), factor = (bins - 0.001) / (high - low), binOf = (v) => ((v - low) * factor) | 0;
  for (let i = 0; i < values.length; i++) counts[binOf(values[i])]++;
  let bin = bins - 1, above = 0;
  while (above + counts[bin] < n) above += counts[bin--];
  const inside = [];
  for (let i = 0; i < values.length; i++) if (binOf(values[i]) === bin) inside.push(values[i]);
  return inside.sort((a, b) => b - a)[n - above - 1];
}

// ---------------------------------------------------------------- a coarse map with the edges of its picture (Kopf et al. 2007)
const FINE = 256, NEAR = 0.75, ALIKE = 0.1;     // pixels of the longer side at most; widths in cells and in colour (0 … 1), as in correspondence.py

/**
 * The nine weights of every fine pixel: near in place and alike in colour. They depend on the picture only, so they are made once for a
 * map; what is left for a pointer's move is one weighted sum a pixel.
 */
function makeLift(map, photo, [height, width]) {
  const { rows, columns } = map, cell = Math.round(Math.min(map.down * height, map.across * width)), factor = Math.max(1, Math.min(Math.floor(FINE / Math.max(rows, columns)), cell));
  const high = rows * factor, wide = columns * factor, canvas = document.createElement("canvas");
  canvas.width = wide; canvas.height = high;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(photo, 0, 0, wide / (columns * map.across), high / (rows * map.down));
  const rgb = context.getImageData(0, 0, wide, high).data, mean = new Float32Array(3 * rows * columns), weights = new Float32Array(9 * wide * high), sources = new Int32Array(9 * wide * high);
  for (let y = 0; y < high; y++) for (let x = 0; x < wide; x++) {
    const m = 3 * (Math.floor(y / factor) * columns + Math.floor(x / factor)), p = 4 * (y * wide + x);
    for (let k = 0; k < 3; k++) mean[m + k] += rgb[p + k] / (255 * factor * factor);
  }
  const place = -0.5 / (NEAR * NEAR), colour = -0.5 / (ALIKE * ALIKE);
  for (let y = 0, p = 0; y < high; y++) for (let x = 0; x < wide; x++, p++) {
    const r = Math.floor(y / factor), c = Math.floor(x / factor), v = (y + 0.5) / factor - 0.5, u = (x + 0.5) / factor - 0.5;
    let total = 0;
    for (let j = 0; j < 9; j++) {
      const row = Math.min(Math.max(r + Math.floor(j / 3) - 1, 0), rows - 1), column = Math.min(Math.max(c + (j % 3) - 1, 0), columns - 1), q = row * columns + column;
      let apart = 0;
      for (let k = 0; k < 3; k++) apart += (rgb[4 * p + k] / 255 - mean[3 * q + k]) ** 2;
      const weight = Math.exp(place * ((row - v) ** 2 + (column - u) ** 2) + colour * apart);
      weights[9 * p + j] = weight; sources[9 * p + j] = q; total += weight;
    }
    for (let j = 0; j < 9; j++) weights[9 * p + j] = total > 1e-30 ? weights[9 * p + j] / total : j === 4 ? 1 : 0;
  }
  return { rows: high, columns: wide, factor, weights, sources, out: new Float32Array(high * wide) };
}

/** The fine map of one answer. All pixels of a cell have the same nine sources, so these are read once for them. */
function lifted({ weights, sources, out, columns, factor }, scores) {
  const rows = out.length / columns;
  for (let r = 0; r < rows; r += factor) for (let c = 0; c < columns; c += factor) {
    const q = 9 * (r * columns + c), s0 = scores[sources[q]], s1 = scores[sources[q + 1]], s2 = scores[sources[q + 2]], s3 = scores[sources[q + 3]], s4 = scores[sources[q + 4]],
      s5 = scores[sources[q + 5]], s6 = scores[sources[q + 6]], s7 = scores[sources[q + 7]], s8 = scores[sources[q + 8]];
    for (let y = r; y < r + factor; y++) for (let p = y * columns + c, end = p + factor, j = 9 * p; p < end; p++, j += 9)
      out[p] = weights[j] * s0 + weights[j + 1] * s1 + weights[j + 2] * s2 + weights[j + 3] * s3 + weights[j + 4] * s4 + weights[j + 5] * s5 + weights[j + 6] * s6 + weights[j + 7] * s7 + weights[j + 8] * s8;
  }
  return out;
}

function render({ model, el }) {
  const box = frame({ model, el }, "correspondence", "Correspondence explorer: where one image's pixels are found in another");
  const layers = model.get("layers").map((layer) => ({ name: layer.name, a: openMap(layer.a), b: openMap(layer.b) }));
  const truth = model.get("truth"), points = truth && truth.points ? float32Of(truth.points) : null, grid = truth && truth.grid ? float32Of(truth.grid) : null;
  const send = outbox(model), HEAT = packed(CIVIDIS);
  const now = { pixel: model.get("pixel").slice(), pinned: false, answers: [], near: [], neighbours: [], truth: null, mutual: null };
  const named = (name) => layers.find((layer) => layer.name === name) || layers[0];
  const sides = () => (model.get("swapped") ? ["b", "a"] : ["a", "b"]);
  const sizeOf = (side) => model.get(`size_${side}`);                                   // [height, width]

  // ------------------------------------------------------------ elements
  const view = (which, label) => {
    const photo = h("img", { alt: "", draggable: "false" }), heat = which === "query" ? null : h("canvas", { width: 1, height: 1 });
    const element = h("div", { class: "view", "data-view": which, role: "img", "aria-label": label }, photo, heat), caption = h("div", { class: "pxw-caption" });
    const bar = which === "query" ? null : colourBar(CIVIDIS, 0, 1), text = h("span"), below = h("div", { class: "below" }, text, bar && bar.element);
    return { element, photo, heat, caption, bar, text, panel: h("div", { class: "pxw-panel" }, caption, element, below) };
  };
  const query = view("query", "Image to point at"), keys = [view("key", "Where it is found"), view("other", "Where it is found, second features")];
  query.element.tabIndex = 0;
  query.element.setAttribute("role", "application");
  query.element.setAttribute("aria-roledescription", "picture to point at; arrow keys move by a cell, with Shift by five; Enter pins; S swaps");
  const marks = h("canvas", { class: "marks", "aria-hidden": "true" });
  const stage = h("div", { class: "stage" }, query.panel, keys[0].panel, keys[1].panel, marks);

  const NONE = "–";
  const pick = choice({ label: "Features", options: layers.map((l) => l.name), value: model.get("layer"), onchange: (v) => { put({ layer: v }); } });
  const compare = choice({ label: "Compare with", options: [NONE, ...layers.map((l) => l.name)], value: model.get("other") || NONE, onchange: (v) => { put({ other: v === NONE ? "" : v }); } });
  const count = slider({ label: "Matches", min: 1, max: 10, value: model.get("k"), oninput: (v) => { put({ k: v }); } });
  const opacity = slider({ label: "Heat map", min: 0, max: 1, step: 0.05, value: model.get("opacity"), format: (v) => `${Math.round(100 * v)} %`, oninput: (v) => { put({ opacity: v }); } });
  const scale = choice({ label: "Colours", options: [["pixel", "this pixel's range"], ["fixed", "cosine 0 to 1"]], value: model.get("colours"), onchange: (v) => { put({ colours: v }); } });
  const share = slider({ label: "Strongest", min: 0.01, max: 1, step: 0.01, value: model.get("strongest"), format: (v) => `${Math.round(100 * v)} %`, title: "How much of the picture is veiled: its strongest cells", oninput: (v) => { put({ strongest: v }); } });
  const upsampling = choice({ label: "Between cells", options: [["sharp", "cells as they are"], ["bilinear", "smooth"], ["bilateral", "along the picture's edges"]], value: model.get("upsampling"), onchange: (v) => { put({ upsampling: v }); } });
  const contours = tick({ label: "Contour", value: model.get("contours"), onchange: (v) => { put({ contours: v }); } });
  const every = tick({ label: "All mutual matches", value: model.get("all_mutual"), onchange: (v) => { put({ all_mutual: v }); } });
  const swap = button({ label: "⇄ Swap sides", title: "Point at the other image (S)", onclick: () => put({ swapped: !model.get("swapped") }) });
  const text = h("div", { class: "pxw-text" }), strip = patchStrip(), presets = h("div", { class: "presets", role: "group", "aria-label": "Pixels worth a look" }), sentence = h("div", { class: "sentence", "aria-live": "polite" });
  const put = (values) => { for (const [key, value] of Object.entries(values)) model.set(key, value); model.save_changes(); };
  if (layers.length < 2) { pick.element.style.display = compare.element.style.display = "none"; }

  const key = (svg, text) => { const s = h("span"); s.innerHTML = `<svg width="16" height="12" viewBox="0 0 16 12" aria-hidden="true">${svg}</svg>`; s.append(text); return s; };
  const legend = h("div", { class: "legend pxw-legend" },
    key('<circle cx="8" cy="6" r="4.5" fill="#e69f00" stroke="#000"/>', "best match, mutual"),
    key('<circle cx="8" cy="6" r="4.5" fill="none" stroke="#e69f00" stroke-width="2" stroke-dasharray="3 2"/>', "best match, not mutual"),
    key('<circle cx="8" cy="6" r="2.5" fill="#fff" stroke="#000"/>', "next best places"),
    truth ? key('<path d="M8 1 13 6 8 11 3 6Z" fill="none" stroke="#000" stroke-width="3"/><path d="M8 1 13 6 8 11 3 6Z" fill="none" stroke="#56b4e9" stroke-width="1.6"/>', "true place") : null,
    ...[["←↑↓→", "move"], ["Enter", "or click: pin"], ["S", "swap"]].map(([name, does]) => h("span", { class: "pxw-screen pxw-keys" }, h("kbd", {}, name), does)));
  box.root.append(...(model.get("label") ? [h("div", { class: "pxw-caption" }, h("b", {}, model.get("label")))] : []),
    text, presets, controls(pick.element, compare.element, scale.element, swap),
    controls(share.element, opacity.element, upsampling.element, contours.element, count.element, every.element), stage, sentence, strip.element, legend);

  // ------------------------------------------------------------ the answer for one pixel
  const shareOfPixel = ([x, y], [height, width]) => [(x + 0.5) / width, (y + 0.5) / height];

  /** What a layer says of the pixel: scores over the other image, best cell, whether it is mutual, the k best places. */
  function ask(layer, share) {
    const [from, to] = sides().map((side) => layer[side]), cell = cellAt(from, share), unit = from.scale * to.scale;
    dotAll(to, vectorOf(from, cell), to.scores);
    const best = largest(to.scores), top = peaks(to.scores, to.rows, to.columns, model.get("k"));
    if (top[0] !== best) top.unshift(best), top.splice(model.get("k"));
    const found = to.scores;
    const mutual = isBest(from, vectorOf(to, best), found[best], cell);
    return { layer, from, to, cell, best, mutual, unit, scores: found, similarity: found[best] * unit, top: top.map((i) => [...centreOf(to, i), found[i] * unit]) };
  }

  /** The fine map's weights for the picture on screen, made when first needed and again for another map or picture. */
  function liftOf(one, map, size) {
    if (!one.photo.complete || !one.photo.naturalWidth) return null;
    if (one.lift?.map !== map || one.lift.source !== one.photo.src) one.lift = { map, source: one.photo.src, ...makeLift(map, one.photo, size) };
    return one.lift;
  }

  /** Only the strongest cells are veiled, so that the photograph stays in colour; the contour runs where the veil ends. */
  function paintHeat(one, answer) {
    const { to, scores, unit } = answer, canvas = one.heat, mode = model.get("upsampling"), lift = mode === "bilateral" ? liftOf(one, to, sizeOf(sides()[1])) : null;
    const values = lift ? lifted(lift, scores) : scores, rows = lift ? lift.rows : to.rows, columns = lift ? lift.columns : to.columns;
    if (canvas.width !== columns || canvas.height !== rows) { canvas.width = columns; canvas.height = rows; one.image = null; }
    const context = canvas.getContext("2d");
    one.image = one.image || context.createImageData(columns, rows);
    const pixels = new Uint32Array(one.image.data.buffer);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < scores.length; i++) { const v = scores[i]; if (v < low) low = v; if (v > high) high = v; }
    const level = ranked(scores, Math.max(1, Math.round(model.get("strongest") * scores.length)), low, high), fixed = model.get("colours") === "fixed";
    const from = fixed ? 0 : level, until = fixed ? 1 / unit : high, factor = until > from ? 255.999 / (until - from) : 0;
    for (let i = 0; i < values.length; i++) { const v = values[i], t = (v - from) * factor; pixels[i] = v < level ? 0 : HEAT[t < 0 ? 0 : t > 255 ? 255 : t | 0]; }
    context.putImageData(one.image, 0, 0);
    canvas.style.width = `${100 * to.columns * to.across}%`;                              // last cells may stick out of the image
    canvas.style.height = `${100 * to.rows * to.down}%`;
    canvas.style.opacity = model.get("opacity");
    canvas.classList.toggle("sharp", mode === "sharp");
    one.bar.set(from * unit, until * unit);
    answer.level = level * unit;
    answer.edge = !model.get("contours") || low >= level ? [] : mode === "sharp" ? borders(values, rows, columns, level, one.edge ||= []) : contour(values, rows, columns, level, one.edge ||= []);
    answer.edgeScale = [to.columns * to.across / columns, to.rows * to.down / rows];
  }

  /** Where the pixel truly is in the other image (shares), or null. */
  function trueShare(share) {
    const swapped = model.get("swapped");
    const nearest = (count, from, limit) => {
      let best = -1, least = limit * limit;
      for (let i = 0; i < count; i++) { const [x, y] = from(i), d = (x - share[0]) ** 2 + (y - share[1]) ** 2; if (d <= least) { least = d; best = i; } }
      return best;
    };
    if (points) {
      const i = nearest(points.length / 4, (i) => [points[4 * i + (swapped ? 2 : 0)], points[4 * i + (swapped ? 3 : 1)]], 0.02);
      return i < 0 ? null : [points[4 * i + (swapped ? 0 : 2)], points[4 * i + (swapped ? 1 : 3)]];
    }
    if (!grid) return null;
    const { rows, columns } = truth, centre = (i) => [((i % columns) + 0.5) * truth.across, (Math.floor(i / columns) + 0.5) * truth.down];
    if (!swapped) {
      const i = Math.min(Math.floor(share[1] / truth.down), rows - 1) * columns + Math.min(Math.floor(share[0] / truth.across), columns - 1);
      if (Number.isNaN(grid[2 * i])) return null;
      const [x, y] = centre(i);                                                           // inside a cell the truth moves on as the pixel does
      return [grid[2 * i] + truth.slope_x * (share[0] - x), grid[2 * i + 1] + truth.slope_y * (share[1] - y)];
    }
    const i = nearest(rows * columns, (i) => [grid[2 * i], grid[2 * i + 1]], 1.5 * Math.max(truth.across * Math.abs(truth.slope_x || 1), truth.down * Math.abs(truth.slope_y || 1)));
    return i < 0 ? null : centre(i);
  }
  function pixelsApart(a, b, [height, width]) { return Math.hypot((a[0] - b[0]) * width, (a[1] - b[1]) * height); }

  function update() {
    const started = performance.now(), [from, to] = sides(), size = sizeOf(from), target = sizeOf(to), share = shareOfPixel(now.pixel, size);
    const wanted = [named(model.get("layer")), ...(model.get("other") ? [named(model.get("other"))] : [])];
    now.truth = trueShare(share);
    now.answers = wanted.map((layer, i) => { const answer = ask(layer, share); paintHeat(keys[i], answer); return answer; });
    for (const [i, answer] of now.answers.entries()) {
      answer.match = centreOf(answer.to, answer.best);
      answer.error = now.truth ? pixelsApart(answer.match, now.truth, target) : null;
      keys[i].caption.replaceChildren(h("b", {}, to.toUpperCase()), layers.length > 1 ? ` · ${answer.layer.name}` : "");
      keys[i].text.textContent = `cosine ${answer.similarity.toFixed(2)} · ${answer.mutual ? "mutual" : "not mutual"}${answer.error === null ? "" : ` · ${answer.error.toFixed(0)} px off`}`;
    }
    query.caption.replaceChildren(h("b", {}, from.toUpperCase()), " · ", now.pinned ? "pinned; click it or Esc to release" : "point at a pixel");
    query.text.textContent = `pixel (${now.pixel[0]}, ${now.pixel[1]})${truth && !now.truth ? " · true place unknown" : ""}`;
    drawMarks();
    now.milliseconds = performance.now() - started;
    now.times.push(now.milliseconds);
    if (now.times.length > 2000) now.times.shift();
    return now.answers;
  }
  now.times = [];

  /** Tell Python what is shown. */
  function report() {
    const [first] = now.answers, [, to] = sides(), [height, width] = sizeOf(to), place = ([x, y]) => [x * width, y * height];
    send({ pixel: now.pixel.slice(), match: place(first.match), similarity: first.similarity, mutual: first.mutual, error: first.error, top: first.top.map(([x, y, s]) => [...place([x, y]), s]), neighbours: now.neighbours });
  }
  const quick = perFrame((spoken) => { if (spoken) neighbours(); else if (!now.pinned) forget(); update(); report(); if (spoken) box.say(`Pixel ${now.pixel.join(", ")}: ${keys[0].text.textContent}`); });

  /** The cells most like the pixel's, over both images: outlined there, and as a strip of patches. */
  function neighbours() {
    const from = sides()[0], layer = named(model.get("layer")), [height, width] = sizeOf(from), cell = cellAt(layer[from], shareOfPixel(now.pixel, [height, width])), wanted = model.get("nearest"), all = [];
    const vector = vectorOf(layer[from], cell), mine = layer[from];
    for (const side of ["a", "b"]) {
      const map = layer[side];
      dotAll(map, vector, map.scores);
      for (const i of topIndices(map.scores, wanted, side === from ? cell : -1)) all.push({ side, map, cell: i, cosine: map.scores[i] * mine.scale * map.scale });
    }
    now.near = all.sort((p, q) => q.cosine - p.cosine).slice(0, wanted);                  // sort is stable: of equal ones image a's come first
    const place = ({ side, map, cell: i }) => { const [x, y] = centreOf(map, i), [h0, w0] = sizeOf(side); return [x * w0, y * h0]; };
    strip.set(`nearest cells in both images (${layer.name})`, now.near.map((item) => ({ text: `${item.side.toUpperCase()} ${item.cosine.toFixed(2)}`, title: `${item.side.toUpperCase()}, pixel ${place(item).map(Math.floor).join(", ")}: cosine ${item.cosine.toFixed(2)}; point at it`,
      paint: (context, size) => paintPatch(context, size, item), onclick: () => { const [x, y] = place(item); put({ swapped: item.side === "b" }); now.pixel = [Math.floor(x), Math.floor(y)]; now.pinned = true; now.pinnedAt = now.pixel.slice(); quick(true); } })));
    now.neighbours = now.near.map((item) => [item.side, ...place(item), item.cosine]);
  }
  function forget() { if (now.near.length) { now.near = []; now.neighbours = []; strip.set("", []); } }
  function ownPixel() { if (model.get("preset")) { model.set("preset", ""); model.save_changes(); } }     // the preset's sentence is about another pixel
  function paintPatch(context, size, { side, map, cell }) {                              // three cells of the picture, enlarged
    const photo = (side === sides()[0] ? query : keys[0]).photo, [x, y] = centreOf(map, cell), across = 3 * map.across * photo.naturalWidth, down = 3 * map.down * photo.naturalHeight, span = Math.max(across, down);
    if (photo.naturalWidth) context.drawImage(photo, x * photo.naturalWidth - span / 2, y * photo.naturalHeight - span / 2, span, span, 0, 0, size, size);
  }

  // ------------------------------------------------------------ pixels worth a look
  function showPresets() {
    const list = model.get("presets"), chosen = list.find((preset) => preset.name === model.get("preset"));
    presets.replaceChildren(...list.map((preset) => h("button", { type: "button", class: "pxw-button", "aria-pressed": String(preset === chosen), onclick: () => choose(preset) }, preset.name)));
    sentence.textContent = chosen ? chosen.sentence : "";
    presets.style.display = list.length ? "" : "none";
    sentence.style.display = list.length ? "" : "none";
  }
  function choose(preset) {
    const { name, sentence: _, ...values } = preset;
    put({ ...values, preset: name });
    now.pixel = model.get("pixel").slice();
    now.pinned = true;
    now.pinnedAt = now.pixel.slice();
    quick(true);
  }

  // ------------------------------------------------------------ marks across the panels
  function drawMarks() {
    const { width, height } = now.stage || { width: 0, height: 0 };
    if (!width) return;
    const context = sharpen(marks, width, height), place = ({ left, top, wide, high }, [x, y]) => [left + x * wide, top + y * high];
    context.clearRect(0, 0, width, height);
    const [from] = sides(), start = place(now.boxes[0], shareOfPixel(now.pixel, sizeOf(from)));
    const clipped = (b, f) => { context.save(); context.beginPath(); context.rect(b.left, b.top, b.wide, b.high); context.clip(); f(); context.restore(); };
    const ring = ([x, y], r, fill, stroke, line = 1.5, dash = []) => { context.beginPath(); context.arc(x, y, r, 0, 7); context.setLineDash(dash); if (fill) { context.fillStyle = fill; context.fill(); } context.lineWidth = line; context.strokeStyle = stroke; context.stroke(); context.setLineDash([]); };
    if (model.get("all_mutual") && now.mutual) now.mutual.forEach((set, i) => {
      for (const [a, b, t] of set) for (const [p, k] of [[a, 0], [b, i + 1]]) if (k > 0 || i === 0) ring(place(now.boxes[k], p), 3.4, shade(VIRIDIS, t), "rgba(0,0,0,.75)", 1);
    });
    now.answers.forEach((answer, i) => {
      const b = now.boxes[i + 1], [kx, ky] = answer.edgeScale;
      clipped(b, () => {
        const { edge } = answer, wide = b.wide * kx, high = b.high * ky;
        context.beginPath();
        for (let j = 0; j < edge.length; j += 4) { context.moveTo(b.left + edge[j] * wide, b.top + edge[j + 1] * high); context.lineTo(b.left + edge[j + 2] * wide, b.top + edge[j + 3] * high); }
        for (const [colour, line] of edge.length < RAGGED ? [["rgba(0,0,0,.6)", 2.6], ["#fff", 1.1]] : [["#fff", 1]]) { context.lineWidth = line; context.strokeStyle = colour; context.stroke(); }
      });
      answer.top.slice().reverse().forEach(([x, y], j) => {
        const best = j === answer.top.length - 1, end = place(b, [x, y]);
        for (const [colour, line] of [["rgba(0,0,0,.55)", best ? 3.6 : 2.4], [best ? "#e69f00" : "rgba(255,255,255,.75)", best ? 1.8 : 1]]) {
          context.beginPath(); context.moveTo(...start); context.lineTo(...end); context.setLineDash(best && answer.mutual ? [] : [5, 4]); context.lineWidth = line; context.strokeStyle = colour; context.stroke();
        }
        context.setLineDash([]);
        if (!best) ring(end, 3.5, "#fff", "#000", 1);
        else if (answer.mutual) { ring(end, 6.5, "#e69f00", "#000", 1.5); }
        else { ring(end, 6.5, null, "#000", 4.5); ring(end, 6.5, null, "#e69f00", 2.4, [4, 3]); }
      });
      if (now.truth) clipped(b, () => {
        const [x, y] = place(b, now.truth);
        context.beginPath(); context.moveTo(x, y - 11); context.lineTo(x + 11, y); context.lineTo(x, y + 11); context.lineTo(x - 11, y); context.closePath();
        for (const [colour, line] of [["#000", 5], ["#56b4e9", 2.5]]) { context.lineWidth = line; context.strokeStyle = colour; context.stroke(); }
      });
    });
    for (const { side, map, cell } of now.near) {
      const b = now.boxes[side === from ? 0 : 1], [x, y] = centreOf(map, cell), [left, top] = place(b, [x - map.across / 2, y - map.down / 2]);
      clipped(b, () => { for (const [colour, line] of [["#000", 3.5], ["#56b4e9", 1.8]]) { context.lineWidth = line; context.strokeStyle = colour; context.strokeRect(left, top, map.across * b.wide, map.down * b.high); } });
    }
    const cross = (colour, line) => { context.lineWidth = line; context.strokeStyle = colour; context.beginPath(); for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { context.moveTo(start[0] + 4 * dx, start[1] + 4 * dy); context.lineTo(start[0] + 13 * dx, start[1] + 13 * dy); } context.stroke(); };
    cross("rgba(0,0,0,.8)", 4), cross(now.pinned ? "#e69f00" : "#fff", 2);
    ring(start, 4, null, "rgba(0,0,0,.8)", 3), ring(start, 4, null, now.pinned ? "#e69f00" : "#fff", 1.5);
  }

  function measure() {
    const outer = stage.getBoundingClientRect(), scaled = outer.width / stage.offsetWidth || 1;           // a slide may be scaled or zoomed; the marks are in the stage's own pixels
    now.stage = { width: outer.width / scaled, height: outer.height / scaled };
    now.boxes = [query, ...keys].map(({ element }) => { const b = element.getBoundingClientRect(); return { left: (b.left - outer.left) / scaled, top: (b.top - outer.top) / scaled, wide: b.width / scaled, high: b.height / scaled }; });
    drawMarks();
  }

  /** Every mutual match on a coarse grid of cells, a few milliseconds at a time, so that pointing stays smooth. */
  let job = 0;
  async function findMutual() {
    const mine = ++job;
    now.mutual = null;
    if (!model.get("all_mutual")) return drawMarks();
    const sets = [];
    for (const answer of now.answers.slice()) {
      const { from, to } = answer, step = Math.max(1, Math.ceil(Math.max(from.rows, from.columns) / 24)), set = [], there = new Int32Array(to.cells), back = new Int32Array(from.cells);
      const vector = new Int32Array(from.channels), load = (map, cell) => { for (let k = 0, p = cell * map.channels; k < map.channels; k++) vector[k] = map.data[p + k]; return vector; };
      let pause = performance.now() + 6;
      for (let r = step >> 1; r < from.rows; r += step) for (let c = step >> 1; c < from.columns; c += step) {
        const cell = r * from.columns + c;
        dotAll(to, load(from, cell), there);
        const best = largest(there);
        dotAll(from, load(to, best), back);
        if (largest(back) === cell) set.push([centreOf(from, cell), centreOf(to, best), (0.65 * c) / from.columns + (0.35 * r) / from.rows]);
        if (performance.now() > pause) { await new Promise((f) => setTimeout(f)); if (mine !== job) return; pause = performance.now() + 6; }
      }
      sets.push(set);
    }
    now.mutual = sets;
    model.set("mutual_count", sets.map((set) => set.length));
    model.save_changes();
    drawMarks();
  }

  // ------------------------------------------------------------ lay out, and follow the traits
  function arrange() {
    const [from, to] = sides(), shown = model.get("other") ? 3 : 2;
    for (const [one, side] of [[query, from], [keys[0], to], [keys[1], to]]) {
      const [height, width] = sizeOf(side);
      one.element.style.setProperty("--ratio", width / height);
      if (one.photo.src !== model.get(`image_${side}`)) one.photo.src = model.get(`image_${side}`);
    }
    keys[1].panel.style.display = shown === 3 ? "" : "none";
    stage.style.setProperty("--views", shown);
    stage.dataset.views = shown;
    update();
    measure();
    findMutual();
  }
  box.listen("layer other swapped k opacity colours strongest upsampling contours all_mutual", perFrame(() => {
    pick.set(model.get("layer")), compare.set(model.get("other") || NONE), count.set(model.get("k")), opacity.set(model.get("opacity"));
    scale.set(model.get("colours")), share.set(model.get("strongest")), upsampling.set(model.get("upsampling")), contours.set(model.get("contours")), every.set(model.get("all_mutual"));
    const [height, width] = sizeOf(sides()[0]);
    now.pixel = [Math.min(now.pixel[0], width - 1), Math.min(now.pixel[1], height - 1)];
    if (now.near.length) neighbours();
    arrange();
    report();
  }));
  box.listen("pixel", () => { const [x, y] = model.get("pixel"); if (x !== now.pixel[0] || y !== now.pixel[1]) { now.pixel = [x, y]; quick(); } });

  function pointAt(share) {
    const [height, width] = sizeOf(sides()[0]);
    now.pixel = [Math.min(Math.floor(share[0] * width), width - 1), Math.min(Math.floor(share[1] * height), height - 1)];
  }
  const listen = (name, f) => query.element.addEventListener(name, f, { signal: box.signal });
  listen("pointermove", (event) => { if (now.pinned && !(event.buttons & 1)) return; ownPixel(); pointAt(shareOf(event, query.element)); quick(); });
  listen("click", (event) => {
    ownPixel();
    const [from] = sides(), map = named(model.get("layer"))[from], before = cellAt(map, shareOfPixel(now.pinnedAt || now.pixel, sizeOf(from))), share = shareOf(event, query.element);
    now.pinned = !(now.pinned && cellAt(map, share) === before);
    pointAt(share);
    now.pinnedAt = now.pixel.slice();
    quick(true);
  });
  listen("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, [from] = sides(), [height, width] = sizeOf(from);
    if (event.key in moves) {
      const map = named(model.get("layer"))[from], step = event.shiftKey ? 5 : 1, [dx, dy] = moves[event.key], [x, y] = centreOf(map, cellAt(map, shareOfPixel(now.pixel, [height, width])));
      pointAt([Math.min(Math.max(x + dx * step * map.across, 0), 0.9999), Math.min(Math.max(y + dy * step * map.down, 0), 0.9999)]);
      now.pinned = true;
    } else if (event.key === "Enter" || event.key === " ") now.pinned = !now.pinned;
    else if (event.key === "Escape") now.pinned = false;
    else if (event.key.toLowerCase() === "s" && !event.ctrlKey && !event.metaKey) swap.click();
    else return;
    now.pinnedAt = now.pixel.slice();
    event.preventDefault();
    event.stopPropagation();
    if (event.key in moves) ownPixel();
    quick(true);
  });

  box.listen("presets preset", showPresets);
  const follow = followLinks(box, ["pixel", "layer", "other", "swapped", "k", "opacity", "strongest", "upsampling", "contours", "colours", "all_mutual", "preset"], (values) => {
    const preset = model.get("presets").find(({ name }) => name === values.preset);
    if (preset) choose(preset);
    else if (values.pixel) { ownPixel(); now.pixel = values.pixel.slice(); now.pinned = true; now.pinnedAt = now.pixel.slice(); quick(true); }
  });
  const words = () => { text.replaceChildren(...linkedText(model.get("text"), follow)); text.style.display = model.get("text") ? "" : "none"; };
  box.listen("text", words);
  words();
  for (const one of keys) one.photo.addEventListener("load", () => { if (model.get("upsampling") === "bilateral") update(); }, { signal: box.signal });
  showPresets();
  arrange();
  box.onResize(stage, measure);
  box.root.pxw = { now, update, layers, sides, keys, get size() { return sizeOf(sides()[0]); } };
  return box.cleanup;
}
export default { render };
