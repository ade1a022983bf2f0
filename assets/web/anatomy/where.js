// Which layer and loop step are looked into, and which loop step beside it.

import { el, name, press } from "../core/dom.js";

export class Where {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.layer = this.chooser((way) => page.layerBy(way), (value) => page.go({ layer: value }));
    this.step = this.chooser((way) => page.stepBy(way), (value) => page.go({ step: value }));
    this.beside = el("select", "lv-choice");
    this.beside.addEventListener("change", () => page.go({ beside: Number(this.beside.value) }));
    this.besideTitle = el("span");
    this.node = el("div", "lv-where", this.layer.node, this.step.node, el("label", "lv-where-one", this.besideTitle, this.beside));
  }

  /**
   * A list with a button before and one after it.
   * @param {(way: number) => void} walk
   * @param {(value: number) => void} choose
   */
  chooser(walk, choose) {
    const title = el("span");
    const select = el("select", "lv-choice");
    select.addEventListener("change", () => choose(Number(select.value)));
    const earlier = press("lv-icon", () => walk(-1), "‹");
    const later = press("lv-icon", () => walk(1), "›");
    const node = el("span", "lv-where-one", el("label", "lv-where-label", title, select), earlier, later);
    return { title, select, earlier, later, node };
  }

  label() {
    const { page } = this;
    for (const key of /** @type {const} */ (["layer", "step"])) {
      this[key].title.textContent = page.text(`anatomy.${key}`);
      name(this[key].earlier, page.text(`anatomy.${key}.earlier`));
      name(this[key].later, page.text(`anatomy.${key}.later`));
    }
    this.besideTitle.textContent = page.text("anatomy.beside");
    this.show();
  }

  /**
   * @param {HTMLSelectElement} select
   * @param {[value: number, words: string][]} options
   * @param {number} now
   */
  fill(select, options, now) {
    const words = JSON.stringify(options);
    if (select.dataset.words !== words) {
      select.dataset.words = words;
      select.replaceChildren(...options.map(([value, said]) => Object.assign(el("option", "", said), { value: String(value) })));
    }
    select.value = String(now);
  }

  show() {
    const { page } = this;
    const { layer, step, beside } = page.where;
    const layers = page.run?.layers ?? 0;
    const steps = page.stepsOf(layer);
    const loops = steps.length > 0 && steps[0] > 0;
    this.fill(this.layer.select, Array.from({ length: layers }, (_, i) => [i, page.text("anatomy.layer.place", { layer: i, last: layers - 1 })]), layer);
    const known = page.look ? page.text("anatomy.step.none") : "…";
    this.fill(this.step.select, loops ? steps.map((one) => [one, `${one} / ${steps[steps.length - 1]}`]) : [[step, known]], step);
    const others = loops ? steps.filter((one) => one !== step) : page.look || !beside ? [] : [beside];
    this.fill(this.beside, [[0, page.text("anatomy.beside.none")], ...others.map((one) => /** @type {[number, string]} */ ([one, page.text("anatomy.beside.step", { step: one })]))], beside);
    const place = steps.indexOf(step);
    this.layer.earlier.disabled = layer <= 0;
    this.layer.later.disabled = layer >= layers - 1;
    this.step.select.disabled = !loops;
    this.step.earlier.disabled = place <= 0;
    this.step.later.disabled = place < 0 || place >= steps.length - 1;
    this.beside.disabled = !others.length;
  }
}
