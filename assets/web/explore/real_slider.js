// A slider that stands for one of the form's own controls, wherever that is, and whether its group is open or not: it shows what
// that holds, and what is done to it is done to that, by Gradio's own event (form_state.js).

import { el } from "../core/dom.js";

export class RealSlider {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;

  /**
   * @param {import("./page.js").Page} page
   * @param {() => string} control which one it stands for now, of DIALS
   * @param {(control: string) => string} called which text says what a control is called here
   */
  constructor(page, control, called) {
    this.page = page;
    this.control = control;
    this.called = called;
    this.label = el("span");
    this.value = el("output", "", "–");
    this.range = el("input");
    Object.assign(this.range, { type: "range", disabled: true });
    this.range.addEventListener("input", () => (this.value.textContent = this.range.value));
    this.range.addEventListener("change", () => page.form.turn({ [control()]: Number(this.range.value) }));
    this.node = el("label", "lv-slide", el("span", "lv-slide-words", this.label, this.value), this.range);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.range.title = texts["live.hero.dial.hint"];
    this.follow();
  }

  /** Show what the real one holds. */
  follow() {
    const { page, range, texts } = this;
    if (!texts || !page.config) return;
    const control = this.control();
    const value = page.form.dials[control];
    this.label.textContent = texts[this.called(control)];
    const [min, max, step] = page.config.dials[control];
    Object.assign(range, { min, max, step, disabled: value === undefined || !page.tell });
    if (value === undefined || range.matches(":active")) return; // not known yet, or being moved
    range.value = this.value.textContent = String(value);
  }
}
