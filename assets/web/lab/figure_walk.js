// A slider under a measurement's figure: it goes along what was measured, marks its place in the figure, and says in words
// what was found there. The places and their sentences come with the measurement.

import { el } from "../core/dom.js";

/** @import { LabWalk } from "../core/contract.js" */

export class FigureWalk {
  /** @type {LabWalk | null} where it can go */
  walk = null;
  /** @type {string | null} the place that the visitor has chosen; null: the last there is */
  chosen = null;

  /**
   * @param {import("../core/page_head.js").Frame<any, any, any>} frame
   * @param {import("../core/plot.js").Plot} plot
   */
  constructor(frame, plot) {
    this.frame = frame;
    this.plot = plot;
    this.called = el("span");
    this.value = el("output", "lv-dial-value");
    this.slider = Object.assign(el("input", "lv-dial-slider"), { type: "range", min: "0", step: "1" });
    this.slider.addEventListener("input", () => {
      this.chosen = this.walk.stops[Number(this.slider.value)].at;
      this.show();
    });
    this.said = el("p", "lv-walk-said");
    this.said.setAttribute("role", "status");
    this.node = el("div", "lv-walk", el("label", "lv-dial", el("span", "lv-dial-head", this.called, this.value), this.slider), this.said);
    this.node.hidden = true;
  }

  /**
   * @param {LabWalk | null} walk of the measurement that is shown
   * @param {boolean} another whether it is another than before
   */
  follow(walk, another) {
    if (another) this.chosen = null;
    this.walk = walk;
    this.show();
  }

  label() {
    this.called.textContent = this.frame.text("lab.walk", { along: this.walk?.along ?? "" });
  }

  get at() {
    const { stops } = this.walk;
    const found = stops.findIndex(({ at }) => at === this.chosen);
    return found < 0 ? stops.length - 1 : found;
  }

  show() {
    this.node.hidden = !this.walk;
    this.plot.marks = [];
    if (this.walk) {
      const { stops, colour } = this.walk;
      const { at, x, said } = stops[this.at];
      this.label();
      this.slider.max = String(stops.length - 1);
      this.slider.value = String(this.at);
      this.slider.setAttribute("aria-valuetext", at);
      this.value.textContent = at;
      this.said.textContent = said;
      this.plot.marks = [{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: colour, width: 2 } }];
    }
    this.plot.touch();
  }
}
