// A slider that stands for one of the form's own controls, wherever that is, and whether its group is open or not: it shows what
// that holds, and what is done to it is done to that, by Gradio's own event (form_state.js).

import { el } from "../core/dom.js";

export class RealSlider {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;

  /**
   * @param {import("./page.js").Page} page
   * @param {() => string} control which one it stands for now, of DIALS
   */
  constructor(page, control) {
    this.page = page;
    this.control = control;
    this.label = el("span");
    this.value = el("output");
    this.range = el("input");
    this.range.type = "range";
    this.range.addEventListener("input", () => (this.value.textContent = this.range.value));
    this.range.addEventListener("change", () => page.form.turn({ [control()]: Number(this.range.value) }));
    this.node = el("label", "lv-slide", el("span", "lv-slide-words", this.label, this.value), this.range);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.follow();
  }

  /** Show what the real one holds. */
  follow() {
    const { page, range, texts } = this;
    const control = this.control();
    const value = page.form.dials[control];
    this.node.hidden = value === undefined || !texts || !page.config;
    if (this.node.hidden) return;
    this.label.textContent = texts[`live.reach.${control}`];
    const [min, max, step] = page.config.dials[control];
    Object.assign(range, { min, max, step, disabled: !page.tell });
    if (range.matches(":active")) return; // it is being moved
    range.value = this.value.textContent = String(value);
  }
}
