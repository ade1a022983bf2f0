// The way of a word's state through a decoder layer, as one drawing: down through attention, up through the MLP. The stage that is
// read about lights up; a box opens its stage.

import { el } from "../core/dom.js";
import { drawn as svg } from "../core/svg.js";
import { percent } from "./numbers.js";

const [WIDTH, HEIGHT] = [400, 478];

/** @type {Record<string, [x: number, y: number, width: number]>} of each stage, its box's middle */
const BOXES = {
  embedding: [104, 22, 92],
  state: [104, 66, 92],
  norm: [104, 112, 92],
  query: [46, 162, 56],
  key: [106, 162, 56],
  value: [166, 162, 56],
  rope: [76, 206, 100],
  keys: [136, 250, 104],
  scores: [84, 294, 92],
  weights: [84, 335, 92],
  mixed: [106, 376, 92],
  attended: [106, 416, 92],
  between: [106, 456, 46],
  norm_mlp: [300, 416, 92],
  gate: [262, 368, 70],
  up: [340, 368, 70],
  swish: [262, 324, 70],
  product: [300, 280, 46],
  down: [300, 236, 92],
  result: [300, 186, 46],
  final_norm: [300, 128, 104],
  head: [300, 84, 92],
  sampling: [300, 40, 92],
};
/** @type {[from: string, to: string, path: string][]} the ways between them */
const WAYS = [
  ["embedding", "state", "M104 35V53"],
  ["state", "norm", "M104 79V99"],
  ["norm", "query", "M104 125V137H46V149"],
  ["norm", "key", "M104 125V137H106V149"],
  ["norm", "value", "M104 125V137H166V149"],
  ["query", "rope", "M46 175V193"],
  ["key", "rope", "M106 175V193"],
  ["rope", "keys", "M106 219V237"],
  ["value", "keys", "M166 175V237"],
  ["rope", "scores", "M60 219V281"],
  ["keys", "scores", "M108 263V281"],
  ["scores", "weights", "M84 307V322"],
  ["weights", "mixed", "M84 348V363"],
  ["keys", "mixed", "M166 263V376H153"],
  ["mixed", "attended", "M106 389V403"],
  ["attended", "between", "M106 429V443"],
  ["state", "between", "M58 66H10V456H82"],
  ["between", "norm_mlp", "M130 456H300V430"],
  ["between", "result", "M130 456H390V186H324"],
  ["norm_mlp", "gate", "M300 403V393H262V381"],
  ["norm_mlp", "up", "M300 403V393H340V381"],
  ["gate", "swish", "M262 355V337"],
  ["swish", "product", "M262 311V280H276"],
  ["up", "product", "M340 355V280H324"],
  ["product", "down", "M300 267V249"],
  ["down", "result", "M300 223V199"],
  ["result", "final_norm", "M300 173V141"],
  ["final_norm", "head", "M300 115V97"],
  ["head", "sampling", "M300 71V53"],
];
const AGAIN = "M276 186H216V66H151"; // the same for the next layer, or loop step
/** @type {[key: string, rect: number[], word: string][]} the two halves of a layer, and where their words stand */
const HALVES = [
  ["anatomy.way.attention", [14, 138, 184, 300], "translate(188 330) rotate(-90)"],
  ["anatomy.way.mlp", [222, 207, 160, 184], "translate(375 298) rotate(-90)"],
];

export class Drawing {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2");
    /** @type {Map<string, { box: SVGElement, word: SVGElement, change: SVGElement, hint: SVGElement }>} */
    this.boxes = new Map();
    /** @type {{ from: string, to: string, line: SVGElement }[]} */
    this.ways = [];
    this.again = svg("text", { class: "lv-way-again", x: 0, y: 0, transform: "translate(211 128) rotate(-90)" });
    this.halves = HALVES.map(([key, [x, y, width, height], transform]) => {
      const word = svg("text", { transform, "text-anchor": "middle" });
      return { key, word, node: svg("g", { class: "lv-way-half" }, svg("rect", { x, y, width, height, rx: 10 }), word) };
    });
    this.picture = svg("svg", { class: "lv-anatomy-way", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group" });
    this.node = el("section", "lv-card lv-anatomy-map", this.title);
    this.build();
  }

  build() {
    const tip = svg("marker", { id: "lv-way-tip", viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 6.5, markerHeight: 6.5, markerUnits: "userSpaceOnUse", orient: "auto" });
    tip.append(svg("path", { d: "M0 0L6 3L0 6Z", class: "lv-way-tip" }));
    const lines = WAYS.map(([from, to, path]) => {
      const line = svg("path", { d: path, class: "lv-way-line", "marker-end": "url(#lv-way-tip)" });
      this.ways.push({ from, to, line });
      return line;
    });
    const again = svg("path", { d: AGAIN, class: "lv-way-line lv-way-round", "marker-end": "url(#lv-way-tip)" });
    this.picture.append(svg("defs", {}, tip), ...this.halves.map(({ node }) => node), again, this.again, ...lines);
    for (const [stage, [x, y, width]] of Object.entries(BOXES)) {
      const word = svg("text", { x, y: y + 4.5 });
      const change = svg("text", { x: x + 5, y: y - 15.5, class: "lv-way-change" });
      const hint = svg("title", {});
      const box = svg("g", { class: "lv-way-box", role: "button", "data-stage": stage }, svg("rect", { x: x - width / 2, y: y - 13, width, height: 26, rx: 6 }), word, change, hint);
      box.addEventListener("click", () => this.page.go({ stage }));
      box.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        this.page.go({ stage });
      });
      this.boxes.set(stage, { box, word, change, hint });
      this.picture.append(box);
    }
    this.node.append(this.picture);
  }

  label() {
    const { page } = this;
    this.title.textContent = page.text("anatomy.way");
    this.picture.setAttribute("aria-label", page.text("anatomy.way.label"));
    this.again.textContent = page.text("anatomy.way.again");
    for (const { key, word } of this.halves) word.textContent = page.text(key);
    for (const [stage, { word }] of this.boxes) word.textContent = page.text(`anatomy.box.${stage}`);
  }

  /**
   * Light up a stage, with the ways into it; by stage how much a second loop step changes, where one is beside.
   * @param {string} stage
   * @param {Record<string, (number | null)[] | null> | null} changes
   */
  show(stage, changes) {
    const focused = this.picture.contains(document.activeElement);
    for (const [name, { box, change, hint }] of this.boxes) {
      box.toggleAttribute("data-on", name === stage);
      box.setAttribute("aria-pressed", String(name === stage));
      box.setAttribute("tabindex", name === stage ? "0" : "-1");
      const pair = changes?.[name];
      change.textContent = pair ? percent(pair[1]) : "";
      const words = this.page.text(`anatomy.stage.${name}`) + (pair ? `: ${this.page.text("anatomy.change", { percent: percent(pair[1]) })}` : "");
      box.setAttribute("aria-label", words);
      hint.textContent = words;
    }
    for (const { from, to, line } of this.ways) line.toggleAttribute("data-on", to === stage || (from === stage && to !== "between" && to !== "result"));
    if (focused) this.boxes.get(stage).box.focus({ preventScroll: true }); // who walks from a box walks on from the next
  }
}
