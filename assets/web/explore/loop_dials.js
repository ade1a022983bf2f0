// Two sliders beside the ring: loops and step size.

import { el } from "../core/dom.js";
import { RealSlider } from "./real_slider.js";

export class LoopDials {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    /** @param {string} control */
    const named = (control) => `live.hero.dial.${control}`;
    this.loops = new RealSlider(page, () => this.counted, named);
    this.damping = new RealSlider(page, () => "loop_damping", named);
    this.loops.range.id = "lv-dial-loops";
    this.damping.range.id = "lv-dial-damping";
    this.node = el("div", "lv-dials", this.loops.node, this.damping.node);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.loops.configure(texts);
    this.damping.configure(texts);
  }

  /** The control that says how many loops there are, as the form stands. */
  get counted() {
    return this.page.form.dials.loop_strategy === "dynamic_stop" ? "max_loop_count" : "loop_count";
  }

  /** Somebody has set the real ones. */
  show() {
    this.loops.follow();
    this.damping.follow();
  }
}
