// Our Plotly.js: a small one that draws what nearly every figure has, and the whole one, fetched for a figure that needs it.
// Gradio's bundle may put another version at window.Plotly later, so the references are kept.

import { SMALL_DRAWS } from "./contract.js";
import { el } from "./dom.js";

/** @import { Figure } from "./contract.js" */
/** @import { Plotly, Point, Sides } from "./page_globals.js" */

/** @type {Set<string>} */
const SMALL = new Set(SMALL_DRAWS);

/**
 * The Plotly at `url`, asked for once a document.
 * @param {"loopvizPlotly" | "loopvizWholePlotly"} kept
 * @param {string} url
 * @returns {Promise<Plotly>}
 */
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

/** The one that pages start with; the document's head may have asked for it already. @param {HTMLElement} root */
export function loadPlotly(root) {
  return load("loopvizPlotly", new URL(root.dataset.plotly, document.baseURI).href);
}

/** @type {Plotly | null} */
let whole = null;

/**
 * The Plotly that draws `figure`: `small`, or the whole one. Null while that is on its way: then `there` or `lost` is called.
 * @param {Figure} figure
 * @param {Plotly} small
 * @param {HTMLElement} root
 * @param {() => void} there
 * @param {() => void} lost
 */
export function plotlyFor(figure, small, root, there, lost) {
  if (figure.data.every(({ type = "scatter" }) => SMALL.has(type))) return small;
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

// --- what it is given ------------------------------------------------------------------------------

const UNDER_HEAD = 24; // px above a plot, for the captions and column heads that stay when its title goes
// A finger scrolls the page, where a mouse zooms the plot.
export const TOUCH = window.matchMedia("(hover: none)").matches;

const PLOT_CONFIG = {
  displaylogo: false,
  displayModeBar: TOUCH ? false : "hover",
  responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud", "sendDataToCloud"],
  // Plotly 4 offers to upload the chart to its makers' cloud: not from this page
  showSendToCloud: false,
  plotlyServerURL: "",
};

/**
 * What a figure says of itself in its title, as nodes; Plotly would cut it where the plot is narrow.
 * @param {Figure["layout"]} layout
 */
export function headline(layout) {
  const markup = new DOMParser().parseFromString((layout.title?.text ?? "").trim().replace(/<br>/g, "\n"), "text/html");
  return [...markup.body.childNodes].map((node) => (node.nodeName === "SUB" ? el("sub", "", node.textContent) : node.textContent));
}

/**
 * The layout without its title, and without the room that was for it.
 * @param {Figure["layout"]} layout
 * @returns {Figure["layout"]}
 */
export function untitled(layout) {
  if (layout.title?.text === undefined) return layout;
  const { title, margin, height, ...rest } = layout;
  const room = Math.max(0, margin.t - UNDER_HEAD);
  // what stands at the figure's foot is placed by shares of its height
  return { ...rest, margin: { ...margin, t: margin.t - room }, height: height - room };
}

/** @type {Map<string, object>} */
const configs = new Map(); // by language; one object each, for Plotly compares

/**
 * Plotly's options, with our words on its buttons.
 * @param {string} lang
 * @param {Record<string, string>} dictionary of the language, by Plotly's own English names
 */
export function plotConfig(lang, dictionary) {
  const locale = lang === "zh" ? "zh-CN" : lang;
  if (!configs.has(lang)) configs.set(lang, { ...PLOT_CONFIG, locale, locales: { [locale]: { dictionary, format: {} } } });
  return configs.get(lang);
}

/**
 * A copy of a trace's containers, sharing its arrays: Plotly writes into, and prunes, the containers it is given.
 * @param {any} value
 * @returns {any}
 */
export function containers(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, containers(inner)]));
}

/**
 * What a click on a figure selects, as the figure itself says (see loopviz/panels/__init__.py); null where it selects nothing.
 * @param {Figure | null} figure
 * @param {Point} point
 */
export function selected(figure, point) {
  const select = figure?.data[point?.curveNumber]?.meta?.select ?? figure?.layout.meta?.select;
  if (!select) return null;
  /** @type {{ token?: number, step?: number }} */
  const change = {};
  for (const key of /** @type {const} */ (["token", "step"])) {
    const at = parseInt(point[select[key]], 10);
    if (select[key] && Number.isFinite(at) && (key === "token" || at > 0)) change[key] = at; // s₀ stands before the first step
  }
  return change;
}

/**
 * Margins of at least so many pixels. Where what stands around the axes changes them, Plotly draws all of it once more: labels that
 * come and go while a run is made should not.
 * @param {Partial<Sides> | undefined} margin
 * @param {Sides} sides
 */
export function widest(margin, { l, r, t, b }) {
  const wide = { l, r, t, b };
  for (const side of /** @type {const} */ (["l", "r", "t", "b"])) wide[side] = Math.max(wide[side], margin?.[side] ?? 0);
  return { ...margin, ...wide };
}
