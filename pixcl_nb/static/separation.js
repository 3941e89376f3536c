// SeparationExplorer: are foreground cells more alike to each other than to the background? Cosines of int8 maps, computed here.
const MOST_PAIRS = 250000, MOST_PRODUCTS = 60e6;                                          // beyond these, every n-th foreground cell is an anchor

function openLayer(layer) {
  const { map } = layer, data = int8Of(map.data), mask = bytesOf(layer.mask), known = [], foreground = [];
  mask.forEach((v, i) => { if (v < 2) known.push(i); if (v === 1) foreground.push(i); });
  return { name: layer.name, data, mask, known, foreground, rows: map.rows, columns: map.columns, channels: map.channels, down: map.down, across: map.across, unit: map.scale * map.scale };
}
function dot(layer, i, j) {
  const { data, channels } = layer;
  let sum = 0;
  for (let k = 0, a = i * channels, b = j * channels; k < channels; k++) sum += data[a + k] * data[b + k];
  return sum;
}

/** Whole-number scores of pairs with an anchor: {same, other} sorted, and each cell's mean over the anchors (times their count). */
function compare(layer, anchors, every = 1) {
  const { known, mask, rows, columns } = layer, total = new Float64Array(rows * columns), same = [], other = [];
  for (let n = 0; n < anchors.length; n++) {
    const i = anchors[n];
    for (const j of known) {
      const v = dot(layer, i, j);
      total[j] += v;
      if (j !== i) (mask[j] ? same : other).push(v);
    }
  }
  const sorted = (list) => Int32Array.from(list).sort();
  return { same: sorted(same), other: sorted(other), total, anchors: anchors.length, every };
}

/** Share of (same, other) pairs with same above other, ties one half: evaluation.separability. Both sorted. */
function areaUnderCurve(same, other) {
  if (!same.length || !other.length) return NaN;
  let below = 0, up = 0, sum = 0;
  for (const v of same) {
    while (below < other.length && other[below] < v) below++;
    if (up < below) up = below;
    while (up < other.length && other[up] <= v) up++;
    sum += below + up;
  }
  return sum / (2 * same.length * other.length);
}
const meanOf = (values) => values.reduce((s, v) => s + v, 0) / values.length;

function render({ model, el }) {
  const box = frame({ model, el }, "separation", "Separation explorer: foreground against background");
  const layers = model.get("layers").map(openLayer), [height, width] = model.get("size"), send = outbox(model), cache = new Map();
  const named = (name) => layers.find((l) => l.name === name) || layers[0], NONE = "–";
  const put = (values) => { for (const [key, value] of Object.entries(values)) model.set(key, value); model.save_changes(); };
  const now = { shown: [], times: [] };

  // ------------------------------------------------------------ numbers
  function analyse(layer) {
    const cell = model.get("anchors") === "cell" ? cellOf(layer, model.get("pixel")) : -1, key = `${layer.name}|${cell}`;
    if (cache.has(key)) return cache.get(key);
    if (cache.size > 64) cache.clear();
    const pairs = layer.foreground.length * Math.max(layer.known.length - 1, 1), every = Math.max(1, Math.ceil(pairs / MOST_PAIRS), Math.ceil((pairs * layer.channels) / MOST_PRODUCTS));
    const result = cell >= 0 ? compare(layer, [cell]) : compare(layer, layer.foreground.filter((_, n) => n % every === 0), every);
    result.cell = cell;
    result.auroc = areaUnderCurve(result.same, result.other);
    cache.set(key, result);
    return result;
  }
  const cellOf = (layer, [x, y]) => Math.min(Math.floor((y + 0.5) / height / layer.down), layer.rows - 1) * layer.columns + Math.min(Math.floor((x + 0.5) / width / layer.across), layer.columns - 1);
  const scoreOf = (layer, result, i) => (result.total[i] * layer.unit) / result.anchors;
  function count(layer, result, threshold) {
    const found = new Uint8Array(layer.mask.length);                                      // 1 right, 2 wrong, 3 missed
    let right = 0, wrong = 0, missed = 0;
    for (const i of layer.known) {
      const inside = scoreOf(layer, result, i) > threshold, truth = layer.mask[i] === 1;
      if (inside && truth) { found[i] = 1; right++; } else if (inside) { found[i] = 2; wrong++; } else if (truth) { found[i] = 3; missed++; }
    }
    return { found, right, wrong, missed, iou: right + wrong + missed ? right / (right + wrong + missed) : NaN };
  }
  /** The threshold with the largest IoU: halfway between two neighbouring scores. */
  function bestThreshold(layer, result) {
    const order = layer.known.map((i) => [scoreOf(layer, result, i), layer.mask[i]]).sort((a, b) => b[0] - a[0]), total = layer.foreground.length;
    let right = 0, best = -1, at = 0;
    order.forEach(([score, truth], n) => {
      right += truth;
      const next = n + 1 < order.length ? order[n + 1][0] : score - 0.02, iou = right / (n + 1 + total - right);
      if (next < score && iou > best) { best = iou; at = (score + next) / 2; }
    });
    return at;
  }
  const thresholdOf = (layer) => { const t = model.get("thresholds")[layer.name]; return typeof t === "number" ? t : bestThreshold(layer, analyse(layer)); };
  const setThreshold = (layer, value) => put({ thresholds: { ...model.get("thresholds"), [layer.name]: Math.min(Math.max(Math.round(value * 1000) / 1000, -1), 1) } });

  // ------------------------------------------------------------ elements
  const pick = choice({ label: "Features", options: layers.map((l) => l.name), value: model.get("layer"), onchange: (v) => put({ layer: v }) });
  const second = choice({ label: "Compare with", options: [NONE, ...layers.map((l) => l.name)], value: model.get("other") || NONE, onchange: (v) => put({ other: v === NONE ? "" : v }) });
  const walk = slider({ label: "Step through", min: 0, max: Math.max(layers.length - 1, 1), value: Math.max(layers.findIndex((l) => l.name === model.get("layer")), 0), format: (v) => `${v + 1} of ${layers.length}`, oninput: (v) => put({ layer: layers[v].name }) });
  const anchors = choice({ label: "Anchors", options: [["foreground", "the whole foreground"], ["cell", "the cell pointed at"]], value: model.get("anchors"), onchange: (v) => put({ anchors: v }) });
  const cut = slider({ label: "Threshold", min: -1, max: 1, step: 0.001, value: 0, format: (v) => v.toFixed(3), oninput: (v) => setThreshold(named(model.get("layer")), v) });
  cut.element.classList.add("wide");
  const best = button({ label: "Best threshold", title: "the one with the largest overlap (IoU)", onclick: () => put({ thresholds: {} }) });
  if (layers.length < 2) pick.element.style.display = second.element.style.display = "none";
  if (layers.length < 3) walk.element.style.display = "none";
  const view = (which, label) => {
    const photo = h("img", { src: model.get("image"), alt: "", draggable: "false" }), overlay = h("canvas", { "aria-hidden": "true" }), caption = h("div", { class: "pxw-caption" }), element = h("div", { class: "view", "data-view": which, role: "img", "aria-label": label }, photo, overlay);
    element.style.setProperty("--ratio", width / height);
    return { element, overlay, caption, panel: h("div", { class: "pxw-panel" }, caption, element) };
  };
  const picture = view("image", "The picture and the true foreground; point at a cell to make it the anchor"), results = [view("result", "Cells above the threshold"), view("result-other", "Cells above the threshold, second features")];
  picture.element.tabIndex = 0;
  picture.element.setAttribute("role", "application");
  const plots = [0, 1].map((n) => {
    const canvas = h("canvas", { "aria-hidden": "true" }), element = h("div", { class: "plot", "data-plot": n, tabindex: 0, role: "slider", "aria-label": n ? "Threshold line in the histogram of the second features" : "Threshold line in the histogram", "aria-valuemin": -1, "aria-valuemax": 1 }, canvas);
    const caption = h("div", { class: "pxw-caption" }), read = h("div", { class: "read" });
    return { canvas, element, caption, read, panel: h("div", { class: "pxw-panel" }, caption, element, read) };
  });
  const stage = h("div", { class: "stage" }, picture.panel, results.map((r) => r.panel)), below = h("div", { class: "plots" }, plots.map((p) => p.panel));
  const key = (svg, text) => { const s = h("span"); s.innerHTML = `<svg width="16" height="12" viewBox="0 0 16 12" aria-hidden="true">${svg}</svg>`; s.append(text); return s; };
  const square = (colour) => `<rect x="3" y="1" width="10" height="10" fill="${colour}"/>`, HATCH = '<path d="M3 11 13 1M3 6 8 1M8 11 13 6" stroke="#cc79a7" stroke-width="1.8"/>';
  const legend = h("div", { class: "pxw-legend" }, key(square("#56b4e9"), "found foreground"), key(square("#e69f00"), "background taken for foreground"), key(HATCH, "missed foreground"), key('<rect x="3" y="1" width="10" height="10" fill="none" stroke="#000" stroke-width="3"/><rect x="3" y="1" width="10" height="10" fill="none" stroke="#fff" stroke-width="1.5"/>', "true foreground, at cells"),
    h("span", { class: "pxw-screen" }, "drag the line in the histogram, or ", h("kbd", {}, "←→")));
  box.root.append(...(model.get("label") ? [h("div", { class: "pxw-caption" }, h("b", {}, model.get("label")))] : []), controls(pick.element, second.element, walk.element, anchors.element), controls(cut.element, best), stage, below, legend);

  // ------------------------------------------------------------ drawing
  const cellBox = (layer, i, wide, tall) => [(i % layer.columns) * layer.across * wide, Math.floor(i / layer.columns) * layer.down * tall, layer.across * wide, layer.down * tall];
  function outline(context, layer, wide, tall) {
    const path = new Path2D(), at = (r, c) => r >= 0 && c >= 0 && r < layer.rows && c < layer.columns && layer.mask[r * layer.columns + c] === 1;
    const w = layer.across * wide, t = layer.down * tall;
    for (let r = 0; r <= layer.rows; r++) for (let c = 0; c <= layer.columns; c++) {
      if (at(r, c) !== at(r, c - 1)) { path.moveTo(c * w, r * t); path.lineTo(c * w, (r + 1) * t); }
      if (at(r, c) !== at(r - 1, c)) { path.moveTo(c * w, r * t); path.lineTo((c + 1) * w, r * t); }
    }
    for (const [colour, line] of [["rgba(0,0,0,.8)", 4], ["#fff", 1.8]]) { context.lineWidth = line; context.strokeStyle = colour; context.stroke(path); }
  }
  function fitCanvas(one) {
    const wide = one.element.clientWidth, tall = one.element.clientHeight;
    if (!wide) return null;
    const context = sharpen(one.overlay || one.canvas, wide, tall);
    context.clearRect(0, 0, wide, tall);
    return [context, wide, tall];
  }
  function drawResult(one, layer, counted) {
    const fitted = fitCanvas(one);
    if (!fitted) return;
    const [context, wide, tall] = fitted;
    const dense = context.getTransform().a, onPixel = (v) => Math.round(v * dense) / dense;     // cells that meet at a whole pixel show no seam
    context.globalAlpha = 0.62;
    for (const i of layer.known) {
      const [x, y, w, t] = cellBox(layer, i, wide, tall), kind = counted.found[i];
      if (kind === 1 || kind === 2) { context.fillStyle = kind === 1 ? "#56b4e9" : "#e69f00"; const a = onPixel(x), b = onPixel(y); context.fillRect(a, b, onPixel(x + w) - a, onPixel(y + t) - b); }
      else if (kind === 3) {
        context.save(), context.beginPath(), context.rect(x, y, w, t), context.clip(), context.beginPath();
        for (let d = -t; d < w; d += 5) { context.moveTo(x + d, y + t); context.lineTo(x + d + t, y); }
        context.globalAlpha = 1, context.lineWidth = 1.6, context.strokeStyle = "#cc79a7", context.stroke(), context.restore();
      }
    }
    context.globalAlpha = 1;
    outline(context, layer, wide, tall);
  }
  function drawPicture(layer, result) {
    const fitted = fitCanvas(picture);
    if (!fitted) return;
    const [context, wide, tall] = fitted;
    outline(context, layer, wide, tall);
    if (result.cell < 0) return;
    const [x, y, w, t] = cellBox(layer, result.cell, wide, tall);
    for (const [colour, line] of [["#000", 5], ["#f0e442", 2.4]]) { context.lineWidth = line; context.strokeStyle = colour; context.strokeRect(x, y, w, t); }
  }

  const BINS = 60;
  function histogram(layer, result) {
    const both = [result.same, result.other].filter((v) => v.length), low = Math.min(...both.map((v) => v[0])) * layer.unit, high = Math.max(...both.map((v) => v[v.length - 1])) * layer.unit;
    const from = Math.max(-1.02, Math.floor(low * 20) / 20), to = Math.max(Math.min(1.02, Math.ceil(high * 20) / 20), from + 0.05), step = (to - from) / BINS;
    const bins = (values) => { const out = new Float64Array(BINS); for (const v of values) out[Math.min(BINS - 1, Math.max(0, Math.floor((v * layer.unit - from) / step)))] += 1 / values.length; return out; };
    return { from, to, same: bins(result.same), other: bins(result.other) };
  }
  const EDGE = { left: 10, right: 10, top: 32, bottom: 34 };
  function drawPlot(plot, layer, result, threshold) {
    const fitted = fitCanvas(plot);
    if (!fitted) return;
    const [context, wide, tall] = fitted, bins = (result.bins = result.bins || histogram(layer, result)), inner = wide - EDGE.left - EDGE.right, room = tall - EDGE.top - EDGE.bottom;
    const X = (v) => EDGE.left + ((v - bins.from) / (bins.to - bins.from)) * inner, most = Math.max(...bins.same, ...bins.other), Y = (v) => EDGE.top + room * (1 - v / most);
    plot.range = { ...bins, X };
    const blue = box.colour("accent"), orange = box.colour("warm"), text = box.colour("text"), muted = box.colour("muted"), line = box.colour("line");
    context.font = "11.5px system-ui, sans-serif";
    context.textAlign = "center";
    const step = [0.05, 0.1, 0.2, 0.5].find((s) => (bins.to - bins.from) / s <= 9);
    for (let v = Math.ceil(bins.from / step - 1e-9) * step; v <= bins.to + 1e-9; v += step) {
      context.fillStyle = line, context.fillRect(X(v), EDGE.top, 1, room + 4);
      context.fillStyle = muted, context.fillText(v.toFixed(step < 0.1 ? 2 : 1).replace("-0.0", "0.0"), X(v), tall - EDGE.bottom + 16);
    }
    context.fillText("cosine", EDGE.left + inner / 2, tall - 4);
    for (const [values, colour, hatched] of [[bins.other, orange, true], [bins.same, blue, false]]) {
      const path = new Path2D();
      path.moveTo(X(bins.from), Y(0));
      values.forEach((v, n) => { const a = X(bins.from + ((bins.to - bins.from) * n) / BINS), b = X(bins.from + ((bins.to - bins.from) * (n + 1)) / BINS); path.lineTo(a, Y(v)); path.lineTo(b, Y(v)); });
      path.lineTo(X(bins.to), Y(0));
      path.closePath();
      context.save();
      context.globalAlpha = 0.28, context.fillStyle = colour, context.fill(path), context.globalAlpha = 0.5;
      if (hatched) { context.clip(path); context.beginPath(); for (let x = -tall; x < wide; x += 7) { context.moveTo(x, tall); context.lineTo(x + tall, 0); } context.strokeStyle = colour, context.lineWidth = 1, context.stroke(); }
      context.restore();
      context.strokeStyle = colour, context.lineWidth = 1.5, context.stroke(path);
    }
    const t = Math.min(Math.max(X(threshold), EDGE.left), wide - EDGE.right);
    context.fillStyle = text, context.fillRect(t - 1, EDGE.top - 16, 2, room + 20);
    context.beginPath(), context.arc(t, EDGE.top - 18, 6, 0, 7), context.fill();
    context.textAlign = t > wide - 70 ? "right" : "left";
    context.font = "600 11.5px system-ui, sans-serif";
    context.fillText(threshold.toFixed(3), t + (t > wide - 70 ? -11 : 11), EDGE.top - 14);
  }

  function update() {
    const started = performance.now(), wanted = [named(model.get("layer")), ...(model.get("other") ? [named(model.get("other"))] : [])];
    const shown = wanted.length + 1;
    stage.style.setProperty("--views", shown);
    stage.dataset.views = shown;
    results[1].panel.style.display = plots[1].panel.style.display = wanted.length > 1 ? "" : "none";
    now.shown = wanted.map((layer, n) => {
      const result = analyse(layer), threshold = thresholdOf(layer), counted = count(layer, result, threshold), same = meanOf(result.same) * layer.unit, other = meanOf(result.other) * layer.unit;
      const title = layers.length > 1 ? layer.name : "features", about = result.cell >= 0 ? "this cell with" : "foreground with";
      drawResult(results[n], layer, counted);
      results[n].caption.replaceChildren(h("b", {}, title), ` · IoU ${counted.iou.toFixed(2)}`);
      drawPlot(plots[n], layer, result, threshold);
      plots[n].caption.replaceChildren(h("b", {}, title), ` · AUROC ${result.auroc.toFixed(3)}`, result.every > 1 ? ` · 1 in ${result.every} anchors` : "");
      plots[n].read.replaceChildren(h("span", { style: "color:var(--pxw-accent)" }, h("i", { class: "swatch same" }), `${about} foreground: mean ${same.toFixed(2)}`), h("span", { style: "color:var(--pxw-warm)" }, h("i", { class: "swatch other" }), `with background: ${other.toFixed(2)}`));
      plots[n].element.setAttribute("aria-valuenow", threshold.toFixed(3));
      plots[n].element.setAttribute("aria-valuetext", `${threshold.toFixed(3)}, IoU ${counted.iou.toFixed(2)}`);
      return { layer, result, threshold, counted, same, other };
    });
    const [first] = now.shown;
    drawPicture(first.layer, first.result);
    picture.caption.replaceChildren(h("b", {}, "Picture"), model.get("anchors") === "cell" ? " · anchor: the marked cell" : " · anchors: the whole foreground");
    pick.set(model.get("layer")), second.set(model.get("other") || NONE), anchors.set(model.get("anchors")), cut.set(first.threshold), walk.set(Math.max(layers.indexOf(first.layer), 0));
    now.times.push(performance.now() - started);
    const finite = (v) => (Number.isFinite(v) ? v : null);
    send({ auroc: finite(first.result.auroc), gap: finite(first.same - first.other), threshold: first.threshold, iou: finite(first.counted.iou), counts: { right: first.counted.right, wrong: first.counted.wrong, missed: first.counted.missed } });
  }
  const again = perFrame(update);

  // ------------------------------------------------------------ pointing
  const listen = (element, name, f) => element.addEventListener(name, f, { signal: box.signal });
  function pointAt([x, y]) { put({ anchors: "cell", pixel: [Math.min(Math.floor(x * width), width - 1), Math.min(Math.floor(y * height), height - 1)] }); }
  listen(picture.element, "click", (event) => pointAt(shareOf(event, picture.element)));
  listen(picture.element, "pointermove", (event) => { if (event.pointerType !== "touch" && event.buttons & 1 || model.get("anchors") === "cell" && event.pointerType === "mouse" && !now.fixed) pointAt(shareOf(event, picture.element)); });
  listen(picture.element, "click", () => { now.fixed = !now.fixed; });
  listen(picture.element, "keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") put({ anchors: "foreground" });
    else if (event.key in moves) {
      const layer = named(model.get("layer")), cell = cellOf(layer, model.get("pixel")), [dx, dy] = moves[event.key], fit = (v, n) => Math.min(Math.max(v, 0), n - 1);
      now.fixed = true;
      pointAt([(fit((cell % layer.columns) + dx, layer.columns) + 0.5) * layer.across, (fit(Math.floor(cell / layer.columns) + dy, layer.rows) + 0.5) * layer.down].map((v) => Math.min(v, 0.9999)));
    } else return;
    event.preventDefault(), event.stopPropagation();
  });
  plots.forEach((plot, n) => {
    const drag = (event) => { const [x] = shareOf(event, plot.element), wide = plot.element.clientWidth, { from, to } = plot.range; setThreshold(now.shown[n].layer, from + ((x * wide - EDGE.left) / (wide - EDGE.left - EDGE.right)) * (to - from)); };
    pressAndDrag(plot.element, { start: drag, move: drag }, box.signal);
    listen(plot.element, "keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!step) return;
      setThreshold(now.shown[n].layer, now.shown[n].threshold + step * (event.shiftKey ? 0.001 : 0.01));
      event.preventDefault(), event.stopPropagation();
    });
  });

  box.listen("layer other anchors pixel thresholds", again);
  box.onTheme(() => now.shown.length && update());
  box.onResize(stage, again);
  box.root.pxw = { now, layers, analyse, count, bestThreshold };
  update();
  return box.cleanup;
}
export default { render };
