// The way of a word's state through a decoder layer, as one drawing: down through attention, up through the MLP. The stage that is
// read about lights up; a box opens its stage. Which boxes there are is the layer's own; where they stand: layout.js.

import { RECORDED } from "../core/contract.js";
import { el } from "../core/dom.js";
import { drawn as svg } from "../core/svg.js";
import { TALL, layout } from "./layout.js";
import { percent } from "./numbers.js";

/** @import { AnatomyStage } from "../core/contract.js" */

export class Drawing {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2");
    /** @type {Map<string, { box: SVGElement, word: SVGElement, change: SVGElement, hint: SVGElement }>} */
    this.boxes = new Map();
    /** @type {{ from: string, to: string, line: SVGElement }[]} */
    this.ways = [];
    this.again = svg("text", { class: "lv-way-again", x: 0, y: 0 });
    /** @type {{ key: string, word: SVGElement }[]} */
    this.halves = [];
    this.listed = ""; // of which stages the drawing is
    this.picture = svg("svg", { class: "lv-anatomy-way", role: "group" });
    this.until = el("p", "lv-question"); // what is drawn before anything of the model is known
    this.until.hidden = true;
    this.node = el("section", "lv-card lv-anatomy-map", this.title, this.picture, this.until);
    this.build(page.stages);
  }

  /** Draw these stages, unless they are drawn already. @param {AnatomyStage[]} stages */
  build(stages) {
    const listed = stages.map(({ key }) => key).join(" ");
    if (this.listed === listed) return;
    this.listed = listed;
    const { boxes, ways, again, round, halves, width, height } = layout(stages);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.again.setAttribute("transform", round);
    const tip = svg("marker", { id: "lv-way-tip", viewBox: "0 0 6 6", refX: 5, refY: 3, markerWidth: 6.5, markerHeight: 6.5, markerUnits: "userSpaceOnUse", orient: "auto" });
    tip.append(svg("path", { d: "M0 0L6 3L0 6Z", class: "lv-way-tip" }));
    this.ways = ways.map(([from, to, path]) => ({ from, to, line: svg("path", { d: path, class: "lv-way-line", "marker-end": "url(#lv-way-tip)" }) }));
    const line = svg("path", { d: again, class: "lv-way-line lv-way-round", "marker-end": "url(#lv-way-tip)" });
    this.halves = halves.map(({ key, word: transform }) => ({ key, word: svg("text", { transform, "text-anchor": "middle" }) }));
    const drawn = halves.map(({ rect: [x, y, wide, tall] }, i) => svg("g", { class: "lv-way-half" }, svg("rect", { x, y, width: wide, height: tall, rx: 10 }), this.halves[i].word));
    this.boxes.clear();
    const made = stages.map(({ name }) => this.box(name, boxes[name]));
    this.picture.replaceChildren(svg("defs", {}, tip), ...drawn, line, this.again, ...this.ways.map((way) => way.line), ...made);
    this.label();
  }

  /** The box of a stage. @param {string} stage @param {import("./layout.js").Box} place */
  box(stage, [x, y, width]) {
    const word = svg("text", { x, y: y + 4.5 });
    const change = svg("text", { x: x + 5, y: y - 15.5, class: "lv-way-change" });
    const hint = svg("title", {});
    const box = svg("g", { class: "lv-way-box", role: "button", "data-stage": stage }, svg("rect", { x: x - width / 2, y: y - TALL / 2, width, height: TALL, rx: 6 }), word, change, hint);
    box.addEventListener("click", () => this.page.go({ stage }));
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.page.go({ stage });
    });
    this.boxes.set(stage, { box, word, change, hint });
    return box;
  }

  label() {
    const { page } = this;
    this.title.textContent = page.text("anatomy.way");
    this.picture.setAttribute("aria-label", page.text("anatomy.way.label"));
    this.again.textContent = page.text("anatomy.way.again");
    this.until.textContent = page.text("anatomy.way.until");
    for (const { key, word } of this.halves) word.textContent = page.text(key);
    for (const [stage, { word }] of this.boxes) word.textContent = page.text(`anatomy.box.${stage}`);
  }

  /**
   * Light up a stage, with the ways into it; by stage how much a second loop step changes, where one is beside.
   * @param {AnatomyStage} shown
   * @param {Record<string, (number | null)[] | null> | null} changes
   */
  show(shown, changes) {
    const focused = this.picture.contains(document.activeElement);
    const { stages } = this.page;
    this.build(stages);
    this.until.hidden = this.page.way.known || !this.page.run || this.page.run.run === RECORDED; // that one's model is as it is drawn
    const stage = shown.name;
    const titles = new Map(stages.map(({ name, title }) => [name, title]));
    for (const [name, { box, change, hint }] of this.boxes) {
      box.toggleAttribute("data-on", name === stage);
      box.setAttribute("aria-pressed", String(name === stage));
      box.setAttribute("tabindex", name === stage ? "0" : "-1");
      const pair = changes?.[name];
      change.textContent = pair ? percent(pair[1]) : "";
      const words = this.page.text(`anatomy.stage.${titles.get(name)}`) + (pair ? `: ${this.page.text("anatomy.change", { percent: percent(pair[1]) })}` : "");
      box.setAttribute("aria-label", words);
      hint.textContent = words;
    }
    for (const { from, to, line } of this.ways) line.toggleAttribute("data-on", to === stage || (from === stage && to !== "between" && to !== "result"));
    if (focused) this.boxes.get(stage).box.focus({ preventScroll: true }); // who walks from a box walks on from the next
  }
}
