// TrainingMonitor: curves, numbers and pictures of a run. Python sends rows as they come; nothing is drawn but canvases, once a frame.

const RATE = "images_per_second", NAMES = { [RATE]: "images / s", lr: "learning rate" };
const STATES = { waiting: "waiting", running: "running", following: "following", paused: "paused", stopping: "stopping", stopped: "stopped", finished: "finished", failed: "failed", silent: "no sign of life", gone: "gone" };

/** Numbers short enough for a small chart. */
function short(v) {
  if (!Number.isFinite(v)) return "–";
  const size = Math.abs(v);
  if (size >= 10000) return `${(v / 1000).toFixed(size >= 100000 ? 0 : 1)}k`;
  if (size >= 100) return v.toFixed(0);
  if (size >= 10) return v.toFixed(1);
  if (size === 0) return "0";
  return size >= .01 ? v.toFixed(3) : v.toExponential(1);
}

/** The same for the ends of an axis: as many digits as its range asks for. */
function axisText(v, range) {
  if (Math.abs(v) >= 10000 || range === 0) return short(v);
  if (Math.max(Math.abs(v), range) < .001) return v === 0 ? "0" : v.toExponential(1);
  const digits = Math.min(5, Math.max(0, Math.ceil(1 - Math.log10(range))));
  return Number(v.toFixed(digits)) === 0 ? "0" : v.toFixed(digits);
}

function clockText(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const s = Math.max(0, Math.round(seconds));
  return s >= 5400 ? `${Math.floor(s / 3600)} h ${String(Math.floor(s % 3600 / 60)).padStart(2, "0")} min` : s >= 90 ? `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s` : `${s} s`;
}

/** Rows that only grow: `width` numbers each, the first of them the step. */
class Table {
  constructor() { this.width = 1; this.count = 0; this.data = new Float64Array(0); }
  reset(width, values) { this.width = width; this.count = values.length / width; this.data = values; }
  append(start, values) {              // false when rows between are missing
    if (start > this.count) return false;
    const rows = values.length / this.width, skip = this.count - start;
    if (rows <= skip) return true;
    const need = (this.count + rows - skip) * this.width;
    if (need > this.data.length) { const grown = new Float64Array(Math.max(need, 2 * this.data.length, 512)); grown.set(this.data.subarray(0, this.count * this.width)); this.data = grown; }
    this.data.set(values.subarray(skip * this.width), this.count * this.width);
    this.count += rows - skip;
    return true;
  }
  at(row, column) { return this.data[row * this.width + column]; }
  rowOf(step) {                        // the last row whose step is not after `step`
    let low = 0, high = this.count - 1;
    while (low < high) { const middle = (low + high + 1) >> 1; if (this.at(middle, 0) <= step) low = middle; else high = middle - 1; }
    return low;
  }
}

function float64Of(view) {
  const copy = view.byteOffset % 8 ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : null;
  return copy ? new Float64Array(copy) : new Float64Array(view.buffer, view.byteOffset, view.byteLength / 8);
}

/** One small chart. `source(first, last)` gives rows; drawn whole each time, decimated to two points a pixel column. */
function chart(name, base) {
  const value = h("b", {}), canvas = h("canvas", { class: "pxm-chart" }), note = h("span", { class: "pxm-note" });
  const element = h("div", { class: "pxm-card", "data-term": name }, h("div", { class: "pxm-head" }, h("span", {}, NAMES[name] || name), note, value), canvas);
  let width = 220, height = 110;
  base.onResize(canvas.parentElement, (w) => { if (w > 40) { width = Math.floor(w); base.root.pxw?.redraw(); } });
  function smoothed(table, column, first, last, share) {
    const out = new Float64Array(last - first);
    let mean = NaN, weight = 0;
    for (let i = 0; i < last; i++) {     // from the beginning, so that a window does not change the curve
      const v = table.at(i, column);
      if (Number.isFinite(v)) { mean = weight ? share * mean + (1 - share) * v : (1 - share) * v; weight = share * weight + (1 - share); }
      if (i >= first) out[i - first] = weight ? mean / weight : NaN;
    }
    return out;
  }
  function range(table, column, first, last, curve, floor) {
    const values = [], every = Math.max(1, Math.floor((last - first) / 1500));
    for (let i = first; i < last; i += every) { const v = table.at(i, column); if (Number.isFinite(v)) values.push(v); }
    if (!values.length) return [0, 1];
    values.sort((a, b) => a - b);
    let low = values[Math.floor(.004 * (values.length - 1))], high = values[Math.ceil(.996 * (values.length - 1))];
    for (let i = 0; i < curve.length; i++) if (Number.isFinite(curve[i])) { low = Math.min(low, curve[i]); high = Math.max(high, curve[i]); }
    if (floor !== undefined) low = Math.min(low, floor * .5);
    const room = (high - low) * .06 || Math.abs(high) * .05 || 1;
    if (name === "lr") low = 0;
    return [low >= 0 && (name === RATE || name === "lr" || name === "spread") ? Math.max(0, low - room) : low - room, high + room];
  }
  function draw(table, column, view) {
    const context = sharpen(canvas, width, height), { first, last, from, to, share, cursor, floor } = view;
    context.clearRect(0, 0, width, height);
    const curve = smoothed(table, column, first, last, share), [low, high] = range(table, column, first, last, curve, floor);
    const left = 42, right = width - 6, top = 6, bottom = height - 16;
    const x = (step) => left + (to > from ? (step - from) / (to - from) : .5) * (right - left), y = (v) => bottom - (v - low) / (high - low) * (bottom - top);
    context.font = "10px system-ui, sans-serif"; context.fillStyle = base.colour("muted"); context.strokeStyle = base.colour("line"); context.lineWidth = 1; context.textBaseline = "middle";
    context.textAlign = "right";
    for (const k of [0, .5, 1]) { const v = low + k * (high - low), py = Math.round(y(v)) + .5; context.beginPath(); context.moveTo(left, py); context.lineTo(right, py); context.stroke(); context.fillText(axisText(v, high - low), left - 5, py); }
    context.textBaseline = "alphabetic"; context.textAlign = "left"; context.fillText(String(from), left, height - 3); context.textAlign = "right"; context.fillText(String(to), right, height - 3);
    context.save(); context.beginPath(); context.rect(left - 1, top - 2, right - left + 4, bottom - top + 4); context.clip();
    if (floor !== undefined) { context.strokeStyle = base.colour("warm"); context.setLineDash([4, 3]); context.beginPath(); context.moveTo(left, y(floor)); context.lineTo(right, y(floor)); context.stroke(); context.setLineDash([]); }
    line(context, (i) => table.at(first + i, column), last - first, (i) => x(table.at(first + i, 0)), y, share > 0 ? .35 : 1, share > 0 ? 1 : 1.6);
    if (share > 0) line(context, (i) => curve[i], last - first, (i) => x(table.at(first + i, 0)), y, 1, 1.8);
    const row = cursor === null ? table.count - 1 : table.rowOf(cursor), shown = share > 0 && row >= first && row < last ? curve[row - first] : table.at(row, column);
    if (cursor !== null) { context.strokeStyle = base.colour("text"); context.globalAlpha = .5; context.lineWidth = 1; const px = Math.round(x(table.at(row, 0))) + .5; context.beginPath(); context.moveTo(px, top); context.lineTo(px, bottom); context.stroke(); context.globalAlpha = 1; }
    if (Number.isFinite(shown)) { context.fillStyle = base.colour("accent"); context.strokeStyle = base.colour("back"); context.lineWidth = 1.5; context.beginPath(); context.arc(x(table.at(row, 0)), y(shown), 3.2, 0, 7); context.fill(); context.stroke(); }
    context.restore();
    value.textContent = short(shown);
    note.textContent = floor !== undefined && shown < floor ? "collapse" : "";
    element.dataset.value = shown;
    return { x, y, low, high, left, right };
  }
  function line(context, get, n, px, py, opacity, thick) {
    context.strokeStyle = base.colour("accent"); context.globalAlpha = opacity; context.lineWidth = thick; context.lineJoin = "round"; context.beginPath();
    const group = Math.max(1, Math.floor(n / Math.max(1, 2 * (width - 44))));
    let pen = false;
    for (let i = 0; i < n; i += group) {
      let low = Infinity, high = -Infinity, bad = true;
      for (let j = i; j < Math.min(n, i + group); j++) { const v = get(j); if (Number.isFinite(v)) { bad = false; if (v < low) low = v; if (v > high) high = v; } }
      if (bad) { pen = false; continue; }
      const at = px(i);
      pen ? context.lineTo(at, py(low)) : context.moveTo(at, py(low)); pen = true;
      if (high !== low) context.lineTo(at, py(high));
    }
    context.stroke(); context.globalAlpha = 1;
  }
  return { element, canvas, draw, get width() { return width; } };
}

function render({ model, el }) {
  const base = frame({ model, el }, "monitor", "Training monitor"), { root, listen, signal, say } = base;
  const table = new Table();
  let columns = [], charts = new Map(), share = .8, span = 0, cursor = null, disposed = false, picked = null, sources = null, geometry = null, asked = null;
  const stats = { paints: 0, appended: 0, whole: 0, gaps: 0 };

  // --- page
  const badge = h("span", { class: "pxm-badge", role: "status" }), facts = h("span", { class: "pxm-facts" }), bar = h("i", {});
  const progress = h("div", { class: "pxm-progress", role: "progressbar", "aria-label": "steps done", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
  const pauseButton = button({ label: "Pause", onclick: () => command(status().state === "paused" ? "resume" : "pause") });
  const stopButton = button({ label: "Stop", title: "End the run after this step; a checkpoint is written if it has a run folder", onclick: stop });
  const smoothing = slider({ label: "Smoothing", min: 0, max: .98, step: .02, value: share, format: (v) => v.toFixed(2), oninput: (v) => { share = v; redraw(); } });
  const window_ = choice({ label: "Steps", options: [["0", "all"], ["1000", "last 1000"], ["200", "last 200"], ["50", "last 50"]], value: "0", onchange: (v) => { span = Number(v); redraw(); } });
  const message = h("div", { class: "pxm-message" });
  const grid = h("div", { class: "pxm-charts", tabindex: 0, role: "application", "aria-roledescription": "charts", "aria-label": "Curves of the run. Left and right arrows go from step to step, Escape lets go." });
  const readout = h("div", { class: "pxw-note pxm-readout" });
  const now = h("div", { class: "pxm-now" }), strip = h("div", { class: "pxm-strip", role: "group", "aria-label": "Pictures over the steps" }), caption = h("div", { class: "pxw-caption" });
  const pictures = h("div", { class: "pxm-pictures", hidden: true }, caption, now, strip);
  root.append(h("div", { class: "pxm-top" }, badge, facts, h("span", { class: "pxm-buttons" }, pauseButton, stopButton)), progress, message, controls(smoothing.element, window_.element), grid, readout, pictures);

  // --- what Python says, and that it says something at all
  const status = () => (silence ? { ...model.get("status"), ...silence } : model.get("status") || {});
  const QUIET = 30_000;                // ms without a status, of a run that is not over, after which the kernel counts as gone
  let heard = performance.now(), heardAt = new Date(), silence = null;
  function takeStatus() { heard = performance.now(); heardAt = new Date(); silence = null; showStatus(); }
  function checkKernel(now = performance.now()) {
    const said = model.get("status") || {};
    if (!said.looked || now - heard < QUIET || silence) return;
    silence = { state: "silent", controls: false, eta: 0, message: `No word from Python since ${heardAt.toLocaleTimeString("en-GB")}: the kernel is busy, was restarted, or is gone. Last heard: ${said.state}.` };
    showStatus();
  }
  const watch = setInterval(checkKernel, 5000);
  base.onCleanup(() => clearInterval(watch));
  function showStatus() {
    const s = status(), done = s.total ? Math.min(1, (s.step + 1) / s.total) : null;
    root.dataset.state = s.state;
    badge.textContent = STATES[s.state] || s.state || "";
    const parts = [];
    if (s.step >= 0) parts.push(s.total ? `step ${s.step + 1} of ${s.total}` : `step ${s.step + 1}`);
    if (s.rate > 0) parts.push(`${short(s.rate)} images/s`);
    if (s.elapsed > 0) parts.push(`${clockText(s.elapsed)} so far`);
    if (s.eta > 0) parts.push(`${clockText(s.eta)} to go`);
    facts.textContent = parts.join(" · ");
    progress.hidden = done === null;
    if (done !== null) { bar.style.width = `${100 * done}%`; progress.setAttribute("aria-valuenow", Math.round(100 * done)); }
    message.textContent = s.message || ""; message.hidden = !s.message; message.classList.toggle("pxm-bad", s.state === "failed");
    pauseButton.textContent = s.state === "paused" ? "Resume" : "Pause";
    const over = !["running", "paused", "stopping", "silent"].includes(s.state);
    root.querySelector(".pxm-buttons").hidden = !s.controls;
    pauseButton.disabled = over || s.state === "stopping"; stopButton.disabled = over || s.state === "stopping";
  }
  function command(word) { model.send({ kind: "command", command: word }); say(word); }
  function stop() {                    // a run is long: ask once more, in place
    if (asked) { clearTimeout(asked); asked = null; stopButton.textContent = "Stop"; command("stop"); return; }
    stopButton.textContent = "Really stop?";
    asked = setTimeout(() => { asked = null; stopButton.textContent = "Stop"; }, 3000);
  }
  function takeAll() {                 // a whole table: at the start, and now and then in case a part was missed
    const values = float64Of(model.get("rows")), names = model.get("columns");
    const other = names.join("\n") !== columns.join("\n") || model.get("epoch") !== table.epoch;
    if (!other && values.length / Math.max(1, names.length) < table.count) return;
    stats.whole++;
    columns = names; table.epoch = model.get("epoch");
    table.reset(Math.max(1, names.length), values.slice());
    if (other) makeCharts();
    redraw();
  }
  function takePart(content, buffers) {
    if (content.kind === "rows") {
      if (content.epoch !== table.epoch) return;                       // of a table we have not seen: the whole one follows
      if (table.append(content.start, float64Of(buffers[0]))) { stats.appended++; redraw(); }
      else { stats.gaps++; model.send({ kind: "rows", have: table.count }); }
    }
    if (content.kind === "picture" && addPicture(content.step, bytesOf(buffers[0]).slice())) showPicture();
  }
  function makeCharts() {
    const order = columns.slice(1).sort((a, b) => rank(a) - rank(b));
    charts = new Map(order.map((name) => [name, chart(name, base)]));
    grid.replaceChildren(...[...charts.values()].map((c) => c.element));
  }
  const rank = (name) => ({ loss: 0, spread: 90, lr: 91, [RATE]: 92 }[name] ?? 10 + columns.indexOf(name));

  // --- curves
  const redraw = perFrame(() => { if (!disposed) paint(); });
  function paint() {
    if (!table.count) { readout.textContent = "No step yet."; return; }
    const end = table.at(table.count - 1, 0), begin = span ? Math.max(table.at(0, 0), end - span + 1) : table.at(0, 0);
    let first = table.rowOf(begin); if (table.at(first, 0) < begin) first++;
    const view = { first: Math.min(first, table.count - 1), last: table.count, from: begin, to: end, share, cursor };
    for (const [name, c] of charts) geometry = c.draw(table, columns.indexOf(name), { ...view, share: name === "lr" ? 0 : share, floor: name === "spread" && model.get("collapse_below") > 0 ? model.get("collapse_below") : undefined });
    stats.paints++;
    root.dataset.rows = table.count;
    readout.textContent = cursor === null ? "" : sentence();
    if (cursor !== null) showPicture();
  }
  function sentence() {
    const row = table.rowOf(cursor);
    return `step ${table.at(row, 0)}: ` + [...charts.keys()].map((name) => `${NAMES[name] || name} ${short(table.at(row, columns.indexOf(name)))}`).join(", ");
  }
  function point(event, card = event.target.closest(".pxm-card")) {
    if (!card || !geometry || !table.count) return false;
    const canvas = card.querySelector("canvas"), along = (pointOf(event, canvas)[0] - geometry.left) / Math.max(1, geometry.right - geometry.left);
    const end = table.at(table.count - 1, 0), begin = span ? Math.max(table.at(0, 0), end - span + 1) : table.at(0, 0);
    cursor = table.at(table.rowOf(Math.round(begin + Math.min(1, Math.max(0, along)) * (end - begin))), 0);
    redraw();
    return true;
  }
  const release = () => { cursor = null; picked = null; redraw(); showPicture(); };
  grid.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch" && !event.buttons) point(event); }, { signal });
  let card = null;                     // where a press began: the grid holds the pointer from then on
  pressAndDrag(grid, { start(event) { card = event.target.closest(".pxm-card"); return point(event, card); }, move(event) { point(event, card); } }, signal);
  grid.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && document.activeElement !== grid) release(); }, { signal });
  grid.addEventListener("blur", release, { signal });
  grid.addEventListener("keydown", (event) => {
    const jump = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (event.key === "Escape") release();
    else if (!table.count) return;
    else if (event.key === "Home" || event.key === "End") cursor = table.at(event.key === "Home" ? 0 : table.count - 1, 0);
    else if (jump) { const row = cursor === null ? table.count - 1 : table.rowOf(cursor) + jump; cursor = table.at(Math.max(0, Math.min(table.count - 1, row)), 0); }
    else return;
    event.preventDefault(); event.stopPropagation();
    redraw(); if (cursor !== null) say(sentence());
  }, { signal });

  // --- pictures: one button a snapshot, appended; the shown one is large
  const shots = new Map();             // step → {pixels, button}
  const shape = () => model.get("picture_shape");
  function draw(canvas, pixels, only) {
    const [n, rows, cols] = shape(), count = only === undefined ? n : 1;
    canvas.width = cols; canvas.height = rows * count;
    const context = canvas.getContext("2d"), image = context.createImageData(cols, rows * count);
    const start = (only ?? 0) * rows * cols;
    for (let i = 0; i < rows * cols * count; i++) { const p = 3 * (start + i); image.data[4 * i] = pixels[p]; image.data[4 * i + 1] = pixels[p + 1]; image.data[4 * i + 2] = pixels[p + 2]; image.data[4 * i + 3] = 255; }
    context.putImageData(image, 0, 0);
  }
  function addPicture(step, pixels) {
    const [n, rows, cols] = shape();
    if (!n || pixels.length !== 3 * n * rows * cols || shots.has(step)) return false;
    const canvas = h("canvas", {}), element = h("button", { type: "button", class: "pxm-shot", "data-step": step, "aria-pressed": "false", title: `step ${step}`, "aria-label": `pixels at step ${step}`,
      onclick: () => { picked = picked === step ? null : step; showPicture(); } }, canvas, h("span", {}, String(step)));
    draw(canvas, pixels, 0);
    const atEnd = strip.scrollLeft + strip.clientWidth >= strip.scrollWidth - 8;
    const after = [...shots.keys()].filter((s) => s > step).sort((a, b) => a - b)[0];
    strip.insertBefore(element, after === undefined ? null : shots.get(after).element);
    shots.set(step, { pixels, element });
    if (atEnd) strip.scrollLeft = strip.scrollWidth;
    return true;
  }
  function takePictures() {
    const [n, rows, cols] = shape(), steps = model.get("picture_steps"), all = bytesOf(model.get("pictures")), size = 3 * n * rows * cols;
    for (const step of [...shots.keys()]) if (!steps.includes(step)) { shots.get(step).element.remove(); shots.delete(step); }
    steps.forEach((step, i) => addPicture(step, all.slice(i * size, (i + 1) * size)));
    showPicture();
    strip.scrollLeft = strip.scrollWidth;
  }
  function showPicture() {
    pictures.hidden = shots.size === 0;
    if (!shots.size) return;
    const steps = [...shots.keys()].sort((a, b) => a - b), wanted = picked ?? cursor;
    const step = wanted === null ? steps[steps.length - 1] : steps.filter((s) => s <= wanted).pop() ?? steps[0];
    if (root.dataset.picture === String(step) && now.childElementCount) return;
    root.dataset.picture = step;
    caption.replaceChildren(h("b", {}, `Pixels at step ${step}`), ": their 3 strongest directions as colours");
    const [n] = shape();
    if (now.childElementCount !== n) now.replaceChildren(...Array.from({ length: n }, (_, i) => h("div", { class: "pxm-pair" }, h("canvas", { class: "pxm-source", "aria-hidden": "true" }), h("canvas", { class: "pxm-features", role: "img", "aria-label": `image ${i}` }))));
    [...now.children].forEach((pair, i) => draw(pair.lastChild, shots.get(step).pixels, i));
    drawSources();
    for (const [s, shot] of shots) shot.element.setAttribute("aria-pressed", String(s === step));
  }
  function drawSources() {
    if (!sources) return;
    const n = shape()[0], width = sources.width / n;
    [...now.children].forEach((pair, i) => { const c = pair.firstChild; if (c.width === width) return; c.width = width; c.height = sources.height; c.getContext("2d").drawImage(sources, i * width, 0, width, sources.height, 0, 0, width, sources.height); });
  }
  function takeSources() { if (model.get("sources")) loadPicture(model.get("sources")).then((image) => { sources = image; drawSources(); }); }

  // --- start
  root.pxw = { stats, table, redraw, paint, checkKernel, hear: (content, buffers) => takePart(content, buffers), get charts() { return charts; }, get cursor() { return cursor; } };
  const hear = (content, buffers) => takePart(content, buffers || []);
  model.on("msg:custom", hear); base.onCleanup(() => model.off("msg:custom", hear));
  listen("status", takeStatus); listen("rows", takeAll); listen("picture_steps", takePictures); listen("sources", takeSources); listen("collapse_below", redraw);
  showStatus(); takeAll(); takePictures(); takeSources(); base.onTheme(() => redraw());
  model.send({ kind: "rows", have: table.count });
  return () => { disposed = true; clearTimeout(asked); base.cleanup(); };
}

export default { render };
