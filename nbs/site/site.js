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

// A full stop stays on the line of its formula.
addEventListener("DOMContentLoaded", () => {
  for (const formula of document.querySelectorAll("span.math")) {
    const after = formula.nextSibling, mark = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:!?)\]…]+/)?.[0];
    if (!mark) continue;
    after.data = after.data.slice(mark.length);
    formula.append(mark);
  }
});
