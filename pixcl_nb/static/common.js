// Shared by every widget. `PixelWidget` puts this file in front of a widget's own, so each widget is one ES module with no import.
// A widget's file ends in `export default { render };`.

// ---------------------------------------------------------------- elements
/** Make an element: h("button", {class: "x", onclick: f, "aria-label": "go"}, "text", child). `on…` become listeners, null and false are left out. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "textContent") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

let serial = 0;
const uniqueId = (word) => `pxw-${word}-${++serial}-${Math.random().toString(36).slice(2, 7)}`;

// ---------------------------------------------------------------- frame: root element, theme, model listeners, clean-up
/** Is the page around us dark? JupyterLab, VS Code, Colab, Quarto and marimo say so; elsewhere the system's preference counts. */
function pageIsDark() {
  const body = document.body, html = document.documentElement, has = (...names) => names.some((name) => body.classList.contains(name));
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false";
  if (body.dataset.vscodeThemeKind) return /dark|high-contrast$/.test(body.dataset.vscodeThemeKind);
  if (html.hasAttribute("theme")) return html.getAttribute("theme") === "dark";
  if (has("quarto-dark", "dark", "dark-theme")) return true;
  if (has("quarto-light", "light", "light-theme")) return false;
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Call f whenever the number of screen pixels in a CSS pixel changes: another screen, or the browser's zoom. Returns how to stop. */
function onDensityChange(f) {
  let query = null, known = null;
  const changed = () => { if (window.devicePixelRatio !== known) { arm(); f(); } };
  const disarm = () => query?.removeEventListener("change", changed);
  function arm() {
    disarm();
    known = window.devicePixelRatio;
    query = window.matchMedia(`(resolution: ${known}dppx)`);
    query.addEventListener("change", changed);
  }
  arm();
  window.addEventListener("resize", changed);                     // zoom changes the window's size in CSS pixels, too
  return () => { disarm(); window.removeEventListener("resize", changed); };
}

/** Width and height inside an element's padding, in its own CSS pixels. */
function contentSize(element) {
  const style = getComputedStyle(element), sum = (...names) => names.reduce((total, name) => total + (parseFloat(style[name]) || 0), 0);
  return [element.clientWidth - sum("paddingLeft", "paddingRight"), element.clientHeight - sum("paddingTop", "paddingBottom")];
}

const PRINT_WIDTH = 680;                                // CSS pixels; fits A4 and Letter with their usual margins

/**
 * The box a widget lives in. Returns
 *   root            the element (class "pxw pxw-<name>", data-theme "light" or "dark"); root.pxw is free for the widget's test hooks
 *   listen(key, f)  call f on model changes of `key` (or several, separated by spaces)
 *   onTheme(f)      call f now and whenever light turns dark or back; on paper everything is light
 *   colour(name)    value of the CSS variable --pxw-<name>
 *   signal          an AbortSignal for addEventListener; aborted on clean-up
 *   say(text)       read out by screen readers (aria-live)
 *   onResize(element, f)   f(width, height) in the element's own CSS pixels: now, on every change of size or pixel density, and for paper
 *   cleanup         what `render` returns
 */
function frame({ model, el }, name, label) {
  const abort = new AbortController(), undo = [], themed = [], sized = [];
  const live = h("div", { class: "pxw-live", "aria-live": "polite" });
  const root = h("div", { class: `pxw pxw-${name}`, role: "group", "aria-label": label, "data-lm-suppress-shortcuts": "true" });
  el.append(root);
  root.append(live);
  // Keys pressed in the widget are the widget's: JupyterLab would take S for "save" (the attribute above) and arrows away from sliders (this listener).
  root.addEventListener("keydown", (event) => { if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation(); });
  let printing = false;
  const retheme = () => {
    const wanted = model.get("theme") || "auto", dark = !printing && (wanted === "auto" ? pageIsDark() : wanted === "dark");
    const now = dark ? "dark" : "light";
    if (root.dataset.theme === now) return;
    root.dataset.theme = now;
    for (const f of themed) f(now);
  };
  const resize = () => { for (const [element, f] of sized) f(...contentSize(element)); };
  /** Paper is light and narrow, and nothing is laid out or drawn between the browser's call and the page: so all of it happens at once. */
  const forPaper = (paper) => {
    if (printing === paper) return;
    printing = paper;
    root.style.width = paper ? `${PRINT_WIDTH}px` : "";
    retheme();
    resize();
    drawNow();
  };
  const listen = (keys, f) => keys.split(" ").forEach((key) => { model.on(`change:${key}`, f); undo.push(() => model.off(`change:${key}`, f)); });
  listen("theme", retheme);
  const options = { signal: abort.signal }, paper = window.matchMedia("print");
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", retheme, options);
  paper.addEventListener("change", () => forPaper(paper.matches), options);
  window.addEventListener("beforeprint", () => forPaper(true), options);
  window.addEventListener("afterprint", () => forPaper(false), options);
  const watcher = new MutationObserver(retheme);
  for (const element of [document.body, document.documentElement])
    watcher.observe(element, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind", "theme", "class"] });
  undo.push(() => watcher.disconnect(), onDensityChange(resize));
  retheme();
  return {
    root, model, listen, signal: abort.signal,
    onTheme(f) { themed.push(f); f(root.dataset.theme); },
    colour: (word) => getComputedStyle(root).getPropertyValue(`--pxw-${word}`).trim(),
    say(text) { live.textContent = text; },
    onResize(element, f) {
      const observer = new ResizeObserver(([{ contentRect }]) => { if (!printing) f(contentRect.width, contentRect.height); }), entry = [element, f];
      observer.observe(element);
      sized.push(entry);
      undo.push(() => { observer.disconnect(); sized.splice(sized.indexOf(entry), 1); });
    },
    onCleanup(f) { undo.push(f); },
    cleanup() { abort.abort(); undo.forEach((f) => f()); root.remove(); },
  };
}

// ---------------------------------------------------------------- state in and out
/** Binary traits arrive as DataView; these see them as numbers, copying only where the alignment asks for it. */
const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
const int8Of = (view) => new Int8Array(view.buffer, view.byteOffset, view.byteLength);
const aligned = (view, size) => (view.byteOffset % size ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : null);
function float32Of(view) { const copy = aligned(view, 4); return copy ? new Float32Array(copy) : new Float32Array(view.buffer, view.byteOffset, view.byteLength / 4); }
function int32Of(view) { const copy = aligned(view, 4); return copy ? new Int32Array(copy) : new Int32Array(view.buffer, view.byteOffset, view.byteLength / 4); }

/** send(values) sets traits and tells Python, at most every `pause` ms; the last values always arrive. */
function outbox(model, pause = 50) {
  let waiting = null, timer = null;
  const flush = () => {
    timer = null;
    if (!waiting) return;
    for (const [key, value] of Object.entries(waiting)) model.set(key, value);
    waiting = null;
    model.save_changes();
    timer = setTimeout(flush, pause);
  };
  return (values) => { waiting = { ...waiting, ...values }; if (timer === null) flush(); };
}

const waitingForFrame = new Set();

/** Call f at most once a frame, with the arguments of the last call. */
function perFrame(f) {
  let queued = null;
  const run = () => { waitingForFrame.delete(run); if (queued) { const now = queued; queued = null; f(...now); } };
  return (...values) => {
    if (!queued) { waitingForFrame.add(run); requestAnimationFrame(run); }
    queued = values;
  };
}

/** Do now what waits for the next frame: before a page is printed there is none. */
function drawNow() { for (const run of [...waitingForFrame]) run(); }

/** A picture trait ("data:image/png;base64,…") as a decoded image. */
async function loadPicture(uri) { const image = new Image(); image.src = uri; await image.decode(); return image; }

// ---------------------------------------------------------------- rows of int8: products and the best of them
/** One product, whole numbers; Math.imul and |0 keep the engine in 32-bit integers. */
function dotOne({ data, channels }, vector, cell) {
  let sum = 0;
  for (let k = 0, p = cell * channels; k < channels; k++, p++) sum = (sum + Math.imul(data[p], vector[k])) | 0;
  return sum;
}

const DOTS = fromBase64("AGFzbQEAAAABCQFgBX9/f39/AAMCAQAFAwEAAQcRAgZtZW1vcnkCAARkb3RzAAAKowEBoAECAn8DeyACIANBAnRqIQUCQANAIAIgBU8NAf0MAAAAAAAAAAAAAAAAAAAAACEHQQAhBgNAIAAgBmr9AAQAIQggASAGav0ABAAhCSAHIAggCf2cASAIIAn9nQH9jgH9fv2uASEHIAZBEGoiBiAESQ0ACyACIAf9GwAgB/0bAWogB/0bAiAH/RsDamo2AgAgACAEaiEAIAJBBGohAgwACwsLAFUEbmFtZQI3AQAKAANyb3cBBnZlY3RvcgIDb3V0AwVjZWxscwQFYnl0ZXMFA2VuZAYCYXQHA3N1bQgBYQkBYgMVAQADAARkb25lAQRuZXh0AgRtb3Jl");   // static/dots.wat, assembled

/** A map's rows where WebAssembly finds them: a function (vector, out) that does dotAll sixteen products at a time; null where a page forbids it. */
function fastRows({ data, cells, channels }) {
  try {
    const bytes = 16 * Math.ceil(channels / 16), vectorAt = cells * bytes, outAt = vectorAt + bytes, { memory, dots } = new WebAssembly.Instance(new WebAssembly.Module(DOTS)).exports;
    memory.grow(Math.ceil((outAt + 4 * cells) / 65536));
    const rows = new Int8Array(memory.buffer, 0, vectorAt), query = new Int8Array(memory.buffer, vectorAt, bytes), found = new Int32Array(memory.buffer, outAt, cells);
    for (let i = 0; i < cells; i++) rows.set(data.subarray(i * channels, (i + 1) * channels), i * bytes);
    return (vector, out) => { query.set(vector); dots(0, vectorAt, outAt, cells, bytes); out.set(found); };
  } catch { return null; }
}

/** out[i] = map's cell i · the vector. The loop takes four cells at a time, so that an entry of the vector is read once for four products. */
function dotAll(map, vector, out) {
  if (map.fast === undefined) map.fast = fastRows(map);
  if (map.fast) { map.fast(vector, out); return; }
  const { data, cells, channels } = map, most = cells & ~3;
  for (let i = 0; i < most; i += 4) {
    const p = (i * channels) | 0, q = (p + channels) | 0, r = (q + channels) | 0, s = (r + channels) | 0;
    let a = 0, b = 0, c = 0, d = 0;
    for (let k = 0; k < channels; k++) {
      const v = vector[k];
      a = (a + Math.imul(data[p + k], v)) | 0;
      b = (b + Math.imul(data[q + k], v)) | 0;
      c = (c + Math.imul(data[r + k], v)) | 0;
      d = (d + Math.imul(data[s + k], v)) | 0;
    }
    out[i] = a; out[i + 1] = b; out[i + 2] = c; out[i + 3] = d;
  }
  for (let i = most; i < cells; i++) out[i] = dotOne(map, vector, i);
}

/** Index of the first largest value. */
function largest(values) { let best = 0; for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i; return best; }

/** Indices of the k largest values, the largest first; of equal ones the first. `skip`: an index that does not count. */
function topIndices(values, k, skip = -1) {
  const found = [];
  if (k < 1) return found;
  let least = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v <= least || i === skip) continue;
    let at = found.length;
    while (at > 0 && values[found[at - 1]] < v) at--;
    found.splice(at, 0, i);
    if (found.length > k) found.pop();
    if (found.length === k) least = values[found[k - 1]];
  }
  return found;
}

/** Line segments [x0, y0, x1, y1, …] where a grid of values crosses a level, in cells; value i lies at its cell's centre. */
function contour(values, rows, columns, level, out = []) {
  out.length = 0;
  for (let r = 0; r + 1 < rows; r++) for (let c = 0; c + 1 < columns; c++) {
    const i = r * columns + c, a = values[i], b = values[i + 1], d = values[i + columns], e = values[i + columns + 1];
    const kind = (a >= level ? 1 : 0) | (b >= level ? 2 : 0) | (e >= level ? 4 : 0) | (d >= level ? 8 : 0);
    if (kind === 0 || kind === 15) continue;
    // where the level crosses the square's four sides
    const x = c + 0.5, y = r + 0.5, top = x + (level - a) / (b - a), right = y + (level - b) / (e - b), low = x + (level - d) / (e - d), left = y + (level - a) / (d - a);
    if (kind === 1 || kind === 14 || kind === 5) out.push(x, left, top, y);
    if (kind === 2 || kind === 13 || kind === 10) out.push(top, y, x + 1, right);
    if (kind === 4 || kind === 11 || kind === 5) out.push(x + 1, right, low, y + 1);
    if (kind === 8 || kind === 7 || kind === 10) out.push(low, y + 1, x, left);
    if (kind === 3 || kind === 12) out.push(x, left, x + 1, right);
    if (kind === 6 || kind === 9) out.push(top, y, low, y + 1);
  }
  return out;
}

// ---------------------------------------------------------------- links of the page's text
/**
 * A link [the wheel](#pixcl:bike?pixel=300,262&other=mean%20colours) anywhere in the page moves the widget whose `name` is bike (an empty
 * name: every widget that has the traits). Only the traits listed here; a value has the kind the trait has now. A page around a frame may send the
 * same text as message {pixcl: "bike?pixel=300,262"}. then(values) is called after the traits were set. Returns follow("pixel=300,262"), for this
 * widget's own links.
 */
function followLinks(box, allowed, then = () => {}) {
  const { model, signal } = box, kindOf = (now, text) => Array.isArray(now) ? text.split(",").map(Number) : typeof now === "number" ? Number(text) : typeof now === "boolean" ? text === "true" : text;
  const follow = (query) => {
    const values = {};
    for (const [key, text] of new URLSearchParams(query)) {
      if (!allowed.includes(key)) return false;
      const value = kindOf(model.get(key), text);
      if ([value].flat().some((v) => typeof v === "number" && !Number.isFinite(v))) return false;
      values[key] = value;
    }
    for (const [key, value] of Object.entries(values)) model.set(key, value);
    model.save_changes();
    then(values);
    return true;
  };
  const called = (address) => {
    const [name, query = ""] = address.split("?");
    try { return decodeURIComponent(name) === (model.get("name") || "") && follow(query); } catch { return false; }
  };
  document.addEventListener("click", (event) => {
    const link = event.composedPath().find((element) => element.matches?.('a[href*="#pixcl:"]'));       // the link may lie in a shadow root
    if (!link) return;
    const moved = called(link.getAttribute("href").split("#pixcl:")[1]);
    event.preventDefault();                                              // never a jump of the page, and no other page
    if (moved) box.root.scrollIntoView({ block: "nearest" });
  }, { signal, capture: true });
  window.addEventListener("message", (event) => { if (typeof event.data?.pixcl === "string") called(event.data.pixcl); }, { signal });
  return follow;
}

/** A text of the user with its [links](pixel=300,262) as buttons that call follow(…); nothing else in it is anything but text. */
function linkedText(text, follow) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)) {
    nodes.push(text.slice(from, found.index), h("button", { type: "button", class: "pxw-link", onclick: () => follow(found[2]) }, found[1]));
    from = found.index + found[0].length;
  }
  return [...nodes, text.slice(from)];
}

/** A row of patches: {element, set(title, items)}; an item has paint(context, size), text, title and perhaps onclick. */
function patchStrip(size = 44) {
  const title = h("div", { class: "pxw-caption" }), row = h("div", { class: "pxw-patches" }), element = h("div", { class: "pxw-strip", style: "display: none" }, title, row);
  return { element, set(text, items) {
    element.style.display = items.length ? "" : "none";
    title.textContent = text;
    row.replaceChildren(...items.map((item) => {
      const picture = h("canvas", { "aria-hidden": "true" }), key = h("button", { type: "button", class: "pxw-patch", title: item.title, "aria-label": item.title, onclick: item.onclick }, picture, h("span", {}, item.text));
      const context = sharpen(picture, size, size);
      context.imageSmoothingEnabled = false;
      item.paint(context, size);
      return key;
    }));
  } };
}

// ---------------------------------------------------------------- labelled controls; each has a visible label and works by keyboard
/** A slider with its label and its value. Returns {element, input, set(value)}; oninput(value) while it moves. */
function slider({ label, min, max, step = 1, value, format = String, oninput, title = "" }) {
  const id = uniqueId("slider"), out = h("output", { for: id }, format(value));
  const input = h("input", { type: "range", id, min, max, step, value: String(value), "aria-valuetext": format(value) });
  const show = (v) => { out.textContent = format(v); input.setAttribute("aria-valuetext", format(v)); };
  input.addEventListener("input", () => { show(Number(input.value)); oninput(Number(input.value)); });
  return { element: h("div", { class: "pxw-field pxw-slider", title }, h("label", { for: id }, label), input, out), input,
           set(v) { input.value = String(v); show(v); } };
}

/** A drop-down list. options: texts, or [value, text] pairs. Returns {element, input, set(value), options(list)}. */
function choice({ label, options, value, onchange, title = "" }) {
  const id = uniqueId("choice"), input = h("select", { id });
  const fill = (list) => input.replaceChildren(...list.map((o) => { const [v, text] = Array.isArray(o) ? o : [o, o]; return h("option", { value: String(v) }, String(text)); }));
  fill(options);
  if (value !== undefined) input.value = String(value);
  input.addEventListener("change", () => onchange(input.value));
  return { element: h("div", { class: "pxw-field", title }, h("label", { for: id }, label), input), input, set(v) { input.value = String(v); }, options: fill };
}

/** A box to tick. Returns {element, input, set(value)}. */
function tick({ label, value, onchange, title = "" }) {
  const id = uniqueId("tick"), input = h("input", { type: "checkbox", id, checked: Boolean(value) });
  input.addEventListener("change", () => onchange(input.checked));
  return { element: h("div", { class: "pxw-field pxw-tick", title }, input, h("label", { for: id }, label)), input, set(v) { input.checked = Boolean(v); } };
}

/** A button. */
const button = ({ label, onclick, title = "" }) => h("button", { type: "button", class: "pxw-button", title, onclick }, label);

/** A row of controls. */
const controls = (...children) => h("div", { class: "pxw-controls" }, ...children);

/** A titled panel: {element, body, caption}. */
function panel(title, ...children) {
  const caption = h("div", { class: "pxw-caption" }, title), body = h("div", { class: "pxw-body" }, ...children);
  return { element: h("div", { class: "pxw-panel" }, caption, body), body, caption };
}

// ---------------------------------------------------------------- canvas
/** How much larger than its own CSS pixels an element is shown: 1.5 inside a slide with `transform: scale(1.5)` or `zoom: 1.5`. */
function shownScale(element) {
  const own = element.offsetWidth;
  return own ? element.getBoundingClientRect().width / own || 1 : 1;
}

/** Give a canvas `width`×`height` CSS pixels, sharp on dense screens and in enlarged slides. Returns its 2-D context, scaled to CSS pixels. */
function sharpen(canvas, width, height) {
  const dense = Math.min(Math.min(window.devicePixelRatio || 1, 2) * Math.max(1, shownScale(canvas.parentElement || canvas)), 4);
  const w = Math.max(1, Math.round(width * dense)), t = Math.max(1, Math.round(height * dense));
  if (canvas.width !== w || canvas.height !== t) { canvas.width = w; canvas.height = t; }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(w / width, 0, 0, t / height, 0, 0);
  return context;
}

/** Where a pointer event is, as a share (x, y) of the element, 0 … 1; whatever CSS scale or zoom the page has. */
function shareOf(event, element) {
  const box = element.getBoundingClientRect(), fit = (v) => Math.min(Math.max(v, 0), 1);
  return [fit((event.clientX - box.left) / box.width), fit((event.clientY - box.top) / box.height)];
}

/** Where a pointer event is in the element's own CSS pixels: what `sharpen`'s context draws in. */
function pointOf(event, element) {
  const box = element.getBoundingClientRect(), scale = shownScale(element);
  return [(event.clientX - box.left) / scale - element.clientLeft, (event.clientY - box.top) / scale - element.clientTop];
}

/** Where an element lies inside another, {left, top, width, height} in the outer one's own CSS pixels: for a layer of marks over both. */
function placeIn(element, outer) {
  const a = element.getBoundingClientRect(), b = outer.getBoundingClientRect(), scale = shownScale(outer);
  return { left: (a.left - b.left) / scale, top: (a.top - b.top) / scale, width: a.width / scale, height: a.height / scale };
}

/**
 * Press, move, release; `start(event)` may return false to leave the press alone. The element gets `touch-action: pan-y`, so a finger that goes up or down
 * scrolls the page past it and changes nothing; one that goes sideways drags, and one that only touches counts as start and end on the spot.
 */
function pressAndDrag(element, { start, move = () => {}, end = () => {} }, signal) {
  const FAR = 6;                                                                        // CSS pixels before a finger's way is known
  let pressed = null, held = false;
  element.style.touchAction = "pan-y pinch-zoom";
  const begin = (event) => { held = start(event) !== false; return held; };
  const listen = (name, f) => element.addEventListener(name, f, { signal });
  listen("pointerdown", (event) => {
    if (event.button > 0) return;
    pressed = event;
    element.setPointerCapture(event.pointerId);
    if (event.pointerType !== "touch") begin(event);
  });
  listen("pointermove", (event) => {
    if (!pressed) return;
    if (held) { move(event); return; }
    if (event.pointerType === "touch" && Math.abs(event.clientX - pressed.clientX) > FAR && begin(pressed)) move(event);
  });
  listen("pointerup", (event) => {
    if (pressed && (held || (event.pointerType === "touch" && begin(pressed)))) end(event);
    pressed = null, held = false;
  });
  listen("pointercancel", (event) => { if (held) end(event); pressed = null, held = false; });
}

/** Text with a halo, readable on any picture. */
function haloText(context, text, x, y, { size = 12, colour = "#fff", halo = "rgba(0,0,0,.75)", align = "left" } = {}) {
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 3;
  context.strokeStyle = halo;
  context.strokeText(text, x, y);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

// ---------------------------------------------------------------- colour maps that colour-blind readers can order (matplotlib's tables)
/** base64 → bytes. A plain loop: Uint8Array.from would walk the text code point by code point, many times slower. */
function fromBase64(base64) {
  const text = atob(base64), out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out;
}
const CIVIDIS = fromBase64("ACJOACNPACRRACVTACVUACZWACdYAChZAChbACldACpfACphACtiACxkACxmAC1oAC5qAC5sAC9tADBvADBwADFwADFxATJxBTNxCDNwDDRwDzVwEjVwFDZwFjdwGDdvGjhvHDlvHjpvIDpvITtuIzxuJDxuJj1uJz5uKT9uKj9tK0BtLUFtLkFtL0JtMUNtMkNtM0RtNEVsNUVsNkZsOEdsOUhsOkhsO0lsPEpsPUpsPktsP0xsQExsQU1sQk5sQ05sRE9sRVBsRlFsR1FsSFJsSVNsSlNsS1RsTFVsTVVsTlZsT1dsUFdsUVhtUlltU1ptVFptVVttVVxtVlxtV11tWF5tWV5uWl9uW2BuXGFuXWFuXmJuXmNvX2NvYGRvYWVvYmVvY2ZwZGdwZWhwZWhwZmlwZ2pxaGpxaWtxamxxa21ybG1ybG5ybW9ybm9zb3BzcHFzcXJ0cnJ0cnN0c3R1dHR1dXV1dnZ2d3d2d3d3eHh3eXl3enp4e3p4fHt4fXx4fnx4fn14f354gH94gX94goB5g4F5hIJ5hYJ5hoN5h4R4iIV4iYV4ioZ4i4d4jIh4jYh4jol4j4p4kIt4kYt4kox4ko14k454lI53lY93lpB3l5F3mJJ3mZJ3mpN2m5R2nJV2nZV2npZ2n5d1oJh1oZl1opl1o5p0pJt0pZx0ppx0p51zqJ5zqZ9zqqBzq6ByrKFyraJyrqNxr6RxsKVxsaVws6ZwtKdvtahvtqlvt6luuKpuuattuqxtu61tvK5sva5svq9rv7BrwLFqwbJqwrNpw7NpxLRoxbVoxrZnx7dnyLhmyblly7llzLpkzbtjzrxjz71i0L5i0b9h0sBg08Bf1MFf1cJe1sNd18Rc2cVc2sZb28da3MhZ3chY3slY38pX4MtW4cxV4s1U5M5T5c9S5tBR59FQ6NJP6dNO6tNM69RL7dVK7tZJ79dI8NhG8dlF8tpE89tC9dxB9t0/994++N88+eA6++E4/OI2/eM0/uQ0/uU1/uY2/ug4");   // 256 × RGB
const VIRIDIS = fromBase64("RAFURAJWRQRXRQVZRgdaRghcRgpdRgteRw1gRw5hRxBjRxFkRxNlSBRnSBZoSBdpSBhqSBpsSBttSBxuSB1vSB9wSCBxSCFzSCN0SCR1SCV2SCZ3SCh4SCl5Ryp6Ryx6Ry17Ry58Ry99RjB+RjJ+RjN/RjSARTWBRTeBRTiCRDmDRDqDRDuEQz2EQz6FQj+FQkCGQkGGQUKHQUSHQEWIQEaIP0eIP0iJPkmJPkqJPkyKPU2KPU6KPE+KPFCLO1GLO1KLOlOLOlSMOVWMOVaMOFiMOFmMN1qMN1uNNlyNNl2NNV6NNV+NNGCNNGGNM2KNM2ONMmSOMmWOMWaOMWeOMWiOMGmOMGqOL2uOL2yOLm2OLm6OLm+OLXCOLXGOLHGOLHKOLHOOK3SOK3WOKnaOKneOKniOKXmOKXqOKXuOKHyOKH2OJ36OJ3+OJ4COJoGOJoKOJoKOJYOOJYSOJYWOJIaOJIeOI4iOI4mOI4qNIouNIoyNIo2NIY6NIY+NIZCNIZGMIJKMIJKMIJOMH5SMH5WLH5aLH5eLH5iLH5mKH5qKHpuKHpyJHp2JH56JH5+IH6CIH6GIH6GHH6KHIKOGIKSGIaWFIaaFIqeFIqiEI6mDJKqDJauCJayCJq2BJ62BKK6AKa9/KrB/LLF+LbJ9LrN8L7R8MbV7MrZ6NLZ5Nbd5N7h4OLl3Orp2O7t1Pbx0P7xzQL1yQr5xRL9wRsBvSMFuSsFtTMJsTsNrUMRqUsVpVMVoVsZnWMdlWshkXMhjXsliYMpgY8tfZcteZ8xcac1bbM1abs5YcM9Xc9BWddBUd9FTetFRfNJQf9NOgdNNhNRLhtVJidVIi9ZGjtZFkNdDk9dBldhAmNg+m9k8ndk7oNo5oto3pds2qNs0qtwyrdwwsN0vst0ttd4ruN4put4ovd8mwN8lwt8jxeAhyOAgyuEfzeEd0OEc0uIb1eIa2OIZ2uMZ3eMY3+MY4uQY5eQZ5+QZ6uUa7OUb7+Uc8eUd9OYe9uYg+OYh++cj/ecl");   // 256 × RGB
const TABLES = { cividis: CIVIDIS, viridis: VIRIDIS };

/** "rgb(…)" of a table at 0 … 1. */
function shade(table, share) {
  const i = 3 * Math.round(255 * Math.min(Math.max(share, 0), 1));
  return `rgb(${table[i]},${table[i + 1]},${table[i + 2]})`;
}

/** The same as one little-endian RGBA number per entry, for filling ImageData through a Uint32Array. */
function packed(table, opacity = 255) {
  const out = new Uint32Array(256);
  for (let i = 0; i < 256; i++) out[i] = ((opacity << 24) | (table[3 * i + 2] << 16) | (table[3 * i + 1] << 8) | table[3 * i]) >>> 0;
  return out;
}

/** A colour bar with its two ends. Returns {element, set(low, high)}. */
function colourBar(table, low, high, format = (v) => v.toFixed(2)) {
  const stops = Array.from({ length: 9 }, (_, i) => shade(table, i / 8)).join(",");
  const left = h("span", {}, format(low)), right = h("span", {}, format(high));
  return { element: h("div", { class: "pxw-bar", "aria-hidden": "true" }, left, h("i", { style: `background:linear-gradient(90deg,${stops})` }), right),
           set(a, b) { left.textContent = format(a); right.textContent = format(b); } };
}

/** Okabe and Ito's colours, as in pixcl_nb.plots.class_palette. */
const PALETTE = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"];

// ---------------------------------------------------------------- a model without a kernel
/** Stands in for anywidget's model in an exported page: same names, nothing sent anywhere. */
function standInModel(state) {
  const heard = {}, call = (name, ...values) => [...(heard[name] || [])].forEach((f) => f(...values));
  return {
    get: (key) => state[key],
    set(key, value) { if (state[key] !== value) { state[key] = value; call(`change:${key}`, this, value); call("change", this); } },
    on(name, f) { name.split(" ").forEach((n) => (heard[n] = heard[n] || []).push(f)); },
    off(name, f) { if (name) heard[name] = (heard[name] || []).filter((g) => f && g !== f); else Object.keys(heard).forEach((n) => delete heard[n]); },
    save_changes() {},
    send() {},
    state,
  };
}

/** {"$bytes": "base64"} → DataView, at any depth. */
function unpackState(value) {
  if (Array.isArray(value)) return value.map(unpackState);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.$bytes === "string") return new DataView(fromBase64(value.$bytes).buffer);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unpackState(inner)]));
}
