// CopyPasteStudio: two views of one image, each pasted on another background, and the pairs of cells that CP2's dense loss makes of them.
// The arithmetic is that of compose.py in single precision (Math.fround), so that the masks agree pixel by pixel.
const f32 = Math.fround;
const roundHalfEven = (v) => { const low = Math.floor(v), rest = v - low; return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low; };

/** Height and width of a block, whole pixels: compose.draw_block with one area and one aspect. */
function blockSize(area, aspect, [height, width]) {
  const pixels = f32(f32(f32(area) * height) * width), ratio = f32(Math.exp(f32(Math.log(aspect))));
  return [Math.min(roundHalfEven(f32(Math.sqrt(f32(pixels * ratio)))), height), Math.min(roundHalfEven(f32(Math.sqrt(f32(pixels / ratio)))), width)];
}
/** The pixel at a cell's centre, inside the image: images.cells.mask_at_stride. */
const centreOf = (cell, stride, side) => Math.min(cell * stride + (stride >> 1), side - 1);
/** First and last allowed start of a block on one axis: images.compositor.place_block. */
function startRange(length, side, position, stride) {
  if (position !== "anywhere") return [0, side - length];
  return [(stride >> 1) - length + 1, centreOf(Math.ceil(side / stride) - 1, stride, side)];
}
function blockStart(share, length, side, position, stride) {
  const [first, last] = startRange(length, side, position, stride);
  return first + Math.floor(f32(f32(share) * (last - first + 1)));
}
/** The mask as 0/1 bytes, row-major. */
function blockMask({ area, aspect, x, y }, size, position, stride) {
  const [height, width] = size, [tall, wide] = blockSize(area, aspect, size), top = blockStart(y, tall, height, position, stride), left = blockStart(x, wide, width, position, stride);
  const mask = new Uint8Array(height * width);
  for (let r = Math.max(top, 0); r < Math.min(top + tall, height); r++) mask.fill(1, r * width + Math.max(left, 0), r * width + Math.min(left + wide, width));
  return mask;
}
/** Values at the cells' centre pixels: images.cells.mask_at_stride. */
function atStride(mask, [height, width], stride) {
  const rows = Math.ceil(height / stride), columns = Math.ceil(width / stride), out = new Uint8Array(rows * columns);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[r * columns + c] = mask[centreOf(r, stride, height) * width + centreOf(c, stride, width)];
  return { cells: out, rows, columns };
}
const number = (v) => String(Number(Number(v).toPrecision(6)));

function render({ model, el }) {
  const box = frame({ model, el }, "copypaste", "Copy-paste studio: composed pairs and the pairs of cells the loss makes of them");
  const size = model.get("size"), [height, width] = size, send = outbox(model), SIDES = ["query", "key"];
  const pixels = new Map(), now = { frames: 0 };                                        // pixels: address → Uint8ClampedArray RGBA
  const put = (values) => { for (const [key, value] of Object.entries(values)) model.set(key, value); model.save_changes(); };
  const setSide = (side, values) => put({ [side]: { ...model.get(side), ...values } });
  const entry = (list, name) => model.get(list).find((e) => e.name === name) || model.get(list)[0];
  const names = (list) => model.get(list).map((e) => e.name);

  async function read(uri) {
    if (pixels.has(uri)) return pixels.get(uri);
    const canvas = h("canvas", { width, height }), context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(await loadPicture(uri), 0, 0);
    pixels.set(uri, context.getImageData(0, 0, width, height).data);
    return pixels.get(uri);
  }

  // ------------------------------------------------------------ elements
  const STRIDES = [4, 8, 16, 32].filter((s) => s <= Math.min(height, width));
  if (!STRIDES.includes(model.get("stride"))) STRIDES.push(model.get("stride"));
  const top = {
    foreground: choice({ label: "Foreground", options: names("foregrounds"), value: model.get("foreground"), onchange: (v) => put({ foreground: v, object: 0 }) }),
    shape: choice({ label: "Shape", options: ["rectangle", "object"], value: model.get("shape"), onchange: (v) => put({ shape: v }) }),
    object: choice({ label: "Object", options: [], onchange: (v) => put({ object: Number(v) }) }),
    position: choice({ label: "Position", options: [["released", "whole block inside (released)"], ["anywhere", "may hang over (anywhere)"]], value: model.get("position"), onchange: (v) => put({ position: v }) }),
    stride: choice({ label: "Stride", options: STRIDES.map((s) => [s, `${s} px`]), value: model.get("stride"), onchange: (v) => put({ stride: Number(v), anchor: -1 }) }),
    dots: tick({ label: "Show cells", value: model.get("cells"), onchange: (v) => put({ cells: v }) }),
  };
  const view = (which, label) => {
    const picture = h("canvas", { width, height }), overlay = h("canvas"), element = h("div", { class: "view", "data-view": which, role: "application", tabindex: 0, "aria-label": label }, picture, overlay);
    element.style.setProperty("--ratio", which === "pairs" ? 1 : width / height);
    const caption = h("div", { class: "pxw-caption" }), panel = h("div", { class: "pxw-panel" }, caption, element);
    return { element, picture, overlay, caption, panel };
  };
  const views = { query: view("query", "Query picture; arrow keys move the pasted block"), key: view("key", "Key picture; arrow keys move the pasted block, hovering a cell chooses the anchor"),
                  pairs: view("pairs", "Pairs of cells: rows are query cells, columns key cells; arrow keys choose the anchor") };
  const sliders = {};
  for (const side of SIDES) {
    const value = model.get(side), name = side === "query" ? "query" : "key";
    const s = (sliders[side] = {
      area: slider({ label: "Area", min: 0.01, max: 1, step: 0.01, value: value.area, format: (v) => `${Math.round(100 * v)} %`, oninput: (v) => setSide(side, { area: v }) }),
      aspect: slider({ label: "Aspect", min: -2, max: 2, step: 0.05, value: Math.log2(value.aspect), format: (v) => `${aspectOf(v)}`, oninput: (v) => setSide(side, { aspect: aspectOf(v) }), title: "height / width" }),
      x: slider({ label: "Left", min: 0, max: 0.999, step: 0.001, value: value.x, format: (v) => `${now.left?.[side] ?? 0} px`, oninput: (v) => setSide(side, { x: v }) }),
      y: slider({ label: "Top", min: 0, max: 0.999, step: 0.001, value: value.y, format: (v) => `${now.top?.[side] ?? 0} px`, oninput: (v) => setSide(side, { y: v }) }),
      background: choice({ label: "Behind", options: names("backgrounds"), value: value.background, onchange: (v) => setSide(side, { background: v }) }),
    });
    for (const [word, control] of Object.entries(s)) control.input.setAttribute("aria-label", `${word === "x" ? "Left" : word === "y" ? "Top" : word === "background" ? "Background" : word[0].toUpperCase() + word.slice(1)} of the ${name}`);
    views[side].panel.append(h("div", { class: "sliders pxw-screen" }, Object.values(s).map((c) => c.element)));
  }
  function aspectOf(v) { return Math.round(100 * 2 ** v) / 100; }
  const summary = h("div", { class: "summary" });
  views.pairs.panel.append(summary);
  const marks = h("canvas", { class: "marks", "aria-hidden": "true" }), stage = h("div", { class: "stage" }, SIDES.map((s) => views[s].panel), views.pairs.panel, marks);
  const code = h("pre", { tabindex: 0, "aria-label": "Python that makes this pair" }), copy = button({ label: "Copy", title: "Copy the Python", onclick: async () => {
    getSelection().selectAllChildren(code);                                             // where the clipboard is closed to us, the text is at least selected
    try { await navigator.clipboard.writeText(code.textContent); copy.textContent = "Copied"; } catch { copy.textContent = "Selected"; }
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  } });
  const key = (svg, text) => { const s = h("span"); s.innerHTML = `<svg width="16" height="12" viewBox="0 0 16 12" aria-hidden="true">${svg}</svg>`; s.append(text); return s; };
  const legend = h("div", { class: "pxw-legend" }, key('<circle cx="8" cy="6" r="4" fill="#56b4e9" stroke="#000"/>', "foreground cell"), key('<path d="M5 3 11 9M11 3 5 9" stroke="#000" stroke-width="3.4"/><path d="M5 3 11 9M11 3 5 9" stroke="#e69f00" stroke-width="1.8"/>', "background cell"),
    key('<circle cx="8" cy="6" r="4.5" fill="none" stroke="#000" stroke-width="3"/><circle cx="8" cy="6" r="4.5" fill="none" stroke="#fff" stroke-width="1.5"/>', "anchor"), h("span", { class: "pxw-screen" }, "drag a block, or focus a picture and use ", h("kbd", {}, "←↑↓→")));
  box.root.append(...(model.get("label") ? [h("div", { class: "pxw-caption" }, h("b", {}, model.get("label")))] : []),
    controls(top.foreground.element, top.shape.element, top.object.element, top.position.element, top.stride.element, top.dots.element), stage, legend, h("div", { class: "code" }, h("div", { class: "head" }, h("span", {}, "The Python that makes this pair"), copy), code));

  // ------------------------------------------------------------ compose
  function objectsOf(fore) {
    if (!fore.objects) return [];
    const stride = model.get("stride"), seen = SIDES.map((side) => { const at = atStride(bytesOf(fore.objects[side]), size, stride).cells, counts = {}; at.forEach((o) => (counts[o] = (counts[o] || 0) + 1)); return [counts, at.length]; });
    return fore.objects.names.map((name, i) => [i + 1, name]).filter(([id]) => seen.every(([counts, all]) => counts[id] > 0 && counts[id] < all));
  }

  async function compose() {
    const mine = ++now.frames, fore = entry("foregrounds", model.get("foreground")), usable = objectsOf(fore), stride = model.get("stride"), position = model.get("position");
    const shape = model.get("shape") === "object" && usable.length ? "object" : "rectangle", object = usable.some(([id]) => id === model.get("object")) ? model.get("object") : usable.length ? usable[0][0] : 0;
    const sides = {};
    for (const side of SIDES) {
      const value = model.get(side), back = entry("backgrounds", value.background), [front, behind] = [await read(fore[side]), await read(back[side])];
      let mask;
      if (shape === "object") { const map = bytesOf(fore.objects[side]); mask = new Uint8Array(map.length); for (let i = 0; i < map.length; i++) mask[i] = map[i] === object ? 1 : 0; }
      else mask = blockMask(value, size, position, stride);
      const picture = new ImageData(width, height), out = new Uint32Array(picture.data.buffer), a = new Uint32Array(front.buffer), b = new Uint32Array(behind.buffer);
      for (let i = 0; i < out.length; i++) out[i] = mask[i] ? a[i] : b[i];
      sides[side] = { mask, picture, ...atStride(mask, size, stride) };
    }
    if (mine !== now.frames) return;
    Object.assign(now, { sides, shape, object, usable, stride, ready: true });
    const inside = (cells) => cells.reduce((s, v) => s + v, 0), q = inside(sides.query.cells), k = inside(sides.key.cells), all = sides.query.cells.length;
    now.counts = { query: q, key: k, cells: all, positives: q * k, negatives: (all - q) * k, unused: all * (all - k) };
    if (model.get("anchor") < 0 || model.get("anchor") >= all) {                        // the foreground cell of the key nearest to the foreground's middle
      const { cells, columns } = sides.key, mean = [0, 0];
      cells.forEach((v, i) => { if (v) { mean[0] += (i % columns) / k; mean[1] += Math.floor(i / columns) / k; } });
      let best = -1, least = Infinity;
      cells.forEach((v, i) => { const d = (i % columns - mean[0]) ** 2 + (Math.floor(i / columns) - mean[1]) ** 2; if (v && d < least) { least = d; best = i; } });
      now.anchor = best;
    } else now.anchor = model.get("anchor");
    show();
  }

  function python() {
    const extent = height === width ? height : `(${height}, ${width})`;
    const pair = SIDES.map((side) => {
      const v = model.get(side);
      return now.shape === "object" ? `${side}_mask = studio.object_mask("${side}", ${JSON.stringify(model.get("foreground"))}, ${now.object})`
        : `${side}_mask = block_mask(area=${number(v.area)}, aspect=${number(v.aspect)}, x=${number(v.x)}, y=${number(v.y)}, size=${extent}, position="${model.get("position")}", stride=${now.stride})`;
    });
    const views = SIDES.map((side) => `${side} = compose(studio.view("${side}", ${JSON.stringify(model.get("foreground"))}), studio.view("${side}", ${JSON.stringify(model.get(side).background)}), ${side}_mask)`);
    const [a, b] = SIDES.map((side) => model.get(side)), span = (word) => `(${number(Math.min(a[word], b[word]))}, ${number(Math.max(a[word], b[word]))})`;
    const block = now.shape === "object" ? 'shape="object"' : `area=${span("area")}, aspect=${span("aspect")}, position="${model.get("position")}"`;
    return ["from pixcl_nb.images.cells import mask_at_stride", "from pixcl_nb.images.compositor import CopyPasteConfig, compose", "from pixcl_nb.widgets.copy_paste import block_mask", "", "# this pair; studio is this widget", ...pair, ...views,
      `query_cells, key_cells = mask_at_stride(query_mask, ${now.stride}), mask_at_stride(key_mask, ${now.stride})`, "", "# for training: such pairs, drawn at random by copy_paste(images, config, generator)",
      tooThin() ? `# CopyPasteConfig refuses these blocks: one may be thinner than the stride of ${now.stride} and miss every cell` : `config = CopyPasteConfig(size=${extent}, ${block}, stride=${now.stride})`].join("\n");
  }
  /** compose.CopyPasteConfig.check_block. */
  function tooThin() {
    if (now.shape === "object") return false;
    const [a, b] = SIDES.map((side) => model.get(side)), low = Math.min(a.area, b.area), stretch = Math.max(Math.max(a.aspect, b.aspect), 1 / Math.min(a.aspect, b.aspect));
    return Math.floor(Math.sqrt((low * height * width) / stretch)) < now.stride;
  }

  // ------------------------------------------------------------ show
  function show() {
    if (!now.ready) return;
    const { sides, counts, stride } = now, rectangle = now.shape === "rectangle";
    top.foreground.set(model.get("foreground")), top.shape.set(now.shape), top.position.set(model.get("position")), top.stride.set(stride), top.dots.set(model.get("cells"));
    top.shape.element.style.display = model.get("foregrounds").some((e) => e.objects) ? "" : "none";
    top.object.element.style.display = rectangle ? "none" : "";
    top.position.element.style.display = rectangle ? "" : "none";
    top.object.options(now.usable), top.object.set(now.object);
    now.left = {}, now.top = {};
    for (const side of SIDES) {
      const value = model.get(side), [tall, wide] = blockSize(value.area, value.aspect, size);
      now.top[side] = blockStart(value.y, tall, height, model.get("position"), stride), now.left[side] = blockStart(value.x, wide, width, model.get("position"), stride);
      for (const word of ["area", "x", "y"]) sliders[side][word].set(value[word]);
      sliders[side].aspect.set(Math.log2(value.aspect));
      sliders[side].background.set(value.background);
      for (const word of ["area", "aspect", "x", "y"]) { sliders[side][word].input.disabled = !rectangle; sliders[side][word].element.classList.toggle("off", !rectangle); }
      views[side].picture.getContext("2d").putImageData(sides[side].picture, 0, 0);
      views[side].caption.replaceChildren(h("b", {}, side === "query" ? "Query" : "Key"), ` · ${counts[side]} of ${counts.cells} cells foreground`);
      drawOverlay(side);
    }
    views.pairs.caption.replaceChildren(h("b", {}, "Pairs"), " · rows: query cells, columns: key cells");
    drawPairs();
    drawMarks();
    const line = (...parts) => h("div", {}, ...parts), warn = (text) => h("div", { class: "warn" }, text), big = (v) => h("b", {}, v.toLocaleString("en")), swatch = (colour) => h("i", { class: "swatch", style: `background:${colour}` });
    const empty = SIDES.filter((side) => counts[side] === 0);
    summary.replaceChildren(line(swatch("#56b4e9"), big(counts.positives), " positive: both are foreground"), line(swatch("#e69f00"), big(counts.negatives), " negative: only the key cell is"),
      line(swatch("var(--pxw-line)"), big(counts.unused), " unused: the key cell is background"),
      ...(empty.length ? [warn(`No cell of stride ${stride} lies in the ${empty.join(" and the ")} block: the loss would be 0/0, and cp2_dense_loss refuses it.`)] : tooThin() ? [warn(`A block thinner than the stride may miss every cell; CopyPasteConfig refuses it.`)] : []));
    code.textContent = python();
    send({ code: code.textContent, counts });
  }

  function drawOverlay(side) {
    const { overlay, element } = views[side], wide = element.clientWidth, tall = element.clientHeight;
    if (!wide) return;
    const context = sharpen(overlay, wide, tall), { mask, cells, rows, columns } = now.sides[side], sx = wide / width, sy = tall / height;
    overlay.style.width = overlay.style.height = "100%";
    context.clearRect(0, 0, wide, tall);
    const edges = new Path2D();                                                           // outline of the mask, pixel-exact
    for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) {
      const i = r * width + c;
      if (c && mask[i] !== mask[i - 1]) { edges.moveTo(c * sx, r * sy); edges.lineTo(c * sx, (r + 1) * sy); }
      if (r && mask[i] !== mask[i - width]) { edges.moveTo(c * sx, r * sy); edges.lineTo((c + 1) * sx, r * sy); }
    }
    for (const [colour, line] of [["rgba(0,0,0,.8)", 3.5], ["#fff", 1.6]]) { context.lineWidth = line; context.strokeStyle = colour; context.stroke(edges); }
    if (!model.get("cells")) return;
    const stride = now.stride, r = Math.max(1.4, Math.min(4, (stride * sx) / 4)), at = (i) => [(centreOf(i % columns, stride, width) + 0.5) * sx, (centreOf(Math.floor(i / columns), stride, height) + 0.5) * sy];
    for (let i = 0; i < cells.length; i++) {
      const [x, y] = at(i);
      context.beginPath();
      if (cells[i]) { context.arc(x, y, r, 0, 7); context.fillStyle = "#56b4e9"; context.strokeStyle = "rgba(0,0,0,.8)"; context.lineWidth = 1; context.fill(); context.stroke(); }
      else for (const [colour, line] of [["rgba(0,0,0,.7)", r], ["#e69f00", r / 2]]) { const d = r * 0.75; context.beginPath(); context.moveTo(x - d, y - d); context.lineTo(x + d, y + d); context.moveTo(x + d, y - d); context.lineTo(x - d, y + d); context.lineWidth = line; context.strokeStyle = colour; context.stroke(); }
    }
  }

  function drawPairs() {
    const { query, key } = now.sides, n = query.cells.length, dark = box.root.dataset.theme === "dark";
    const { picture, overlay, element } = views.pairs, context = picture.getContext("2d"), colours = { positive: [86, 180, 233], negative: [230, 159, 0], unused: dark ? [44, 50, 58] : [226, 229, 233] };
    picture.width = picture.height = n;
    const image = context.createImageData(n, n), out = new Uint32Array(image.data.buffer), word = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    const [positive, negative, unused] = [word(colours.positive), word(colours.negative), word(colours.unused)];
    for (let q = 0, i = 0; q < n; q++) for (let k = 0; k < n; k++, i++) out[i] = !key.cells[k] ? unused : query.cells[q] ? positive : negative;
    context.putImageData(image, 0, 0);
    const side = element.clientWidth, top = sharpen(overlay, side, side);
    overlay.style.width = overlay.style.height = "100%";
    top.clearRect(0, 0, side, side);
    if (now.anchor >= 0) { const x = (now.anchor / n) * side, w = Math.max(2, side / n); for (const [colour, line, grow] of [["#000", 3, 1], ["#fff", 1.4, 1]]) { top.lineWidth = line; top.strokeStyle = colour; top.strokeRect(x - grow, 0.5, w + 2 * grow, side - 1); } }
  }

  /** The anchor in the key, and lines to its positives in the query. */
  function drawMarks() {
    const wide = stage.clientWidth, tall = stage.clientHeight;
    if (!wide) return;
    const context = sharpen(marks, wide, tall), place = (side, i) => {
      const b = placeIn(views[side].element, stage), { columns } = now.sides[side], stride = now.stride;
      return [b.left + ((centreOf(i % columns, stride, width) + 0.5) / width) * b.width, b.top + ((centreOf(Math.floor(i / columns), stride, height) + 0.5) / height) * b.height];
    };
    context.clearRect(0, 0, wide, tall);
    if (now.anchor < 0 || !model.get("cells")) return;
    const start = place("key", now.anchor), anchor = now.sides.key.cells[now.anchor], positives = [...now.sides.query.cells.keys()].filter((i) => now.sides.query.cells[i]), step = Math.ceil(positives.length / 48);
    if (anchor) for (const i of positives.filter((_, j) => j % step === 0)) {
      const end = place("query", i);
      for (const [colour, line] of [["rgba(0,0,0,.25)", 1.8], ["rgba(86,180,233,.65)", 0.9]]) { context.beginPath(); context.moveTo(...start); context.lineTo(...end); context.lineWidth = line; context.strokeStyle = colour; context.stroke(); }
    }
    for (const [colour, line] of [["#000", 5], [anchor ? "#fff" : "#e69f00", 2.2]]) { context.beginPath(); context.arc(...start, 6.5, 0, 7); context.lineWidth = line; context.strokeStyle = colour; context.stroke(); }
  }

  // ------------------------------------------------------------ pointing, dragging, keys
  function moveTo(side, centreX, centreY) {                                              // shares of the picture
    const value = model.get(side), [tall, wide] = blockSize(value.area, value.aspect, size), fit = (start, length, full) => {
      const [first, last] = startRange(length, full, model.get("position"), now.stride);
      return Math.min(0.999, Math.max(0, Math.round((1000 * (Math.min(Math.max(start, first), last) - first + 0.5)) / (last - first + 1)) / 1000));
    };
    setSide(side, { x: fit(Math.round(centreX * width - wide / 2), wide, width), y: fit(Math.round(centreY * height - tall / 2), tall, height) });
  }
  function setAnchor(i, spoken = false) {
    now.anchor = i;
    drawPairs(), drawMarks();
    send({ anchor: i });
    if (spoken) box.say(`Anchor cell ${i}: ${now.sides.key.cells[i] ? `foreground, ${now.counts.query} positives and ${now.counts.cells - now.counts.query} negatives` : "background, no anchor"}`);
  }
  for (const side of SIDES) {
    const { element } = views[side];
    let held = [0, 0];                                                                    // where in the block it was gripped
    pressAndDrag(element, {
      start(event) {
        if (now.shape !== "rectangle" || !now.ready) return false;
        const [x, y] = shareOf(event, element), value = model.get(side), [tall, wide] = blockSize(value.area, value.aspect, size);
        const middle = [(now.left[side] + wide / 2) / width, (now.top[side] + tall / 2) / height], inside = Math.abs(x - middle[0]) * width <= wide / 2 && Math.abs(y - middle[1]) * height <= tall / 2;
        held = inside ? [x - middle[0], y - middle[1]] : [0, 0];
        if (!inside) moveTo(side, x, y);
        return true;
      },
      move(event) { const [x, y] = shareOf(event, element); moveTo(side, x - held[0], y - held[1]); },
    }, box.signal);
    if (side === "key") element.addEventListener("pointermove", (event) => {               // a mouse that is not pressed chooses the anchor
      if (event.buttons || event.pointerType === "touch" || !now.ready) return;
      const [x, y] = shareOf(event, element), { rows, columns } = now.sides.key, c = Math.floor((x * width) / now.stride), r = Math.floor((y * height) / now.stride);
      if (c < columns && r < rows && r * columns + c !== now.anchor) setAnchor(r * columns + c);
    }, { signal: box.signal });
    element.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!(event.key in moves) || now.shape !== "rectangle") return;
      const value = model.get(side), [tall, wide] = blockSize(value.area, value.aspect, size), step = event.shiftKey ? 1 : Math.max(1, now.stride >> 1), [dx, dy] = moves[event.key];
      moveTo(side, (now.left[side] + dx * step + wide / 2) / width, (now.top[side] + dy * step + tall / 2) / height);
      event.preventDefault(), event.stopPropagation();
    }, { signal: box.signal });
  }
  const anchorAt = (event) => { if (!now.ready) return false; const n = now.sides.key.cells.length; setAnchor(Math.min(n - 1, Math.floor(shareOf(event, views.pairs.element)[0] * n))); return true; };
  views.pairs.element.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") anchorAt(event); }, { signal: box.signal });
  pressAndDrag(views.pairs.element, { start: anchorAt, move: anchorAt }, box.signal);
  views.pairs.element.addEventListener("keydown", (event) => {
    const { columns } = now.sides.key, steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    if (!(event.key in steps)) return;
    setAnchor(Math.min(Math.max(now.anchor + steps[event.key], 0), now.counts.cells - 1), true);
    event.preventDefault(), event.stopPropagation();
  }, { signal: box.signal });

  const again = perFrame(compose);
  box.listen("foreground shape object position stride cells query key", again);
  box.onTheme(() => show());
  box.onResize(stage, show);
  box.root.pxw = { now, blockSize, blockMask, blockStart, size };
  compose();
  return box.cleanup;
}
export default { render };
