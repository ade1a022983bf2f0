// Our Plotly.js: a small one that draws what nearly every figure has, and the whole one, fetched for a figure that needs it.
// Gradio's bundle may put another version at window.Plotly later, so the references are kept.

const SMALL_DRAWS = new Set(["scatter", "bar", "heatmap"]); // as loopviz/plotlyjs.py

/** The Plotly at `url`, asked for once a document. */
function load(kept, url) {
  window[kept] ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly"));
    document.head.append(script);
  });
  return window[kept];
}

/** The one that pages start with; the document's head may have asked for it already. */
export function loadPlotly(root) {
  return load("loopvizPlotly", new URL(root.dataset.plotly, document.baseURI).href);
}

let whole = null;

/** The Plotly that draws `figure`: `small`, or the whole one. Null while that is on its way: then `there` or `lost` is called. */
export function plotlyFor(figure, small, root, there, lost) {
  if (figure.data.every(({ type = "scatter" }) => SMALL_DRAWS.has(type))) return small;
  if (whole) return whole;
  load("loopvizWholePlotly", new URL(root.dataset.whole, document.baseURI).href).then((Plotly) => {
    whole = Plotly;
    there();
  }, () => {
    window.loopvizWholePlotly = null; // it may come another time
    lost();
  });
  return null;
}
