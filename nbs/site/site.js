// Tells the widgets' frames whether the page is light or dark, and gives each the height it asks for (see TALK in live_widgets.py).
addEventListener("DOMContentLoaded", () => {
  const frames = [...document.querySelectorAll("iframe.live")];
  if (!frames.length) return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => ({ light: "light", dark: "dark" })[document.body.dataset.theme] ?? (dark.matches ? "dark" : "light");
  const tell = () => frames.forEach(frame => frame.contentWindow?.postMessage({ theme: theme() }, "*"));
  addEventListener("message", event => {
    const frame = frames.find(one => one.contentWindow === event.source);
    if (!frame || !(event.data?.height > 0)) return;
    frame.style.height = `${Math.ceil(event.data.height) + 2}px`;
    frame.contentWindow.postMessage({ theme: theme() }, "*");
  });
  new MutationObserver(tell).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
  dark.addEventListener("change", tell);
});

// A link of the text, [the wheel](#pixcl:bike?pixel=300,262), moves the widget of that name, which stands in a frame: it hears the same words (followLinks in static/common.js). A frame that is not loaded yet hears them when it is.
addEventListener("DOMContentLoaded", () => {
  const frames = [...document.querySelectorAll("iframe.live")], awake = new Set(), waiting = new Map();
  addEventListener("message", event => {
    const frame = frames.find(one => one.contentWindow === event.source);
    if (!frame || !(event.data?.height > 0)) return;
    awake.add(frame);
    if (waiting.has(frame)) { frame.contentWindow.postMessage({ pixcl: waiting.get(frame) }, "*"); waiting.delete(frame); }
  });
  addEventListener("click", event => {
    const words = event.target.closest?.('a[href*="#pixcl:"]')?.getAttribute("href").split("#pixcl:")[1];
    if (words === undefined) return;
    event.preventDefault();
    const name = decodeURIComponent(words.split("?")[0]);
    for (const frame of frames.filter(one => one.dataset.name === name)) {
      if (awake.has(frame)) frame.contentWindow.postMessage({ pixcl: words }, "*"); else waiting.set(frame, words);
      const { top, bottom } = frame.getBoundingClientRect();
      if (bottom < 80 || top > innerHeight - 80) frame.scrollIntoView({ block: "nearest" });
    }
  });
});

// A full stop stays on the line of its formula.
addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll("span.math")) {
    const after = formula.nextSibling, mark = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:!?)\]…]+/)?.[0];
    if (!mark) continue;
    after.data = after.data.slice(mark.length);
    formula.append(mark);
  }
});
