// EmbeddingExplorer: pixel embeddings as points (raw WebGL, or a 2-D canvas where there is none), linked both ways with the images.

const PLAIN = 0, FADED = 1, LIT = 2, HIDDEN = 3;
const REACH = 4;                         // positions reach four times as far as the border, as in embedding.py

// ---------------------------------------------------------------- which points lie inside a drawn outline
// Edges are sorted into horizontal bands, so that a point is tested against the few edges of its own band: exact, and about
// linear in the points. `inside` is filled with 0 and 1.
function lassoTest(xy, count, outline, inside) {
  const n = outline.length / 2;
  inside.fill(0);
  if (n < 3) return 0;
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (let i = 0; i < n; i++) {
    const x = outline[2 * i], y = outline[2 * i + 1];
    if (x < x0) x0 = x; if (x > x1) x1 = x; if (y < y0) y0 = y; if (y > y1) y1 = y;
  }
  const bands = Math.max(1, Math.min(512, Math.ceil(y1 - y0))), step = (y1 - y0) / bands || 1;
  const edges = Array.from({ length: bands }, () => []);
  for (let i = 0; i < n; i++) {
    const j = (i + 1) % n, ya = outline[2 * i + 1], yb = outline[2 * j + 1];
    if (ya === yb) continue;
    const low = Math.max(0, Math.floor((Math.min(ya, yb) - y0) / step)), high = Math.min(bands - 1, Math.floor((Math.max(ya, yb) - y0) / step));
    for (let b = low; b <= high; b++) edges[b].push(outline[2 * i], ya, outline[2 * j], yb);
  }
  let found = 0;
  for (let p = 0; p < count; p++) {
    const x = xy[2 * p], y = xy[2 * p + 1];
    if (!(x >= x0 && x <= x1 && y >= y0 && y <= y1)) continue;
    const list = edges[Math.min(bands - 1, Math.floor((y - y0) / step))];
    let odd = 0;
    for (let e = 0; e < list.length; e += 4) {
      const ya = list[e + 1], yb = list[e + 3];
      if ((ya > y) !== (yb > y) && x < list[e] + (y - ya) / (yb - ya) * (list[e + 2] - list[e])) odd ^= 1;
    }
    inside[p] = odd; found += odd;
  }
  return found;
}

// ---------------------------------------------------------------- drawing points
const VERTEX = `
attribute vec3 before, after; attribute vec3 colour; attribute float state;
uniform mat3 turn; uniform vec2 scale, shift; uniform float moved, size, alpha, pass, depth;
varying vec4 shade; varying float radius, solid;
void main() {
  vec3 p = turn * mix(before, after, moved);
  bool lit = state > 1.5, hidden = state > 2.5 || (pass < .5 ? lit : !lit);
  gl_Position = hidden ? vec4(2., 2., 2., 1.) : vec4(p.xy * scale + shift, -p.z * .15, 1.);
  gl_PointSize = max(2., size * (lit ? 1.35 : state > .5 ? .8 : 1.) * (1. + .35 * depth * p.z));
  radius = gl_PointSize * .5;
  float a = lit ? min(1., alpha + .3) : state > .5 ? alpha * .28 : alpha;
  shade = vec4(colour * a, a); solid = depth;
}`;
const FRAGMENT = `
precision mediump float;
varying vec4 shade; varying float radius, solid;
void main() {
  float d = length(gl_PointCoord - .5) * 2. * radius, cover = clamp(radius - d + .5, 0., 1.);
  if (cover < .02 || (solid > .5 && cover < .5)) discard;
  gl_FragColor = shade * (solid > .5 ? 1. : cover);
}`;

function webglRenderer(canvas, count, onLost) {
  const gl = canvas.getContext("webgl", { antialias: false, premultipliedAlpha: true, alpha: true });
  if (!gl) return null;
  const shader = (type, text) => {
    const s = gl.createShader(type); gl.shaderSource(s, text); gl.compileShader(s);
    if (!gl.getShaderParameter(s, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(s));
    return s;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, VERTEX)); gl.attachShader(program, shader(gl.FRAGMENT_SHADER, FRAGMENT));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const at = Object.fromEntries(["before", "after", "colour", "state"].map((name) => [name, gl.getAttribLocation(program, name)]));
  const uniform = Object.fromEntries(["turn", "scale", "shift", "moved", "size", "alpha", "pass", "depth"].map((name) => [name, gl.getUniformLocation(program, name)]));
  const buffers = {};
  const fill = (name, data, parts, type, usage) => {
    buffers[name] ??= gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]); gl.bufferData(gl.ARRAY_BUFFER, data, usage);
    gl.enableVertexAttribArray(at[name]);
    gl.vertexAttribPointer(at[name], parts, type, type !== gl.FLOAT, 0, 0);
  };
  gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA); gl.clearColor(0, 0, 0, 0);
  canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); if (canvas.isConnected) onLost(); });
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  return {
    name: "webgl", device: info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "WebGL",
    positions(before, after) { fill("before", before, 3, gl.FLOAT, gl.STATIC_DRAW); fill("after", after, 3, gl.FLOAT, gl.STATIC_DRAW); },
    colours(rgb) { fill("colour", rgb, 4, gl.UNSIGNED_BYTE, gl.STATIC_DRAW); },
    states(state) { buffers.state ??= gl.createBuffer(); gl.bindBuffer(gl.ARRAY_BUFFER, buffers.state); gl.bufferData(gl.ARRAY_BUFFER, state, gl.DYNAMIC_DRAW);
      gl.enableVertexAttribArray(at.state); gl.vertexAttribPointer(at.state, 1, gl.UNSIGNED_BYTE, false, 0, 0); },
    draw(view) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      view.depth ? gl.enable(gl.DEPTH_TEST) : gl.disable(gl.DEPTH_TEST);
      gl.uniformMatrix3fv(uniform.turn, false, view.turn);
      gl.uniform2f(uniform.scale, view.scale[0], view.scale[1]); gl.uniform2f(uniform.shift, view.shift[0], view.shift[1]);
      gl.uniform1f(uniform.moved, view.moved); gl.uniform1f(uniform.size, view.size); gl.uniform1f(uniform.alpha, view.depth ? 1 : view.alpha); gl.uniform1f(uniform.depth, view.depth ? 1 : 0);
      gl.uniform1f(uniform.pass, 0); gl.drawArrays(gl.POINTS, 0, count);
      if (view.anyLit) { gl.uniform1f(uniform.pass, 1); gl.drawArrays(gl.POINTS, 0, count); }
    },
    wait() { gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); },
    end() { gl.getExtension("WEBGL_lose_context")?.loseContext(); },
  };
}

// The same picture without WebGL: discs blended straight into an ImageData, on the plot's ground. Also used where WebGL is emulated on
// the CPU (SwiftShader, llvmpipe), which draws 50,000 points far slower than this.
const EMULATED = /swiftshader|llvmpipe|softpipe|software|basic render/i;

function canvasRenderer(canvas, count, ground) {
  const context = canvas.getContext("2d");
  let before, after, state, image = null, words = null;
  function disc(size, opacity, width) { // the pixels of a disc: how far each is from its middle, and how much of it is covered (so that small ones are round too)
    const r = Math.max(1.1, size / 2), reach = Math.ceil(r - 0.5), steps = [], alphas = [];
    for (let v = -reach; v <= reach; v++) for (let u = -reach; u <= reach; u++) {
      const cover = Math.min(1, Math.max(0, r - Math.hypot(u, v) + 0.5)), alpha = Math.round(256 * opacity * cover);
      if (alpha > 6) { steps.push(v * width + u); alphas.push(alpha); }
    }
    return { reach, steps: Int32Array.from(steps), alphas: Int32Array.from(alphas) };
  }
  return {
    name: "canvas", device: "2-D canvas",
    positions(a, b) { before = a; after = b; },
    colours(c) { words = new Uint32Array(c.buffer, c.byteOffset, count); },
    states(s) { state = s; }, wait() {}, end() {},
    draw(view) {
      const width = canvas.width, height = canvas.height;
      if (!width || !height) return;
      if (!image || image.width !== width || image.height !== height) image = context.createImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer), [g0, g1, g2] = ground();
      pixels.fill((0xff000000 | (g2 << 16) | (g1 << 8) | g0) >>> 0);
      const [t0, t1, , t3, t4, , t6, t7] = view.turn, m = view.moved, ax = view.scale[0] * width / 2, ay = view.scale[1] * height / 2, ox = (view.shift[0] + 1) / 2 * width, oy = (1 - view.shift[1]) / 2 * height;
      const looks = [PLAIN, FADED, LIT].map((s) => disc(view.size * (s === LIT ? 1.35 : s === FADED ? .8 : 1), s === LIT ? 1 : s === FADED ? view.alpha * .28 : view.alpha, width));
      for (let pass = 0; pass < (view.anyLit ? 2 : 1); pass++) {
        for (let i = 0, j = 0; i < count; i++, j += 3) {
          const s = state[i];
          if (s === HIDDEN || (s === LIT) !== (pass === 1)) continue;
          const x = before[j] + m * (after[j] - before[j]), y = before[j + 1] + m * (after[j + 1] - before[j + 1]), z = before[j + 2] + m * (after[j + 2] - before[j + 2]);
          const px = Math.round((t0 * x + t3 * y + t6 * z) * ax + ox - .5), py = Math.round(oy - (t1 * x + t4 * y + t7 * z) * ay - .5);
          const { reach, steps, alphas } = looks[s];
          if (px < reach || py < reach || px >= width - reach || py >= height - reach) continue;
          const word = words[i], redBlue = word & 0xff00ff, green = word & 0xff00, middle = py * width + px;
          for (let k = 0; k < steps.length; k++) {                   // two channels at a time: (old · (256 − alpha) + new · alpha) / 256
            const at = middle + steps[k], alpha = alphas[k], old = pixels[at];
            pixels[at] = (0xff000000 | ((((old & 0xff00ff) * (256 - alpha) + redBlue * alpha) >>> 8) & 0xff00ff) | ((((old & 0xff00) * (256 - alpha) + green * alpha) >>> 8) & 0xff00)) >>> 0;
          }
        }
      }
      context.putImageData(image, 0, 0);
    },
  };
}

// ---------------------------------------------------------------- colours
const parseHex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
const linear = (v) => (v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);

/** A class colour moved towards white (dark theme) or black (light theme) until it shows on the background. */
function readable(rgb, dark) {
  const fits = (c) => (dark ? luminance(c) >= .16 : luminance(c) <= .62);
  let colour = rgb;
  for (let k = .08; !fits(colour) && k <= .8; k += .08) colour = rgb.map((v) => Math.round(dark ? v + (255 - v) * k : v * (1 - k)));
  return colour;
}

// ---------------------------------------------------------------- what Python sent
/** Positions arrive as int16, layout by layout and step by step, `dims` numbers a point; the drawing wants three floats. */
function spreadPositions(view, count, dims, steps) {
  if (!view || !view.byteLength) return null;
  const bytes = view.byteOffset % 2 ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : null;
  const raw = bytes ? new Int16Array(bytes) : new Int16Array(view.buffer, view.byteOffset, view.byteLength / 2);
  return Array.from({ length: steps }, (_, s) => {
    const out = new Float32Array(3 * count);
    for (let i = 0; i < count; i++) for (let d = 0; d < dims; d++) out[3 * i + d] = raw[(s * count + i) * dims + d] * (REACH / 32767);
    return out;
  });
}

/** One colouring as {ids, names, palette} or {rgb}. */
function readColouring(entry, view, count) {
  const bytes = bytesOf(view).subarray(entry.offset);
  if (entry.kind === "components") return { ...entry, bytes };
  if (entry.kind === "rgb") return { ...entry, rgb: bytes.slice(0, 3 * count) };
  const ids = new Uint16Array(count);
  for (let i = 0; i < count; i++) ids[i] = bytes[2 * i] | (bytes[2 * i + 1] << 8);
  const counts = new Array(entry.names.length).fill(0);
  for (let i = 0; i < count; i++) counts[ids[i]]++;
  return { ...entry, ids, counts };
}

const COMPONENTS = 6;                      // as in embedding.py

/** Red, green and blue of each point from three of its components; `shown` is 0 for the share with least of red's component. */
function componentColours(bytes, count, step, chosen, cut, colours, shown) {
  const from = step * count * COMPONENTS, level = (i, c) => { const v = bytes[from + i * COMPONENTS + Math.abs(c) - 1]; return c > 0 ? v : 255 - v; };
  const tally = new Int32Array(257), hidden = Math.floor(cut * count + 0.5);
  for (let i = 0; i < count; i++) tally[level(i, chosen[0])]++;
  let below = 0, seen = 0;
  if (hidden >= count) below = 256;
  else while (seen + tally[below] <= hidden) seen += tally[below++];
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < 3; k++) colours[4 * i + k] = level(i, chosen[k]);
    colours[4 * i + 3] = 255;
    shown[i] = colours[4 * i] >= below ? 1 : 0;
  }
  return below;
}

// ---------------------------------------------------------------- where a group of points is dense
const FIELD = 72, EDGE = 1.12;             // cells of the field a side; it covers −EDGE … EDGE

/** A smoothed count of some points on a FIELD×FIELD grid: three passes of a box, nearly a Gaussian. */
function densityField(layout, members) {
  let field = new Float32Array(FIELD * FIELD), other = new Float32Array(FIELD * FIELD);
  const cellOf = (v) => Math.floor((v + EDGE) / (2 * EDGE) * FIELD);
  for (const i of members) { const x = cellOf(layout[3 * i]), y = cellOf(layout[3 * i + 1]); if (x >= 0 && y >= 0 && x < FIELD && y < FIELD) field[y * FIELD + x]++; }
  const clamp = (v) => Math.min(FIELD - 1, Math.max(0, v));
  for (let pass = 0; pass < 3; pass++) for (const [dx, dy] of [[1, 0], [0, 1]]) {
    for (let y = 0; y < FIELD; y++) for (let x = 0; x < FIELD; x++)
      other[y * FIELD + x] = (field[y * FIELD + x] + field[clamp(y - dy) * FIELD + clamp(x - dx)] + field[clamp(y + dy) * FIELD + clamp(x + dx)]) / 3;
    [field, other] = [other, field];
  }
  return field;
}

/** The level above which a share of the whole lies. */
function levelOfShare(field, share) {
  const sorted = Float32Array.from(field).sort(), total = sorted.reduce((a, b) => a + b, 0);
  let sum = 0, i = sorted.length - 1;
  while (i > 0 && sum + sorted[i] < share * total) sum += sorted[i--];
  return sorted[i];
}

function turnMatrix(yaw, pitch) {          // column-major, for WebGL
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return new Float32Array([cy, sy * sp, -sy * cp, 0, cp, sp, sy, -cy * sp, cy * cp]);
}

// ---------------------------------------------------------------- the widget
function render({ model, el }) {
  const base = frame({ model, el }, "embedding", "Embedding explorer: points and the pixels they stand for");
  const { root, listen, signal, say } = base, queue = outbox(model, 60);
  const count = model.get("count"), dims = model.get("dims"), grid = model.get("grid"), steps = model.get("steps");
  const cells = int32Of(model.get("cells"));
  const [tileHigh, tileWide] = grid.tile, perImage = grid.rows * grid.columns, pointOfCell = new Int32Array(grid.images * perImage).fill(-1);
  for (let i = 0; i < count; i++) pointOfCell[cells[i]] = i;
  let layouts = {}, colouring = null, colours = new Uint8Array(4 * count), states = new Uint8Array(count), selected = new Uint8Array(count), picked = 0;
  let hovered = -1, cursor = 0, tool = "lasso", outline = null, outlineOn = null, inside = new Uint8Array(count), playing = null, atlas = null, disposed = false;
  const channels = model.get("vector_channels"), vectors = channels ? int8Of(model.get("vectors")) : new Int8Array(0), scores = new Int32Array(count), query = new Int32Array(channels);
  const visible = new Uint8Array(count).fill(1), found = new Uint8Array(count), fullSpace = { list: [], cosines: [] };
  let onPlane = [], groups = [], finding = 0, propagatedRows = [];
  const xy = new Float32Array(2 * count), imageXY = new Float32Array(2 * count), stats = { lasso: [], frames: 0, draw: [], ask: [] };
  const view = { zoom: 1, x: 0, y: 0, yaw: .6, pitch: .35, moved: 1, turn: turnMatrix(0, 0), scale: [1, 1], shift: [0, 0], size: 4, alpha: .8, depth: dims === 3, anyLit: false };
  let before = null, after = null, width = 300, height = 300;

  // --- page
  const points = h("canvas", { class: "pxe-points" }), over = h("canvas", { class: "pxe-over", "aria-hidden": "true" }), grouped = h("canvas", { class: "pxe-groups", "aria-hidden": "true" });
  const hint = uniqueId("hint");
  const plot = h("div", { class: "pxe-plot", tabindex: 0, role: "application", "aria-roledescription": "scatter plot", "aria-describedby": hint,
    "aria-label": `Embedding of ${count} pixels. Arrow keys go from point to point, Enter selects, plus and minus zoom.` }, points, grouped, over);
  const pictures = h("canvas", { class: "pxe-pictures", tabindex: 0, role: "application", "aria-roledescription": "images",
    "aria-label": "The images. Arrow keys go from cell to cell, Enter selects.", "aria-describedby": hint });
  const readout = h("div", { class: "pxe-readout" }), tally = h("div", { class: "pxe-tally" }), legend = h("div", { class: "pxe-legend", role: "group" });
  const lens = h("canvas", { class: "pxe-lens", "aria-hidden": "true" });
  const TOOLS = { lasso: ["Lasso", "Draw around points or pixels (L). Shift adds, Alt takes away."], box: ["Rectangle", "Draw a rectangle around points or pixels (R). Shift adds, Alt takes away."],
    move: [dims === 3 ? "Turn" : "Move", "Drag to move, wheel or pinch to zoom (M)"] };
  const toolButtons = Object.entries(TOOLS).map(([name, [label, title]]) => button({ label, title, onclick: (event) => setTool(name, event) }));
  const component = ["Red", "Green", "Blue"].map((label, k) => choice({ label, options: Array.from({ length: COMPONENTS }, (_, i) => [[i + 1, `component ${i + 1}`], [-i - 1, `component ${i + 1}, turned round`]]).flat(), value: model.get("components")[k],
    onchange: (v) => { const chosen = model.get("components").slice(); chosen[k] = Number(v); put({ components: chosen }); } }));
  const cutSlider = slider({ label: "Hide", min: 0, max: 1, step: .01, value: model.get("cut"), format: (v) => `${Math.round(100 * v)} %`, title: "Hides the cells with least of red's component: a threshold between background and things", oninput: (v) => put({ cut: v }) });
  const cutValue = h("span", { class: "pxe-muted" }), componentRow = controls(...component.map((c) => c.element), cutSlider.element, cutValue);
  const switches = Object.fromEntries([["names", "Names", "Names of the groups, where they are densest"], ["density", "Density", "A line around the bulk of each group (60 % of it)"], ["patches", "Patches", "Patches of the pictures for points, when zoomed in"],
    ["paint", "Paint cells", "Paint the pictures' cells in the points' colours"], ["propagate", "Find elsewhere", "Where else is the selected region of one picture found? Every other cell asks its nearest cells there"]]
    .map(([key, label, title]) => [key, tick({ label, title, value: model.get(key), onchange: (v) => put({ [key]: v }) })]));
  if (dims === 3) switches.density.element.hidden = switches.names.element.hidden = true;
  const picture = button({ label: "PNG", title: "Save what is seen as a picture", onclick: savePicture }), screen = button({ label: "Full screen", title: "The whole screen; Escape ends it", onclick: fullScreen });
  screen.classList.add("pxw-screen");
  const strips = [patchStrip(), patchStrip()], verdict = h("div", { class: "pxe-verdict" }), words = h("div", { class: "pxw-text" });
  const put = (values) => { for (const [key, value] of Object.entries(values)) model.set(key, value); model.save_changes(); };
  const colourChoice = choice({ label: "Colour", options: model.get("colourings").map((c) => [c.name, c.name]), value: model.get("colour_by"), onchange: (v) => { queue({ colour_by: v }); recolour(); } });
  const layoutChoice = choice({ label: "Layout", options: ["pca"], onchange: (v) => { queue({ layout_shown: v }); show(); } });
  const clear = button({ label: "Clear", onclick: () => { mark(null); commit(); }, title: "Select nothing (Escape)" });
  const reset = button({ label: "Reset view", onclick: home, title: "Back to the whole plot (0); zoom out for stray points" });
  const progress = h("span", { class: "pxe-progress" });
  const player = button({ label: "Play", onclick: () => (playing ? pause() : play()), title: "Go through the training steps" });
  const stepSlider = steps.length > 1 && slider({ label: "Step", min: 0, max: steps.length - 1, value: model.get("step"), format: (i) => String(steps[i]),
    oninput: (i) => { pause(); queue({ step: i }); show(); } });
  const stepRow = stepSlider ? controls(stepSlider.element, player) : null;
  const top = controls(h("div", { class: "pxe-tools", role: "group", "aria-label": "What a drag does" }, ...toolButtons), colourChoice.element, layoutChoice.element, clear, reset, picture, screen, progress),
    second = controls(...Object.values(switches).map((s) => s.element));
  const left = h("div", { class: "pxe-left" }, plot, readout), right = h("div", { class: "pxe-right" }, pictures, h("div", { class: "pxe-info" }, lens, tally));
  root.append(...(model.get("label") ? [h("div", { class: "pxw-caption" }, h("b", {}, model.get("label")))] : []), words, top, second, componentRow, ...(stepRow ? [stepRow] : []), h("div", { class: "pxe-both" }, left, right), verdict, strips[0].element, strips[1].element, legend,
    h("div", { class: "pxw-note pxw-screen", id: hint }, "Draw around points, or around pixels: the other side lights up. Click a point or a pixel for its neighbours. ", h("kbd", {}, "Shift"), " adds, ", h("kbd", {}, "Alt"), " takes away. Click the plot, then the wheel zooms. Keys: arrows, ",
      h("kbd", {}, "Enter"), ", ", h("kbd", {}, "+"), h("kbd", {}, "−"), h("kbd", {}, "0"), ", ", h("kbd", {}, "Esc"), "."));

  // --- renderer: WebGL, or the canvas; a lost context changes over
  let renderer = null;
  let current = points;
  function useCanvas() {                 // a canvas that had WebGL cannot give a 2-D context: take a new one
    if (disposed) return;
    const fresh = h("canvas", { class: "pxe-points" });
    current.replaceWith(fresh); current = fresh;
    renderer = canvasRenderer(fresh, count, ground); root.dataset.renderer = renderer.name;
    if (before) { resize(); feed(); }
  }
  function ground() {                  // colour of the plot, for the canvas; read when drawing, as the style sheet may come late
    const [r, g, b, a = 255] = getComputedStyle(plot).backgroundColor.match(/[\d.]+/g)?.map(Number) || [0, 0, 0, 0];
    return a ? [r, g, b] : root.dataset.theme === "dark" ? [29, 33, 39] : [246, 247, 249];
  }
  const wanted = model.get("renderer");
  if (wanted !== "canvas") try { renderer = webglRenderer(points, count, useCanvas); } catch (error) { console.warn("pixcl_nb: no WebGL,", error.message); }
  if (renderer && wanted === "auto" && EMULATED.test(renderer.device)) { const slow = renderer; renderer = null; setTimeout(() => slow.end()); }
  if (!renderer) useCanvas();
  root.dataset.renderer = renderer.name;
  function feed() { if (!before) return; renderer.positions(before, after); renderer.colours(colours); renderer.states(states); redraw(); }

  // --- geometry
  function aim() {
    const side = Math.min(width, height) * .94 * view.zoom;
    view.scale = [side / width, side / height];
    view.shift = [view.x * 2 / width, -view.y * 2 / height];
    view.turn = dims === 3 ? turnMatrix(view.yaw, view.pitch) : turnMatrix(0, 0);
    view.size = Math.max(2.2, Math.min(8, Math.sqrt(width * height / count) * .36)) * Math.min(2, Math.max(.8, view.zoom ** .4)) * (current.width / Math.max(1, width));
    view.alpha = count > 20000 ? .6 : count > 5000 ? .72 : .85;
  }
  function project() {                   // CSS pixels of every point at the end of its movement
    const t = view.turn, [sx, sy] = view.scale, [ox, oy] = view.shift, halfX = width / 2, halfY = height / 2;
    for (let i = 0; i < count; i++) {
      const x = after[3 * i], y = after[3 * i + 1], z = after[3 * i + 2];
      xy[2 * i] = ((t[0] * x + t[3] * y + t[6] * z) * sx + ox + 1) * halfX;
      xy[2 * i + 1] = (1 - (t[1] * x + t[4] * y + t[7] * z) * sy - oy) * halfY;
    }
  }
  let tiles = { across: 1, side: 1, tall: 1, gap: 4, width: 1, height: 1 };
  function tile(index) { const c = index % tiles.across, r = Math.floor(index / tiles.across); return [c * (tiles.side + tiles.gap), r * (tiles.tall + tiles.gap)]; }
  function cellBox(cell) {               // of a cell, CSS pixels in the pictures, cut to its image
    const image = Math.floor(cell / perImage), row = Math.floor(cell % perImage / grid.columns), column = cell % grid.columns, [x, y] = tile(image);
    const kx = tiles.side / grid.width, ky = tiles.tall / grid.height;
    const x0 = Math.min(tiles.side, column * grid.stride[1] * kx), x1 = Math.min(tiles.side, (column + 1) * grid.stride[1] * kx), y0 = Math.min(tiles.tall, row * grid.stride[0] * ky), y1 = Math.min(tiles.tall, (row + 1) * grid.stride[0] * ky);
    return [x + x0, y + y0, x1 - x0, y1 - y0];
  }
  function placePixels() { for (let i = 0; i < count; i++) { const [x, y, w, t] = cellBox(cells[i]); imageXY[2 * i] = x + w / 2; imageXY[2 * i + 1] = y + t / 2; } }
  function cellAt(x, y) {
    const column = Math.floor(x / (tiles.side + tiles.gap)), row = Math.floor(y / (tiles.tall + tiles.gap)), image = row * tiles.across + column;
    const u = x - column * (tiles.side + tiles.gap), v = y - row * (tiles.tall + tiles.gap);
    if (column < 0 || row < 0 || column >= tiles.across || image >= grid.images || u < 0 || v < 0 || u >= tiles.side || v >= tiles.tall) return -1;
    return image * perImage + Math.min(grid.rows - 1, Math.floor(v / tiles.tall * grid.height / grid.stride[0])) * grid.columns + Math.min(grid.columns - 1, Math.floor(u / tiles.side * grid.width / grid.stride[1]));
  }

  // --- drawing
  const redraw = perFrame(() => { if (!disposed) paint(); });
  function paint() {
    const from = performance.now();
    aim();
    if (before) renderer.draw(view);
    paintOver();
    stats.frames++; stats.draw.push(performance.now() - from);
    if (stats.draw.length > 400) stats.draw.splice(0, 200);
  }
  function at(i) {                       // where point i is drawn now
    const t = view.turn, m = view.moved, p = [0, 1, 2].map((d) => before[3 * i + d] + m * (after[3 * i + d] - before[3 * i + d]));
    return [((t[0] * p[0] + t[3] * p[1] + t[6] * p[2]) * view.scale[0] + view.shift[0] + 1) / 2 * width, (1 - (t[1] * p[0] + t[4] * p[1] + t[7] * p[2]) * view.scale[1] - view.shift[1]) / 2 * height];
  }
  function ring(context, x, y, radius) {
    for (const [line, colour] of [[4, base.colour("back")], [2, base.colour("text")]]) { context.lineWidth = line; context.strokeStyle = colour; context.beginPath(); context.arc(x, y, radius, 0, 7); context.stroke(); }
  }
  function strokeOutline(context) {
    context.beginPath();
    for (let i = 0; i < outline.length; i += 2) i ? context.lineTo(outline[i], outline[i + 1]) : context.moveTo(outline[i], outline[i + 1]);
    context.closePath(); context.fillStyle = base.colour("accent") + "22"; context.fill();
    context.strokeStyle = base.colour("accent"); context.lineWidth = 1.5; context.setLineDash([5, 3]); context.stroke(); context.setLineDash([]);
  }
  function paintOver() {
    const context = sharpen(over, width, height);
    context.clearRect(0, 0, width, height);
    const below = sharpen(grouped, width, height);
    below.clearRect(0, 0, width, height);
    if (!before) return;
    if (view.moved === 1 && dims === 2) { if (model.get("density")) drawDensity(below); if (model.get("patches")) drawPatches(below); if (model.get("names")) drawNames(below); }
    const spot = (i, radius, colour, fill) => { const [x, y] = at(i); context.beginPath(); context.arc(x, y, radius, 0, 7); if (fill) { context.fillStyle = colour; context.fill(); } for (const [line, ink] of fill ? [[1.5, "#000"]] : [[4, base.colour("back")], [2, colour]]) { context.lineWidth = line; context.strokeStyle = ink; context.stroke(); } };
    for (const i of onPlane) spot(i, 8, PLANE, false);
    for (const i of fullSpace.list) spot(i, 5, FULL, true);
    if (asked() >= 0) { const [x, y] = at(asked()); ring(context, x, y, 10); }
    if (hovered >= 0 && steps.length > 1) trail(below);
    if (hovered >= 0) { const [x, y] = at(hovered); ring(context, x, y, 7); }
    if (outline && outlineOn === plot) strokeOutline(context);
  }
  /** For each group of the colouring: its field, the lines around its bulk, and where it is densest. */
  function gather() {
    groups = [];
    if (dims !== 2 || !after) return;
    const members = colouring?.ids ? colouring.names.map(() => []) : [[]];
    for (let i = 0; i < count; i++) if (visible[i]) members[colouring?.ids ? colouring.ids[i] : 0].push(i);
    if (members.length > 24) return;
    members.forEach((list, id) => {
      if (list.length < 8 || id === colouring?.unlabelled) return;
      const field = densityField(after, list), peak = largest(field), place = (v) => v / FIELD * 2 * EDGE - EDGE;
      const lines = (share) => contour(field, FIELD, FIELD, levelOfShare(field, share), []).map(place);
      groups.push({ id, size: list.length, lines: colouring?.ids ? [lines(.6)] : [lines(.3), lines(.6), lines(.9)], peak: [place((peak % FIELD) + .5), place(Math.floor(peak / FIELD) + .5)] });
    });
    groups.sort((a, b) => b.size - a.size);
  }
  const onScreen = (x, y) => [((x * view.scale[0] + view.shift[0] + 1) / 2) * width, ((1 - y * view.scale[1] - view.shift[1]) / 2) * height];
  const inkOf = (id) => (colouring?.palette ? `rgb(${readable(parseHex(colouring.palette[id]), root.dataset.theme === "dark")})` : base.colour("text"));
  function drawDensity(context) {
    for (const { id, lines } of groups) for (const line of lines) {
      context.beginPath();
      for (let j = 0; j < line.length; j += 4) { context.moveTo(...onScreen(line[j], line[j + 1])); context.lineTo(...onScreen(line[j + 2], line[j + 3])); }
      for (const [thick, ink] of [[4.5, base.colour("back")], [2, inkOf(id)]]) { context.lineWidth = thick; context.strokeStyle = ink; context.stroke(); }
    }
  }
  function drawNames(context) {             // the largest groups first; a name that would lie over another is left out
    if (!colouring?.ids || colouring.name === "image") return;
    const taken = [], dark = root.dataset.theme === "dark";
    context.font = "600 12px system-ui, sans-serif";
    for (const { id, peak } of groups) {
      const text = colouring.names[id], central = colouring.central && !colouring.named ? colouring.central[id] : -1, wide = context.measureText(text).width + (central >= 0 ? 30 : 0), [x, y] = onScreen(...peak), box = [x - wide / 2, y - 9, x + wide / 2, y + 9];
      if (taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3]) || box[0] < 0 || box[2] > width || box[1] < 0 || box[3] > height) continue;
      taken.push(box);
      if (central >= 0) { paintPatchAt(context, central, x - wide / 2, y - 13, 26); context.lineWidth = 1.5; context.strokeStyle = inkOf(id); context.strokeRect(x - wide / 2, y - 13, 26, 26); }
      haloText(context, text, x - wide / 2 + (central >= 0 ? 30 : 0), y, { colour: base.colour("text"), halo: dark ? "rgba(0,0,0,.8)" : "rgba(255,255,255,.9)" });
    }
  }
  const PATCH = 30;
  function drawPatches(context) {           // zoomed in until few points are left: each with room for it shows its pixels
    if (view.zoom < 1.8 || !atlas) return;
    const inView = [];
    for (let i = 0; i < count; i++) { if (!visible[i]) continue; const [x, y] = onScreen(after[3 * i], after[3 * i + 1]); if (x > 0 && y > 0 && x < width && y < height) { inView.push([i, x, y]); if (inView.length > 700) return; } }
    const taken = new Set(), across = Math.ceil(width / PATCH) + 2;
    stats.patches = 0;
    for (const [i, x, y] of inView) {
      const c = Math.floor(x / PATCH), r = Math.floor(y / PATCH), slot = r * across + c;
      if ([-1, 0, 1].some((v) => [-1, 0, 1].some((u) => taken.has(slot + v * across + u) && Math.hypot(...[0, 1].map((k) => drawnAt.get(slot + v * across + u)[k] - [x, y][k])) < PATCH))) continue;
      taken.add(slot); drawnAt.set(slot, [x, y]); stats.patches++;
      context.globalAlpha = picked && !selected[i] ? .3 : 1;
      paintPatchAt(context, i, x - PATCH / 2, y - PATCH / 2, PATCH - 2);
      context.lineWidth = 2.5; context.strokeStyle = `rgb(${colours[4 * i]},${colours[4 * i + 1]},${colours[4 * i + 2]})`; context.strokeRect(x - PATCH / 2, y - PATCH / 2, PATCH - 2, PATCH - 2);
    }
    context.globalAlpha = 1;
  }
  const drawnAt = new Map();
  /** Three cells of a picture around a point's cell. */
  function paintPatchAt(context, i, x, y, size) {
    if (!atlas) return;
    const cell = cells[i], image = Math.floor(cell / perImage), row = Math.floor(cell % perImage / grid.columns), column = cell % grid.columns, k = tileWide / grid.width;
    const span = Math.min(3 * Math.max(...grid.stride), grid.width, grid.height) * k, left = Math.max(0, Math.min(tileWide - span, (column + .5) * grid.stride[1] * k - span / 2)), up = Math.max(0, Math.min(tileHigh - span, (row + .5) * grid.stride[0] * k - span / 2));
    context.drawImage(atlas, (image % grid.across) * tileWide + left, Math.floor(image / grid.across) * tileHigh + up, span, span, x, y, size, size);
  }
  function trail(context) {              // where this pixel's point was at the other steps
    const list = layouts[layoutNow()], t = view.turn;
    context.strokeStyle = base.colour("text"); context.lineWidth = 1; context.globalAlpha = .55; context.beginPath();
    list.forEach((p, s) => {
      const [a, b, c] = [0, 1, 2].map((d) => p[3 * hovered + d]);
      const x = ((t[0] * a + t[3] * b + t[6] * c) * view.scale[0] + view.shift[0] + 1) / 2 * width, y = (1 - (t[1] * a + t[4] * b + t[7] * c) * view.scale[1] - view.shift[1]) / 2 * height;
      s ? context.lineTo(x, y) : context.moveTo(x, y); context.rect(x - 1.5, y - 1.5, 3, 3); context.moveTo(x, y);
    });
    context.stroke(); context.globalAlpha = 1;
  }

  // The pictures: the atlas once, over it one small canvas with a pixel a cell, scaled up
  const veil = h("canvas", {});              // one pixel a cell
  const redrawPictures = perFrame(() => { if (!disposed) paintPictures(); });
  const veilAt = new Int32Array(count);        // where each point's cell is in it
  let veilImage = null;
  function shapeVeil() {
    const across = tiles.across, down = Math.ceil(grid.images / across);
    veil.width = across * grid.columns; veil.height = down * grid.rows;
    veilImage = veil.getContext("2d").createImageData(veil.width, veil.height);
    for (let i = 0; i < count; i++) {
      const c = cells[i], n = Math.floor(c / perImage), r = Math.floor(c % perImage / grid.columns), k = c % grid.columns;
      veilAt[i] = (Math.floor(n / across) * grid.rows + r) * veil.width + (n % across) * grid.columns + k;
    }
  }
  function paintVeil() {
    if (!veilImage) return;
    const out = new Uint32Array(veilImage.data.buffer), words = new Uint32Array(colours.buffer), paint = model.get("paint"), elsewhere = propagatedRows.length > 0;
    out.fill(picked || paint ? 0xa0000000 : 0);
    if (paint) for (let i = 0; i < count; i++) if (visible[i] && (!picked || selected[i])) out[veilAt[i]] = (words[i] & 0xffffff) | 0xd9000000;
    if (picked && !paint) for (let i = 0; i < count; i++) if (selected[i]) out[veilAt[i]] = (words[i] & 0xffffff) | 0x8c000000;
    if (elsewhere) for (let i = 0; i < count; i++) if (found[i]) out[veilAt[i]] = 0xc0009fe6;         // ABGR of Okabe and Ito's orange
    veil.getContext("2d").putImageData(veilImage, 0, 0);
  }
  function paintPictures() {
    const context = sharpen(pictures, tiles.width, tiles.height);
    context.clearRect(0, 0, tiles.width, tiles.height);
    const kx = grid.columns * grid.stride[1] / grid.width, ky = grid.rows * grid.stride[0] / grid.height, sourceAcross = grid.across;
    for (let n = 0; n < grid.images; n++) {
      const [x, y] = tile(n);
      context.save(); context.beginPath(); context.rect(x, y, tiles.side, tiles.tall); context.clip();
      context.imageSmoothingEnabled = true;
      if (atlas) context.drawImage(atlas, (n % sourceAcross) * tileWide, Math.floor(n / sourceAcross) * tileHigh, tileWide, tileHigh, x, y, tiles.side, tiles.tall);
      context.imageSmoothingEnabled = false;
      if (picked || model.get("paint") || propagatedRows.length) context.drawImage(veil, (n % tiles.across) * grid.columns, Math.floor(n / tiles.across) * grid.rows, grid.columns, grid.rows, x, y, tiles.side * kx, tiles.tall * ky);
      context.restore();
    }
    const frameCell = (i, colour, inner = 2) => { const [x, y, w, t] = cellBox(cells[i]); for (const [line, ink] of [[inner + 2, "#000"], [inner, colour]]) { context.lineWidth = line; context.strokeStyle = ink; context.strokeRect(x - 1, y - 1, w + 2, t + 2); } };
    for (const i of onPlane) frameCell(i, PLANE, 1.5);
    for (const i of fullSpace.list) frameCell(i, FULL);
    if (asked() >= 0) frameCell(asked(), "#fff", 3);
    if (hovered >= 0) frameCell(hovered, "#fff");
    for (const { image, iou, found: cellsFound } of propagatedRows) { const [x, y] = tile(image); haloText(context, iou === undefined ? `${cellsFound} cells` : iou === null ? "not there, not found" : `IoU ${iou.toFixed(2)}`, x + 5, y + 11); }
    if (outline && outlineOn === pictures) strokeOutline(context);
  }

  // --- colours and legend
  function recolour() {
    const dark = root.dataset.theme === "dark", name = colourChoice.input.value, entries = model.get("colourings");
    const entry = entries.find((c) => c.name === name) || entries[0];
    if (!colouring || colouring.name !== entry.name) colouring = readColouring(entry, model.get("colour_data"), count);
    const palette = colouring.palette?.map((c) => readable(parseHex(c), dark));
    const parts = colouring.kind === "components";
    if (parts) {
      const chosen = model.get("components"), below = componentColours(colouring.bytes, count, stepNow(), chosen, model.get("cut"), colours, visible), ends = colouring.ranges[stepNow()][Math.abs(chosen[0]) - 1];
      const value = chosen[0] > 0 ? ends[0] + (ends[1] - ends[0]) * below / 255 : -(ends[1] + (ends[0] - ends[1]) * below / 255);
      cutValue.textContent = model.get("cut") > 0 ? `threshold ${value.toFixed(3)} on component ${Math.abs(chosen[0])}${chosen[0] < 0 ? ", turned round" : ""}` : "";
    } else visible.fill(1);
    componentRow.style.display = parts ? "" : "none";
    if (!parts) for (let i = 0; i < count; i++) {
      const source = colouring.rgb ? colouring.rgb.subarray(3 * i, 3 * i + 3) : palette[colouring.ids[i]];
      colours[4 * i] = source[0]; colours[4 * i + 1] = source[1]; colours[4 * i + 2] = source[2]; colours[4 * i + 3] = 255;
    }
    legend.setAttribute("aria-label", `Select by ${colouring.name}`);
    legend.replaceChildren(...(palette ? colouring.names.map((text, id) => colouring.counts[id] ? legendButton(text, id, palette[id]) : null).filter(Boolean)
      : [h("span", { class: "pxe-muted" }, parts ? "Red, green and blue are principal components of all pictures together: equal colours mean equal mixtures in each of them." : "Every point has the mean colour of its cell.")]));
    renderer.colours(colours);
    gather(); refresh(false);
    paintVeil(); pressLegend(); redraw(); redrawPictures();
  }
  function legendButton(text, id, colour) {
    return h("button", { type: "button", class: "pxe-key", "data-id": id, "aria-pressed": "false", title: `Select ${text}. Shift adds, Alt takes away.`,
      onclick: (event) => {
        for (let i = 0; i < count; i++) inside[i] = colouring.ids[i] === id ? 1 : 0;
        const only = event.currentTarget.getAttribute("aria-pressed") === "true" && !event.shiftKey && !event.altKey;
        mark(only ? null : inside, mode(event)); commit();
      } }, h("i", { style: `background:rgb(${colour})` }), text, h("span", {}, String(colouring.counts[id])));
  }
  function pressLegend() {               // pressed: every point of it is selected, and nothing else is
    if (!colouring?.ids) return;
    const hit = new Array(colouring.names.length).fill(0);
    if (picked) for (let i = 0; i < count; i++) hit[colouring.ids[i]] += selected[i];
    for (const key of legend.querySelectorAll("[data-id]")) { const id = Number(key.dataset.id); key.setAttribute("aria-pressed", String(picked > 0 && hit[id] === colouring.counts[id])); }
  }

  // --- selection
  const mode = (event) => (event.altKey ? "less" : event.shiftKey || event.ctrlKey || event.metaKey ? "more" : "new");
  let kept = null;                       // the selection a running lasso adds to or takes from
  function mark(hits, how = "new", from = selected, later = true) {
    if (!hits) selected.fill(0);
    else if (how === "new") selected.set(hits);
    else if (how === "more") for (let i = 0; i < count; i++) selected[i] = from[i] | hits[i];
    else for (let i = 0; i < count; i++) selected[i] = from[i] & (1 - hits[i]);
    refresh(later);
  }
  function refresh(later = true) {
    picked = 0;
    for (let i = 0; i < count; i++) { picked += selected[i]; states[i] = FADED + selected[i]; }
    if (!picked) states.fill(PLAIN);
    for (let i = 0; i < count; i++) if (!visible[i]) states[i] = HIDDEN;
    view.anyLit = picked > 0;
    renderer.states(states);
    paintVeil(); tell();
    if (later) { redraw(); redrawPictures(); }
  }
  const tell = perFrame(() => {
    if (disposed) return;
    const images = new Set();
    if (picked) for (let i = 0; i < count; i++) if (selected[i]) images.add(Math.floor(cells[i] / perImage));
    tally.replaceChildren(picked ? h("span", {}, h("b", {}, picked.toLocaleString("en")), ` of ${count.toLocaleString("en")} pixels in ${images.size} image${images.size === 1 ? "" : "s"}`, shares())
      : h("span", { class: "pxe-muted" }, `${count.toLocaleString("en")} pixels of ${grid.images} image${grid.images === 1 ? "" : "s"}; none selected`));
    root.dataset.selected = picked;
  });
  function shares() {                    // what the selection is made of
    if (!colouring?.ids) return "";
    const hit = new Array(colouring.names.length).fill(0);
    for (let i = 0; i < count; i++) hit[colouring.ids[i]] += selected[i];
    const order = hit.map((n, id) => [n, id]).filter(([n]) => n).sort((a, b) => b[0] - a[0]);
    return h("div", { class: "pxe-muted" }, order.slice(0, 4).map(([n, id]) => `${colouring.names[id]} ${Math.round(100 * n / picked)} %`).join(", ") + (order.length > 4 ? " …" : ""));
  }
  let mine = null;
  function commit() {
    if (model.get("propagate")) findElsewhere();
    const list = new Int32Array(picked);
    for (let i = 0, k = 0; i < count; i++) if (selected[i]) list[k++] = i;
    mine = new DataView(list.buffer);
    pressLegend();
    model.set("selection", mine); model.save_changes();
    say(picked ? `${picked} pixels selected` : "nothing selected");
  }
  function receive() {
    if (model.get("selection") === mine) return;
    const list = int32Of(model.get("selection"));
    selected.fill(0);
    for (const i of list) selected[i] = 1;
    refresh(); pressLegend();
    if (model.get("propagate")) findElsewhere();
  }
  function lasso() {                     // one look at the outline so far: called once a frame while it is drawn
    const from = performance.now();
    if (outlineOn === plot) { aim(); project(); }
    lassoTest(outlineOn === plot ? xy : imageXY, count, outline, inside);
    mark(inside, kept.how, kept.selected, false);
    paint(); paintPictures();
    stats.lasso.push(performance.now() - from);
  }
  const lassoSoon = perFrame(() => { if (outline && !disposed) lasso(); });

  // --- neighbours: in the full space, over all images, and on the plane
  let verdictOf = -1;
  const FULL = "#e69f00", PLANE = "#56b4e9", asked = () => model.get("asked");
  let rowsKept = {};                     // of one step, since dotAll lays them out once
  const rowsNow = () => (rowsKept.step === stepNow() ? rowsKept : (rowsKept = { step: stepNow(), data: vectors.subarray(stepNow() * count * channels, (stepNow() + 1) * count * channels), cells: count, channels }));
  function nearestInFull(point, k) {
    const map = rowsNow();
    for (let c = 0, p = point * channels; c < channels; c++, p++) query[c] = map.data[p];
    dotAll(map, query, scores);
    return topIndices(scores, k, point);
  }
  const apart = new Float32Array(count);
  function nearestOnPlane(point, k) {
    const x = after[3 * point], y = after[3 * point + 1], z = after[3 * point + 2];
    for (let i = 0; i < count; i++) { const u = Math.fround(after[3 * i] - x), v = Math.fround(after[3 * i + 1] - y), w = Math.fround(after[3 * i + 2] - z); apart[i] = -(u * u + v * v + w * w); }
    return topIndices(apart, k, point);
  }
  function ask(point, report = true) {
    const started = performance.now(), k = model.get("nearest"), none = point < 0 || !k || !channels || !after, unit = model.get("vector_scales")[stepNow()] ** 2;
    verdictOf = none ? -1 : point;
    fullSpace.list = none ? [] : nearestInFull(point, k);
    fullSpace.cosines = fullSpace.list.map((i) => scores[i] * unit);
    stats.ask.push(performance.now() - started);
    onPlane = none ? [] : nearestOnPlane(point, k);
    const item = (i, text) => ({ paint: (context, size) => paintPatchAt(context, i, 0, 0, size), text, title: `${describe(i)}${text ? `, cosine ${text}` : ""}; ask about it`, onclick: () => ask(i) });
    const same = (list) => (colouring?.ids && list.length ? `: ${list.filter((i) => colouring.ids[i] === colouring.ids[point]).length} of ${list.length} of the same ${colouring.name}` : "");
    strips[0].set(`● nearest in ${steps.length > 1 || channels ? `the full space (${channels} axes)` : ""}${same(fullSpace.list)}`, fullSpace.list.map((i, n) => item(i, fullSpace.cosines[n].toFixed(2))));
    strips[1].set(`○ nearest on the plane${same(onPlane)}`, onPlane.map((i) => item(i, "")));
    verdict.textContent = none ? "" : `Asked: ${describe(point)}`;
    if (report) { model.set("asked", none ? -1 : point); model.set("neighbours", fullSpace.list.map((i, n) => [i, fullSpace.cosines[n]])); model.set("plane_neighbours", onPlane); model.save_changes(); }
    redraw(); redrawPictures();
  }

  // --- where else is the selected region found? a few milliseconds at a time
  async function findElsewhere() {
    const mine = ++finding, votes = model.get("votes");
    found.fill(0); propagatedRows = [];
    const finish = () => { paintVeil(); redrawPictures(); tell(); model.set("propagated", propagatedRows); model.save_changes(); };
    if (!model.get("propagate") || !picked || !channels) return finish();
    const imageOf = (i) => Math.floor(cells[i] / perImage), tally = new Int32Array(grid.images);
    for (let i = 0; i < count; i++) tally[imageOf(i)] += selected[i];
    const source = largest(tally), inside = [], map = rowsNow();
    for (let i = 0; i < count; i++) if (imageOf(i) === source) inside.push(i);
    const sub = { data: new Int8Array(inside.length * channels), cells: inside.length, channels }, out = new Int32Array(inside.length), region = inside.map((i) => selected[i]);
    inside.forEach((i, n) => sub.data.set(map.data.subarray(i * channels, (i + 1) * channels), n * channels));
    let pause = performance.now() + 8;
    for (let i = 0; i < count; i++) {
      if (imageOf(i) === source) continue;
      for (let c = 0, p = i * channels; c < channels; c++, p++) query[c] = map.data[p];
      dotAll(sub, query, out);
      const near = topIndices(out, votes);
      found[i] = 2 * near.reduce((sum, n) => sum + region[n], 0) > near.length ? 1 : 0;
      if (performance.now() > pause) { verdict.textContent = `looking for the region: ${Math.round(100 * i / count)} %`; await new Promise((f) => setTimeout(f)); if (disposed || mine !== finding) return; pause = performance.now() + 8; }
    }
    verdict.textContent = "";
    const entry = model.get("colourings").find((c) => c.name === "class"), labels = entry ? readColouring(entry, model.get("colour_data"), count) : null, commonest = new Int32Array(entry ? entry.names.length : 1);
    if (entry) for (let i = 0; i < count; i++) if (selected[i] && imageOf(i) === source && labels.ids[i] !== entry.unlabelled) commonest[labels.ids[i]]++;
    const known = commonest.some((n) => n > 0), wanted = largest(commonest), rows = new Map();
    for (let i = 0; i < count; i++) {
      const image = imageOf(i);
      if (image === source) continue;
      if (!rows.has(image)) rows.set(image, known ? { image, found: 0, truth: 0, both: 0 } : { image, found: 0 });
      const row = rows.get(image);
      if (known && labels.ids[i] === entry.unlabelled) continue;
      row.found += found[i];
      if (known && labels.ids[i] === wanted) { row.truth++; row.both += found[i]; }
    }
    for (const row of rows.values()) if (known) { const union = row.found + row.truth - row.both; row.iou = union ? row.both / union : null; }
    propagatedRows = [...rows.values()].sort((a, b) => a.image - b.image);
    const sum = (key) => propagatedRows.reduce((total, row) => total + row[key], 0);
    verdict.textContent = known ? `${entry.names[wanted]} of image ${source}, found elsewhere: IoU ${(sum("both") / Math.max(1, sum("found") + sum("truth") - sum("both"))).toFixed(2)} over ${propagatedRows.length} image${propagatedRows.length === 1 ? "" : "s"}` : `region of image ${source}: ${sum("found")} cells found elsewhere`;
    say(verdict.textContent);
    finish();
  }

  // --- what is seen, as a picture; the whole screen
  function savePicture() {
    paint(); paintPictures();               // a WebGL canvas holds its picture only until the next frame
    const dense = over.width / width, gap = 12, sheet = document.createElement("canvas"), high = Math.max(height, tiles.height);
    sheet.width = Math.round((width + gap + tiles.width) * dense); sheet.height = Math.round(high * dense);
    const context = sheet.getContext("2d");
    context.fillStyle = base.colour("back"); context.fillRect(0, 0, sheet.width, sheet.height);
    context.fillStyle = base.colour("panel"); context.fillRect(0, 0, Math.round(width * dense), Math.round(height * dense));
    for (const canvas of [current, grouped, over]) context.drawImage(canvas, 0, 0, width * dense, height * dense);
    context.drawImage(pictures, (width + gap) * dense, 0, tiles.width * dense, tiles.height * dense);
    sheet.toBlob((blob) => { const address = URL.createObjectURL(blob), link = h("a", { href: address, download: "pixels.png" }); link.click(); setTimeout(() => URL.revokeObjectURL(address), 1000); });
  }
  function fullScreen() { if (document.fullscreenElement) document.exitFullscreen(); else root.requestFullscreen?.().catch((error) => say(`no full screen: ${error.message}`)); }

  // --- hover
  function hover(point, spoken = false) {
    if (point === hovered) return;
    hovered = point;
    if (point >= 0) cursor = point;
    const text = point < 0 ? "" : describe(point);
    readout.textContent = text;
    root.dataset.hovered = point;
    if (spoken) say(text);
    paintLens(); redraw(); redrawPictures();
    queue({ hovered: point });
  }
  function describe(point) {
    const cell = cells[point], image = Math.floor(cell / perImage), row = Math.floor(cell % perImage / grid.columns), column = cell % grid.columns;
    return `image ${image}, row ${row}, column ${column}` + (colouring?.ids ? ` · ${colouring.name} ${colouring.names[colouring.ids[point]]}` : "");
  }
  function paintLens() {                 // the neighbourhood of the pixel, enlarged
    const context = sharpen(lens, 72, 72);
    lens.style.visibility = hovered < 0 ? "hidden" : "visible";
    context.clearRect(0, 0, 72, 72);
    if (hovered < 0 || !atlas) return;
    const cell = cells[hovered], image = Math.floor(cell / perImage), row = Math.floor(cell % perImage / grid.columns), column = cell % grid.columns;
    const span = Math.min(grid.width, grid.height, 5 * Math.max(...grid.stride)), cx = (column + .5) * grid.stride[1], cy = (row + .5) * grid.stride[0];
    const x = Math.max(0, Math.min(grid.width - span, cx - span / 2)), y = Math.max(0, Math.min(grid.height - span, cy - span / 2)), k = 72 / span;
    context.imageSmoothingEnabled = false;
    const zoom = tileWide / grid.width;
    context.drawImage(atlas, (image % grid.across) * tileWide + x * zoom, Math.floor(image / grid.across) * tileHigh + y * zoom, span * zoom, span * zoom, 0, 0, 72, 72);
    const box = [(column * grid.stride[1] - x) * k, (row * grid.stride[0] - y) * k, grid.stride[1] * k, grid.stride[0] * k];
    for (const [line, colour] of [[4, "#000"], [2, "#fff"]]) { context.lineWidth = line; context.strokeStyle = colour; context.strokeRect(...box); }
  }
  function nearest(x, y, reach = 12) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < count; i++) { const d = (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2; if (d < least || (d === least && states[i] === LIT)) { least = d; best = i; } }
    return best;
  }

  // --- pointers: one finger or button follows the tool, two fingers zoom and move
  const fingers = new Map();
  let pinch = null;
  const local = pointOf;                 // in the element's own pixels, whatever scale or zoom the page has
  function down(event, element) {
    if (event.button > 2) return;
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, local(event, element));
    if (element === plot && fingers.size === 2) { outline = null; kept = null; pinch = pinchNow(); return; }
    if (tool !== "move" && event.button === 0 || element === pictures) {
      outline = [...local(event, element)]; outlineOn = element; kept = { how: mode(event), selected: selected.slice(), moved: false };
    }
  }
  const pinchNow = () => { const [a, b] = [...fingers.values()]; return { span: Math.hypot(a[0] - b[0], a[1] - b[1]) || 1, x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 }; };
  function move(event, element) {
    const here = local(event, element), last = fingers.get(event.pointerId);
    if (!last) { if (event.pointerType !== "touch") point(here, element); return; }
    fingers.set(event.pointerId, here);
    if (pinch && fingers.size === 2) {
      const now = pinchNow();
      zoomAt(now.span / pinch.span, pinch.x, pinch.y); view.x += now.x - pinch.x; view.y += now.y - pinch.y;
      pinch = now; redraw(); return;
    }
    if (outline && outlineOn === element) {
      const n = outline.length, limit = element === plot ? [width, height] : [tiles.width, tiles.height];
      const x = Math.max(-4, Math.min(limit[0] + 4, here[0])), y = Math.max(-4, Math.min(limit[1] + 4, here[1]));
      if (tool === "box") { const [x0, y0] = outline; if (kept.moved || Math.hypot(x - x0, y - y0) >= 3) { outline = [x0, y0, x, y0, x, y, x0, y]; kept.moved = true; lassoSoon(); } }
      else if (Math.hypot(x - outline[n - 2], y - outline[n - 1]) >= 2) { outline.push(x, y); kept.moved = true; lassoSoon(); }
    } else if (element === plot && !pinch) {
      const dx = here[0] - last[0], dy = here[1] - last[1];
      if (dims === 3 && event.buttons !== 2 && !event.shiftKey) { view.yaw += dx * .008; view.pitch = Math.max(-1.57, Math.min(1.57, view.pitch + dy * .008)); }
      else { view.x += dx; view.y += dy; }
      redraw();
    }
  }
  function up(event, element) {
    if (!fingers.delete(event.pointerId)) return;
    if (fingers.size < 2) pinch = null;
    if (outline && outlineOn === element && event.type === "pointerup") {
      if (kept.moved && outline.length >= 6) { lasso(); commit(); }
      else tap(local(event, element), element, event);
    } else if (outline && kept) { selected.set(kept.selected); refresh(); }
    outline = null; kept = null; redraw(); redrawPictures();
  }
  function tap(here, element, event) {   // a click takes one point, or with nothing under it none
    const hit = under(here, element, event.pointerType === "touch" ? 24 : 12);
    hover(hit);
    if (hit < 0) { if (mode(event) === "new") { mark(null); commit(); ask(-1); } return; }
    inside.fill(0); inside[hit] = 1;
    mark(inside, mode(event), kept.selected); commit(); ask(hit);
  }
  function under(here, element, reach = 12) {
    if (element === plot) { aim(); project(); return nearest(here[0], here[1], reach); }
    const cell = cellAt(here[0], here[1]);
    return cell < 0 ? -1 : pointOfCell[cell];
  }
  const point = perFrame((here, element) => { if (!disposed && before) hover(under(here, element)); });
  for (const element of [plot, pictures]) {
    element.addEventListener("pointerdown", (event) => down(event, element), { signal });
    element.addEventListener("pointermove", (event) => move(event, element), { signal });
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, (event) => up(event, element), { signal });
    element.addEventListener("pointerleave", () => { if (!fingers.size && document.activeElement !== element) hover(-1); }, { signal });
    element.addEventListener("keydown", (event) => keys(event, element), { signal });
  }
  plot.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
  plot.addEventListener("wheel", (event) => {
    if (document.activeElement !== plot && !event.ctrlKey) return;      // an unfocused plot lets the page scroll
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? .05 : .0015)), ...local(event, plot)); redraw();
  }, { signal, passive: false });
  plot.addEventListener("dblclick", home, { signal });
  function zoomAt(factor, x, y) {
    const zoom = Math.max(.25, Math.min(40, view.zoom * factor)), k = zoom / view.zoom, cx = x - width / 2, cy = y - height / 2;
    view.x = cx - (cx - view.x) * k; view.y = cy - (cy - view.y) * k; view.zoom = zoom;
  }
  function home() { Object.assign(view, { zoom: 1, x: 0, y: 0, yaw: .6, pitch: .35 }); redraw(); }

  // --- keys
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function keys(event, element) {
    const key = event.key, arrow = arrows[key];
    if (arrow && event.shiftKey && element === plot) { if (dims === 3) { view.yaw += arrow[0] * .12; view.pitch += arrow[1] * .12; } else { view.x -= arrow[0] * 40; view.y -= arrow[1] * 40; } redraw(); }
    else if (arrow) hover(hovered < 0 ? cursor : element === plot ? neighbour(...arrow) : nextCell(...arrow), true);
    else if (key === "Enter" || key === " ") { if (hovered >= 0) { inside.fill(0); inside[hovered] = 1; mark(inside, selected[hovered] ? "less" : "more", selected); commit(); ask(hovered); } }
    else if (key === "Escape") { outline = null; mark(null); commit(); ask(-1); setTool(tool); }
    else if ((key === "+" || key === "=" || key === "-") && element === plot) { zoomAt(key === "-" ? 1 / 1.25 : 1.25, width / 2, height / 2); redraw(); }
    else if (key === "0" && element === plot) home();
    else if (["l", "m", "r"].includes(key) && !event.ctrlKey && !event.metaKey) setTool({ l: "lasso", m: "move", r: "box" }[key]);
    else return;
    event.preventDefault();
    event.stopPropagation();             // JupyterLab has its own arrows
  }
  function neighbour(dx, dy) {           // the closest point within 45° of the arrow
    aim(); project();
    let best = hovered, least = Infinity;
    for (let i = 0; i < count; i++) {
      const u = xy[2 * i] - xy[2 * hovered], v = xy[2 * i + 1] - xy[2 * hovered + 1], along = u * dx + v * dy, across = Math.abs(u * dy + v * dx);
      if (along > .5 && across <= along && along + across < least) { least = along + across; best = i; }
    }
    return best;
  }
  function nextCell(dx, dy) {            // the next cell that has a point, in its image
    const cell = cells[hovered], image = Math.floor(cell / perImage);
    let row = Math.floor(cell % perImage / grid.columns), column = cell % grid.columns;
    for (;;) {
      row += dy; column += dx;
      if (row < 0 || column < 0 || row >= grid.rows || column >= grid.columns) return hovered;
      const next = pointOfCell[image * perImage + row * grid.columns + column];
      if (next >= 0) return next;
    }
  }
  function setTool(name, event = null) {   // a finger scrolls the page past the plot until it presses a tool; pressing that tool again gives the page back
    const touched = event?.pointerType === "touch";
    root.dataset.finger = touched && !(root.dataset.finger === "yes" && tool === name) ? "yes" : "no";
    tool = name; root.dataset.tool = name;
    toolButtons.forEach((b, i) => b.setAttribute("aria-pressed", String(Object.keys(TOOLS)[i] === name)));
    if (touched) say(root.dataset.finger === "yes" ? `${name}: the finger draws; press again to scroll` : "the finger scrolls");
  }

  // --- layouts and steps
  function readLayouts() {
    const names = [];
    for (const name of ["pca", "umap"]) { const list = spreadPositions(model.get(name), count, dims, steps.length); if (list) { layouts[name] = list; names.push(name); } }
    layoutChoice.options(names.map((n) => [n, n.toUpperCase()]));
    layoutChoice.set(names.includes(model.get("layout_shown")) ? model.get("layout_shown") : names[0]);
    layoutChoice.element.hidden = names.length < 2;
    show();
  }
  const layoutNow = () => layoutChoice.input.value, stepNow = () => (stepSlider ? Number(stepSlider.input.value) : 0);
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let animation = 0;
  function show() {
    const target = layouts[layoutNow()]?.[stepNow()];
    if (!target || target === after) return;
    if (before && view.moved < 1) { const now = new Float32Array(3 * count); for (let i = 0; i < now.length; i++) now[i] = before[i] + view.moved * (after[i] - before[i]); before = now; }
    else before = after || target;
    after = target;
    view.moved = before === after || still.matches ? 1 : 0;
    root.dataset.layout = layoutNow(); root.dataset.step = steps[stepNow()] ?? "";
    if (colouring?.kind === "components") recolour(); else gather();
    feed();
    if (asked() >= 0) ask(asked());
    if (model.get("propagate")) findElsewhere();
    cancelAnimationFrame(animation);
    if (view.moved === 1) return;
    const from = performance.now();
    const tickOn = (time) => {
      if (disposed) return;
      const share = Math.max(0, Math.min(1, (time - from) / 650));
      view.moved = share < .5 ? 2 * share * share : 1 - 2 * (1 - share) ** 2;
      paint();
      if (share < 1) animation = requestAnimationFrame(tickOn);
    };
    animation = requestAnimationFrame(tickOn);
  }
  function play() {
    if (stepNow() === steps.length - 1) { stepSlider.set(0); show(); }
    player.textContent = "Pause";
    playing = setInterval(() => {
      const next = stepNow() + 1;
      if (next >= steps.length) return pause();
      stepSlider.set(next); queue({ step: next }); show();
    }, 900);
  }
  function pause() { clearInterval(playing); playing = null; player.textContent = "Play"; }

  // --- sizes
  function resize() {
    const dense = Math.min(window.devicePixelRatio || 1, 2);
    current.width = Math.round(width * dense); current.height = Math.round(height * dense);
    current.style.width = `${width}px`; current.style.height = `${height}px`;
    redraw();
  }
  base.onResize(plot, (w, t) => { if (w && t) { width = w; height = t; resize(); } });
  base.onResize(right, (w) => {
    if (!w) return;
    const ratio = grid.height / grid.width, room = Math.max(200, plot.clientHeight);
    let best = { side: 0 };
    for (let across = 1; across <= grid.images; across++) {
      const down = Math.ceil(grid.images / across), side = Math.min((w - (across - 1) * 4) / across, ((room - (down - 1) * 4) / down) / ratio, 3 * grid.width);
      if (side > best.side + .5) best = { across, side };
    }
    const side = Math.max(8, Math.floor(best.side)), tall = Math.round(side * ratio), down = Math.ceil(grid.images / best.across);
    tiles = { across: best.across, side, tall, gap: 4, width: best.across * (side + 4) - 4, height: down * (tall + 4) - 4 };
    placePixels(); shapeVeil(); paintVeil(); redrawPictures();
  });

  // --- Python's side
  listen("selection", receive);
  listen("colour_by", () => { colourChoice.set(model.get("colour_by")); recolour(); });
  listen("pca umap", readLayouts);
  listen("layout_shown", () => { layoutChoice.set(model.get("layout_shown")); show(); });
  listen("step", () => { if (stepSlider && model.get("step") !== stepNow()) { stepSlider.set(model.get("step")); show(); } });
  const news = () => { progress.textContent = model.get("status"); root.dataset.status = model.get("status"); };
  listen("status", news); news();
  listen("components cut", () => { model.get("components").forEach((c, k) => component[k].set(c)); cutSlider.set(model.get("cut")); if (colouring?.kind === "components") recolour(); });
  listen("names density patches paint propagate", () => { for (const [key, one] of Object.entries(switches)) one.set(model.get(key)); paintVeil(); redraw(); redrawPictures(); });
  listen("propagate votes", () => findElsewhere());
  listen("nearest", () => ask(asked()));
  listen("asked", () => { if (verdictOf !== asked()) ask(asked()); });
  const follow = followLinks(base, ["step", "colour_by", "layout_shown", "components", "cut", "paint", "density", "names", "patches", "asked", "propagate", "nearest"]);
  const showWords = () => { words.replaceChildren(...linkedText(model.get("text"), follow)); words.style.display = model.get("text") ? "" : "none"; };
  listen("text", showWords); showWords();
  setTool("lasso"); paintLens();
  loadPicture(model.get("atlas")).then((image) => { atlas = image; redrawPictures(); root.dataset.ready = "yes"; });
  readLayouts();
  base.onTheme(() => recolour());
  receive(); tell(); ask(asked(), false);
  root.pxw = { stats, view, get renderer() { return renderer; }, get selected() { return selected; }, at, cellBox, cells, colours, lasso: (o, on = plot) => { outline = o; outlineOn = on; kept = { how: "new", selected }; lasso(); outline = null; },
    ask, nearestInFull, nearestOnPlane, findElsewhere, found, visible, get groups() { return groups; }, get propagatedRows() { return propagatedRows; }, get fullSpace() { return fullSpace; }, get onPlane() { return onPlane; }, savePicture,
    tileOf: tile, paint, redraw, get size() { return [width, height]; } };
  return () => { disposed = true; pause(); cancelAnimationFrame(animation); renderer.end(); base.cleanup(); };
}

export default { render };
