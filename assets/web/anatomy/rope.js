// RoPE as a turn: a dial for each pair of a query, and the score with a key by the distance between the two.

import { el, shown } from "../core/dom.js";
import { drawn as svg } from "../core/svg.js";
import { dot } from "./diagrams.js";
import { unpack, written } from "./numbers.js";

/** @import { LayerData } from "./layer_data.js" */

const DIALS = 16; // of a head's pairs, spread from the quickest to the slowest
const LEAST = 32; // distances that are drawn at least
const [WIDE, TALL, PAD] = [420, 120, 12];

export class Rope {
  /** @type {number} the query head */
  head = 0;
  /** @type {number} the place, among the columns shown, of the key; -1: the first that is seen */
  column = -1;
  /** @type {number | null} where the query stands for the moment; null: where it did in the run */
  at = null;
  /** @type {string} of which token, layer and loop step the position was moved */
  moved = "";

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
  }

  /** @param {LayerData} layer @returns {Node[]} */
  of(layer) {
    const { page } = this;
    const key = `${page.token} ${layer.layer}`;
    if (this.moved !== key) [this.moved, this.at, this.column] = [key, null, -1];
    if (this.head >= layer.shapes.query.N) this.head = 0;
    const { positions, visible } = layer.columns;
    if (!visible[this.column]) this.column = visible.indexOf(true);
    const own = layer.told.position;
    const most = Math.max(LEAST, own + 8);
    const slider = Object.assign(el("input", "lv-dial-slider"), { type: "range", min: String(positions[this.column]), max: String(most), step: "1" });
    slider.value = String(this.at ?? own);
    const value = el("span", "lv-dial-value");
    const dials = el("div", "lv-rope-dials");
    const curve = el("div", "lv-rope-curve");
    const said = el("p", "lv-heat-key");
    said.setAttribute("role", "status");
    /** @type {Awaited<ReturnType<Rope["ask"]>>} */
    let scores = null;
    const draw = () => {
      const at = this.at ?? own;
      value.textContent = page.text("anatomy.rope.position.now", { position: at, own });
      dials.replaceChildren(this.dials(layer, at));
      if (scores) this.curve(curve, said, scores, at - positions[this.column], own - positions[this.column]);
    };
    slider.addEventListener("input", () => {
      this.at = Number(slider.value);
      draw();
    });
    const label = el("label", "lv-dial", el("span", "lv-dial-head", page.text("anatomy.rope.position"), value), slider);
    draw();
    this.ask(layer, most).then((found) => {
      scores = found;
      if (found) {
        const [nearest, furthest] = [positions[this.column] + found.from, positions[this.column] + found.from + found.values.length - 1];
        [slider.min, slider.max] = [String(nearest), String(furthest)];
        if (this.at !== null) this.at = Math.min(furthest, Math.max(nearest, this.at));
        slider.value = String(this.at ?? own);
      }
      draw();
    });
    const words = { text: shown(page.run.tokens[positions[this.column]]?.[0] ?? ""), position: positions[this.column] };
    const heads = page.card.drawn.attention.choice(String(this.head), layer.shapes.query.N, false, (chosen) => {
      this.head = Number(chosen);
      page.redraw();
    });
    const turning = el("figure", "lv-heat-figure", el("figcaption", "", el("b", "", page.text("anatomy.rope.dials")), heads), dials, label);
    const dots = el("p", "lv-heat-key", dot(page.text("anatomy.rope.dot.own"), "lv-dot-own"), dot(page.text("anatomy.rope.dot.now"), "lv-dot-now"));
    const scoring = el("figure", "lv-heat-figure lv-diagram", el("figcaption", "", el("b", "", page.text("anatomy.rope.score", words)), this.keys(layer)), curve, said, dots);
    return [turning, scoring];
  }

  /** A choice between the words whose key is scored. @param {LayerData} layer */
  keys(layer) {
    const { page } = this;
    const { positions, visible } = layer.columns;
    const options = positions.flatMap((position, place) => {
      if (!visible[place]) return [];
      const option = el("option", "", page.card.drawn.attention.column(layer, place));
      option.value = String(place);
      return [option];
    });
    const select = el("select", "lv-choice", ...options);
    select.value = String(this.column);
    select.addEventListener("change", () => {
      this.column = Number(select.value);
      this.at = null;
      page.redraw();
    });
    return el("label", "lv-head-choice", `${page.text("anatomy.rope.key")} `, select);
  }

  /** Scores by distance, from a first one on, from the server. @param {LayerData} layer @param {number} most */
  async ask(layer, most) {
    const { frame, look } = this.page;
    const column = layer.columns.places[this.column];
    const asked = { look: look.look, layer: layer.layer, step: layer.step, lang: frame.lang, head: this.head, column, most };
    const answer = await frame.ask("distance", asked);
    if (answer?.kind !== "distance") return null;
    return { values: [...unpack(answer.scores).data], from: answer.from };
  }

  /** @param {LayerData} layer @param {number} position */
  dials(layer, position) {
    const { frequencies } = layer.told;
    const query = layer.get(layer.has("normed_query") ? "normed_query" : "query").at(this.head);
    const half = frequencies.length;
    const many = Math.min(DIALS, half);
    const pairs = Array.from({ length: many }, (_, i) => Math.round((i * (half - 1)) / Math.max(1, many - 1)));
    const sizes = pairs.map((pair) => Math.hypot(query.data[pair], query.data[pair + half]));
    const most = Math.max(...sizes, 1e-9);
    const across = 8;
    const faces = pairs.map((pair, i) => {
      const [cx, cy] = [26 + (i % across) * 52, 26 + Math.floor(i / across) * 62];
      const [a, b] = [query.data[pair], query.data[pair + half]];
      const turn = position * frequencies[pair];
      const [c, d] = [a * Math.cos(turn) - b * Math.sin(turn), b * Math.cos(turn) + a * Math.sin(turn)];
      const hand = (/** @type {number} */ x, /** @type {number} */ y, /** @type {string} */ cls) => svg("line", { x1: cx, y1: cy, x2: (cx + (20 * x) / most).toFixed(2), y2: (cy - (20 * y) / most).toFixed(2), class: cls });
      const word = svg("text", { x: cx, y: cy + 34, class: "lv-dial-word" }, String(pair));
      return svg("g", {}, svg("circle", { cx, cy, r: 22, class: "lv-dial-face" }), hand(a, b, "lv-hand-before"), hand(c, d, "lv-hand"), word);
    });
    const rows = Math.ceil(many / across);
    return svg("svg", { viewBox: `0 0 ${52 * across} ${62 * rows + 2}`, class: "lv-triangle", role: "img", "aria-label": this.page.text("anatomy.rope.dials") }, ...faces);
  }

  /**
   * @param {HTMLElement} place
   * @param {HTMLElement} said
   * @param {{ values: number[], from: number }} scores
   * @param {number} now a distance
   * @param {number} own that of the run
   */
  curve(place, said, { values, from }, now, own) {
    const [least, most] = [Math.min(...values, 0), Math.max(...values, 0)];
    const x = (/** @type {number} */ i) => PAD + (i * (WIDE - 2 * PAD)) / Math.max(1, values.length - 1);
    const y = (/** @type {number} */ value) => TALL - PAD - ((value - least) * (TALL - 2 * PAD)) / Math.max(most - least, 1e-9);
    const line = svg("path", { d: `M${values.map((value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}`, class: "lv-curve" });
    /** Where a distance is on the curve; nowhere if nothing is known of it. @param {number} distance @param {string} cls */
    const at = (distance, cls) => {
      const i = distance - from;
      return i in values ? [svg("circle", { cx: x(i), cy: y(values[i]), r: 4.5, class: cls })] : [];
    };
    const zero = svg("path", { d: `M${PAD} ${y(0).toFixed(1)}H${WIDE - PAD}`, class: "lv-axis-line" });
    const words = this.page.text("anatomy.rope.distance", { distance: now, score: written(values[now - from], 4) });
    place.replaceChildren(svg("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, class: "lv-triangle", role: "img", "aria-label": words }, zero, line, ...at(own, "lv-dot-own"), ...at(now, "lv-dot-now")));
    said.textContent = words;
  }
}
