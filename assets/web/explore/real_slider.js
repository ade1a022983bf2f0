// A slider that stands for one of the form's own: it shows what that holds, and what is done to it is done to that.

import { ELEMENTS } from "../core/contract.js";
import { el } from "../core/dom.js";

/**
 * Put a value into a field that Gradio has built, as a hand would.
 * @param {HTMLInputElement} field
 * @param {string} value
 */
function put(field, value) {
  field.value = value;
  for (const event of [new Event("input", { bubbles: true }), new Event("change", { bubbles: true }), new PointerEvent("pointerup", { bubbles: true })]) field.dispatchEvent(event);
}

export class RealSlider {
  /** @type {string | undefined} of the real one, as it is now */
  control = undefined;
  /** @type {Record<string, string> | undefined} */
  texts = undefined;

  /**
   * @param {string} key of its words: `live.reach.<key>`
   * @param {string[]} controls the first that can be used is the one
   */
  constructor(key, controls) {
    this.key = key;
    this.controls = controls;
    this.label = el("span");
    this.value = el("output");
    this.range = el("input");
    this.range.type = "range";
    this.range.addEventListener("input", () => {
      if (!this.real) return;
      put(this.real.field, this.range.value);
      this.value.textContent = this.range.value;
    });
    this.node = el("label", "lv-slide", el("span", "lv-slide-words", this.label, this.value), this.range);
  }

  /** The control it stands for and its field: the first that can be used; neither while there is none. */
  get real() {
    for (const control of this.controls) {
      /** @type {HTMLInputElement | null} */
      const field = document.querySelector(`#${ELEMENTS.control}${control} input[type=range]`);
      if (field && !field.disabled) return { control, field };
    }
    return null;
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.control = undefined;
    this.follow();
  }

  /** Show what the real one holds. */
  follow() {
    const { real, range, texts } = this;
    this.node.hidden = !real || !texts;
    if (this.node.hidden) return;
    const { control, field } = real;
    if (control !== this.control) {
      this.control = control;
      this.label.textContent = texts[`live.reach.${control}`];
    }
    for (const end of /** @type {const} */ (["min", "max", "step"])) if (range[end] !== field[end]) range[end] = field[end];
    if (range.value !== field.value) range.value = field.value;
    if (this.value.textContent !== field.value) this.value.textContent = field.value;
  }
}
