// What all models of a page are to be held in: a choice, what it means here or why it cannot be had, and a button that leads out.

import { press } from "../core/dom.js";
import { Field } from "./form.js";

/** @import { Act, Control, Face } from "../core/contract.js" */

const NAME = "precision"; // of the control

export class PrecisionChoice {
  /** @type {Act | undefined} the way out that is offered */
  act = undefined;
  /** @type {boolean} whether the server has said how it stands; until then it is as the server has it */
  told = false;

  /**
   * @param {Control[]} controls all that there are
   * @param {() => void} changed another one was chosen
   * @param {() => void} again what was refused is asked for once more, so
   */
  constructor(controls, changed, again) {
    this.control = controls.find((one) => one.name === NAME);
    this.field = new Field(this.control, () => {
      this.offer();
      changed();
    });
    this.value = String(this.control.value);
    this.out = press("lv-quiet lv-out", () => {
      this.value = this.act.precision;
      this.offer();
      changed();
      again();
    });
    this.out.hidden = true;
  }

  /** The field. */
  get node() {
    return this.field.node;
  }

  /** @returns {string} */
  get value() {
    return this.field.input.value;
  }

  /** What is none is as the server has it. @param {unknown} value */
  set value(value) {
    const known = this.control.choices.includes(String(value));
    this.field.input.value = known ? String(value) : String(this.control.value);
  }

  /** Its words. @param {(key: string) => string} text */
  label(text) {
    this.field.label(text("precision.label"), (choice) => text(`precision.${choice}`));
    if (!this.told) this.field.show({ info: text("precision.now") }); // its place is kept
  }

  /** How it stands, once the server has said it. @param {Face | undefined} face */
  show(face) {
    if (!face) return;
    this.told = true;
    this.field.show(face);
  }

  /**
   * What a message says that something of it was refused for.
   * @param {{ field?: string, text: string, act?: Act }} message
   */
  take({ field, text, act }) {
    this.offer(act);
    if (field !== NAME) return false;
    this.field.show({ info: text, bad: true });
    return true;
  }

  /** A button that leads out; none when there is nothing to offer. @param {Act} [act] */
  offer(act) {
    this.act = act?.precision === undefined ? undefined : act;
    this.out.hidden = !this.act;
    this.out.textContent = this.act?.label ?? "";
  }
}
