// Attention: which query heads read which key/value head, what is kept of all words, and which words a head looks at.

import { el, scrollable, shown } from "../core/dom.js";
import { drawn as svg } from "../core/svg.js";
import { dot } from "./diagrams.js";
import { percent, written } from "./numbers.js";

/** @import { LayerData } from "./layer_data.js" */
/** @import { Heats } from "./heat.js" */

const MEAN = "mean";
const BY_HEAD = ["query", "key", "value", "turned", "mixed", "normed_query", "normed_key", "turned_key", "kept_key", "kept_value"];

export class Attention {
  /** @type {string} the head whose words are shown; MEAN: all of them */
  head = MEAN;
  /** @type {number} the key/value head whose cache is shown */
  kv = 0;

  /**
   * @param {import("./main.js").Page} page
   * @param {Heats} heats
   */
  constructor(page, heats) {
    this.page = page;
    this.heats = heats;
  }

  /** What rows and columns of a tensor's picture are called. @param {string} name @param {LayerData} layer */
  axes(name, layer) {
    const { page } = this;
    const rows = (/** @type {number} */ row) => page.text("anatomy.row.head", { row });
    if (name === "scores" || name === "weights") return { rows, columns: (/** @type {number} */ column) => this.column(layer, column) };
    return BY_HEAD.includes(name) ? { rows } : {};
  }

  /** A column by its word, and its slot where there are several. @param {LayerData} layer @param {number} place */
  column({ columns }, place) {
    const position = columns.positions[place];
    const word = `“${shown(this.page.run.tokens[position]?.[0] ?? "")}” (${position})`;
    const slot = Math.max(...columns.slots) > 0 ? ` ${this.page.text("anatomy.slot", { slot: columns.slots[place] + 1 })}` : "";
    return word + slot + (columns.visible[place] ? "" : ` ${this.page.text("anatomy.hidden")}`);
  }

  /** Lines from query heads to the key/value heads that they read. @param {LayerData} layer */
  heads(layer) {
    const { page } = this;
    const [n, k] = [layer.shapes.query.N, layer.shapes.key.K];
    const [w, h] = [420, 74];
    /** @type {(i: number, of: number) => number} */
    const x = (i, of) => 12 + ((i + 0.5) * (w - 24)) / of;
    const radius = Math.max(1.5, Math.min(6, (w - 24) / n / 2.6));
    const lines = Array.from({ length: n }, (_, i) => `M${x(i, n).toFixed(1)} 16L${x(Math.floor((i * k) / n), k).toFixed(1)} 58`);
    const dots = (/** @type {number} */ of, /** @type {number} */ y, /** @type {string} */ cls) => Array.from({ length: of }, (_, i) => svg("circle", { cx: x(i, of), cy: y, r: radius, class: cls }));
    const words = { n, k, each: n / k };
    const said = page.text(`anatomy.heads.${k === n ? "all" : k === 1 ? "one" : "grouped"}`, words);
    const picture = svg("svg", { viewBox: `0 0 ${w} ${h}`, class: "lv-triangle", role: "img", "aria-label": said }, svg("path", { d: lines.join(""), class: "lv-head-line" }), ...dots(n, 16, "lv-head-query"), ...dots(k, 58, "lv-head-kv"));
    const key = el("p", "lv-heat-key", dot(page.text("anatomy.axis.N"), "lv-head-query"), dot(page.text("anatomy.axis.K"), "lv-head-kv"));
    return el("figure", "lv-heat-figure lv-diagram", el("figcaption", "", el("b", "", page.text("anatomy.heads"))), picture, key, el("p", "lv-heat-key", said));
  }

  /**
   * A choice between heads.
   * @param {string} now
   * @param {number} heads
   * @param {boolean} mean whether the mean of all is one
   * @param {(chosen: string) => void} choose
   */
  choice(now, heads, mean, choose) {
    const { page } = this;
    const options = [...(mean ? [MEAN] : []), ...Array.from({ length: heads }, (_, i) => String(i))].map((value) => {
      const option = el("option", "", value === MEAN ? page.text("anatomy.head.mean") : page.text("anatomy.head.n", { n: value }));
      option.value = value;
      return option;
    });
    const select = el("select", "lv-choice", ...options);
    select.value = now;
    select.addEventListener("change", () => choose(select.value));
    return el("label", "lv-head-choice", `${page.text("anatomy.head")} `, select);
  }

  /** What is said of columns that are left out. @param {LayerData} layer */
  left({ columns, shapes }) {
    if (columns.positions.length >= columns.total) return [];
    const share = columns.share.reduce((a, b) => a + b, 0) / shapes.query.N;
    const words = { shown: columns.positions.length, total: columns.total, share: percent(share) };
    return [el("p", "lv-heat-key", this.page.text("anatomy.window", words))];
  }

  /**
   * The words, tinted by how much a head looks at each.
   * @param {LayerData} layer
   */
  text(layer) {
    const { page } = this;
    const [weights, scores, n] = [layer.get("weights"), layer.get("scores"), layer.shapes.query.N];
    if (this.head !== MEAN && Number(this.head) >= n) this.head = MEAN;
    const heads = this.head === MEAN ? Array.from({ length: n }, (_, i) => i) : [Number(this.head)];
    const width = layer.columns.positions.length;
    const mean = (/** @type {Float32Array} */ data, /** @type {number} */ place) => heads.reduce((sum, head) => sum + data[head * width + place], 0) / heads.length;
    /** @type {Map<number, { weight: number, score: number }>} by position: its slots together */
    const found = new Map();
    layer.columns.positions.forEach((position, place) => {
      if (!layer.columns.visible[place]) return;
      const before = found.get(position) ?? { weight: 0, score: -Infinity };
      found.set(position, { weight: before.weight + mean(weights.data, place), score: Math.max(before.score, mean(scores.data, place)) });
    });
    const most = Math.max(...[...found.values()].map(({ weight }) => weight), 1e-9);
    const words = [...found].map(([position, { weight, score }]) => {
      const word = el("span", "lv-tok lv-attended", shown(page.run.tokens[position]?.[0] ?? ""));
      word.style.setProperty("--share", (0.85 * (weight / most) ** 0.6).toFixed(3));
      word.title = `${position}: ${percent(weight)} · ${page.text("anatomy.box.scores")} ${written(score)}`;
      return word;
    });
    const best = [...found].sort((a, b) => b[1].weight - a[1].weight).slice(0, 5);
    const top = best.map(([position, { weight }]) => `“${shown(page.run.tokens[position]?.[0] ?? "")}” ${percent(weight)}`).join(" · ");
    const choice = this.choice(this.head, n, true, (chosen) => {
      this.head = chosen;
      page.redraw();
    });
    const called = page.text("anatomy.shares"); // also beside the scores: what is told in per cent are shares
    const text = el("div", "lv-attention-text", ...words);
    scrollable(text, called);
    return el("figure", "lv-heat-figure", el("figcaption", "", el("b", "", called), choice), text, el("p", "lv-heat-key", page.text("anatomy.shares.tint", { top })), ...this.left(layer));
  }

  /**
   * Keys and values of the words in the window, of one head.
   * @param {LayerData} layer
   * @param {LayerData | null} other
   * @returns {Node[]}
   */
  kept(layer, other) {
    const { page } = this;
    const heads = layer.shapes.keys.K;
    if (this.kv >= heads) this.kv = 0;
    const choice = this.choice(String(this.kv), heads, false, (chosen) => {
      this.kv = Number(chosen);
      page.redraw();
    });
    const figures = ["keys", "values"].flatMap((name) => {
      const each = [layer, other].filter(Boolean).map((one) => ({ one, tensor: one.get(name).at(this.kv) }));
      const most = Math.max(...each.map(({ tensor }) => tensor.largest));
      return each.map(({ one, tensor }) => {
        const step = other ? ` · ${page.text("anatomy.beside.step", { step: one.step })}` : "";
        const rows = (/** @type {number} */ row) => this.column(one, one.columns.keys[row]);
        return this.heats.draw(tensor, { label: page.text(`anatomy.picture.${name}`, { head: this.kv }) + step, most, rows });
      });
    });
    const [few, all] = [layer.columns.keys.length, layer.columns.visible.filter(Boolean).length];
    const left = few < all ? [el("p", "lv-heat-key", page.text("anatomy.window.keys", { shown: few, total: all }))] : [];
    return [el("div", "lv-heat-choice", choice), ...figures, this.heats.key(null, other !== null), ...left, ...this.left(layer)];
  }
}
