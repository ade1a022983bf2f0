// Small drawings of numbers: what is added to a state, as a triangle of true lengths and angle; swish at several betas.

import { el } from "../core/dom.js";
import { drawn as svg } from "../core/svg.js";
import { written } from "./numbers.js";

/** @import { Tensor } from "./numbers.js" */
/** @typedef {import("./main.js").Page} Page */

const DASHES = ["", "6 3", "2 3"];

/** @param {string} words @param {...Node} what */
const captioned = (words, ...what) => el("figure", "lv-heat-figure lv-diagram", el("figcaption", "", el("b", "", words)), ...what);

/** @param {SVGElement} mark @param {string} words */
const sampled = (mark, words) => el("span", "lv-key-part", svg("svg", { viewBox: "0 0 30 10", class: "lv-curve-key", "aria-hidden": "true" }, mark), words);

/** A line as it is drawn, with its words. @param {string} words @param {string} cls */
const line = (words, cls, dash = "") => sampled(svg("path", { d: "M1 5h28", class: cls, "stroke-dasharray": dash }), words);

/** A dot as it is drawn, with its words. @param {string} words @param {string} cls */
export const dot = (words, cls) => sampled(svg("circle", { cx: 15, cy: 5, r: 4, class: cls }), words);

/**
 * A state, what is added to it, and their sum.
 * @param {Page} page
 * @param {Record<string, number | null>} facts
 */
export function triangle(page, facts) {
  const { state_norm: before, added_norm: added, after_norm: after, degrees } = facts;
  if (![before, added, after, degrees].every((value) => Number.isFinite(value))) return el("span");
  const turn = (degrees * Math.PI) / 180;
  const [w, h, pad] = [420, 130, 14];
  const tip = [after * Math.cos(turn), after * Math.sin(turn)];
  const [left, right] = [Math.min(0, tip[0]), Math.max(before, tip[0])];
  const scale = Math.min((w - 2 * pad) / Math.max(right - left, 1e-9), (h - 2 * pad - 14) / Math.max(tip[1], 1e-9));
  /** @type {(x: number, y: number) => [number, number]} */
  const put = (x, y) => [pad + (x - left) * scale, h - pad - y * scale];
  const [a, b, c] = [put(0, 0), put(before, 0), put(tip[0], tip[1])];
  /** @type {(from: number[], to: number[], cls: string) => SVGElement} */
  const side = (from, to, cls) => svg("path", { d: `M${from.map((n) => n.toFixed(1))}L${to.map((n) => n.toFixed(1))}`, class: cls, "marker-end": "url(#lv-way-tip)" });
  const picture = svg("svg", { viewBox: `0 0 ${w} ${h}`, class: "lv-triangle", role: "img", "aria-label": page.text("anatomy.triangle") }, side(a, b, "lv-line-before"), side(b, c, "lv-line-added"), side(a, c, "lv-line-after"));
  const sizes = /** @type {const} */ ({ before, added, after });
  const key = Object.entries(sizes).map(([name, size]) => line(page.text(`anatomy.triangle.${name}`, { size: written(size) }), `lv-line-${name}`));
  const said = el("p", "lv-heat-key", ...key, el("span", "lv-key-part", page.text("anatomy.triangle.turn", { degrees: written(degrees) })));
  return captioned(page.text("anatomy.triangle"), picture, said);
}

/**
 * u·σ(βu) for each beta, and where this word's gates stand.
 * @param {Page} page
 * @param {Tensor} gate
 * @param {number[]} betas
 */
export function curves(page, gate, betas) {
  const [w, h, pad] = [420, 150, 14];
  const most = Math.max(1, Math.min(8, gate.largest));
  const top = most;
  const at = Array.from({ length: 81 }, (_, k) => -most + (2 * most * k) / 80);
  const swish = (/** @type {number} */ u, /** @type {number} */ beta) => u / (1 + Math.exp(-beta * u));
  const lowest = Math.min(...betas.flatMap((beta) => at.map((u) => swish(u, beta))));
  const low = lowest - 0.12 * (top - lowest); // room for the ticks
  /** @type {(x: number, y: number) => string} */
  const put = (x, y) => `${(pad + ((x + most) / (2 * most)) * (w - 2 * pad)).toFixed(1)} ${(h - pad - ((y - low) / (top - low)) * (h - 2 * pad)).toFixed(1)}`;
  const lines = betas.map((beta, i) => {
    const points = at.map((u) => put(u, swish(u, beta)));
    return svg("path", { d: `M${points.join("L")}`, class: `lv-curve lv-curve-${i}`, "stroke-dasharray": DASHES[i] ?? "" });
  });
  const gates = [...gate.data].filter(Number.isFinite);
  const further = gates.filter((value) => Math.abs(value) > most).length;
  // every gate has its tick, those that lie further out at the edge; many share a place
  const ticks = new Set(gates.map((value) => `M${put(Math.min(most, Math.max(-most, value)), low)}v-5`));
  const axes = svg("path", { d: `M${put(-most, 0)}L${put(most, 0)}M${put(0, low)}L${put(0, top)}`, class: "lv-axis-line" });
  const picture = svg("svg", { viewBox: `0 0 ${w} ${h}`, class: "lv-triangle", role: "img", "aria-label": page.text("anatomy.curves", { betas: betas.join(", ") }) }, axes, ...lines, svg("path", { d: [...ticks].join(""), class: "lv-ticks" }));
  const named = el("p", "lv-heat-key", ...betas.map((beta, i) => line(`β ${beta}`, `lv-curve lv-curve-${i}`, DASHES[i])));
  const edge = further ? [el("p", "lv-heat-key", page.text("anatomy.curves.further", { further, total: gates.length, most: written(most) }))] : [];
  return captioned(page.text("anatomy.curves", { betas: betas.join(", ") }), picture, named, ...edge);
}
