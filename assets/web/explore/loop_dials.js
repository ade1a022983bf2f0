// Two sliders beside the ring: loops and step size. They are the form's own controls, seen from here: what is moved here is set
// there by Gradio's own event, and whatever sets those (a preset, a link, a model, the visitor) is told here (form_state.js).

import { el, fill } from "../core/dom.js";

/** A slider, its name and its value. */
class Dial {
  /** @param {(value: number) => void} turned */
  constructor(turned) {
    this.input = el("input", "lv-dial-slider");
    Object.assign(this.input, { type: "range", disabled: true });
    this.label = el("label", "lv-dial-name");
    this.value = el("output", "lv-dial-value", "–");
    this.node = el("div", "lv-dial", el("div", "lv-dial-head", this.label, this.value), this.input);
    this.input.addEventListener("input", () => (this.value.textContent = this.input.value));
    this.input.addEventListener("change", () => turned(Number(this.input.value)));
  }

  /** @param {string} id */
  called(id) {
    this.input.id = this.label.htmlFor = id;
  }
}

export class LoopDials {
  /** @type {Record<string, string> | undefined} */
  texts = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.loops = new Dial((value) => this.turn(this.counted, value));
    this.damping = new Dial((value) => this.turn("loop_damping", value));
    this.loops.called("lv-dial-loops");
    this.damping.called("lv-dial-damping");
    this.node = el("div", "lv-dials", this.loops.node, this.damping.node);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.show();
  }

  /** The control that says how many loops there are, as the form stands. */
  get counted() {
    return this.page.form.dials.loop_strategy === "dynamic_stop" ? "max_loop_count" : "loop_count";
  }

  /**
   * @param {string} control one of DIALS
   * @param {number} value
   */
  turn(control, value) {
    this.page.form.turn({ [control]: value });
  }

  show() {
    const { texts, page } = this;
    if (!texts) return;
    for (const [dial, control] of /** @type {[Dial, string][]} */ ([[this.loops, this.counted], [this.damping, "loop_damping"]])) {
      dial.label.textContent = texts[`live.hero.dial.${control}`];
      dial.input.title = texts["live.hero.dial.hint"];
      const { [control]: value } = page.form.dials;
      const [min, max, step] = page.config.dials[control];
      Object.assign(dial.input, { min, max, step, disabled: value === undefined || !page.tell });
      if (value === undefined || dial.input.matches(":active")) continue; // not known yet, or being moved
      dial.input.value = dial.value.textContent = String(value);
    }
  }
}
