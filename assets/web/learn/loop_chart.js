// A picture of numbers by loop: curves that were measured, and a line that a visitor draws, by pointer or by keyboard, a slider a
// loop. Drawn anew at the width it has, so that its words keep their size.

import { el } from "../core/dom.js";
import { drawn } from "../core/svg.js";

const HEIGHT = 270;
const EDGE = { left: 58, right: 16, top: 30, bottom: 40 };
const MOST_TICKS = 12;
const FINE = 40; // parts of the axis that an arrow key moves a point by one of
const DASHES = { solid: "", dash: "7 4", dot: "2 4", dashdot: "8 3 2 3", longdash: "12 4", longdashdot: "12 4 2 4" };

/** @typedef {{ low: number, high: number, scale: "linear" | "log" }} Axis */
/** @typedef {{ called: string, values: (number | null)[], colour: string, dash: keyof typeof DASHES }} Curve */

/** Where a value lies on an axis, 0 at its foot to 1 at its top; what lies beyond is at the end. @param {Axis} axis @param {number} value */
export function height({ low, high, scale }, value) {
  const held = Math.min(Math.max(value, low), high);
  if (scale === "log") return (Math.log(held) - Math.log(low)) / (Math.log(high) - Math.log(low));
  return (held - low) / (high - low);
}

/** The value at a height. @param {Axis} axis @param {number} share */
export function valueAt({ low, high, scale }, share) {
  const held = Math.min(Math.max(share, 0), 1);
  return scale === "log" ? low ** (1 - held) * high ** held : low + held * (high - low);
}

/** Round numbers on an axis; its ends, where there are none between them that a number can tell apart. @param {Axis} axis @returns {number[]} */
export function ticks({ low, high, scale }) {
  if (!(low < high) || !Number.isFinite(high - low)) return [];
  if (scale === "log") {
    const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    const each = Math.max(1, Math.ceil((Math.log10(high) - Math.log10(low)) / 6));
    return multiples(0, Math.floor((last - first) / each), (i) => 10 ** (first + i * each)) ?? [low, high];
  }
  const rough = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5].find((times) => unit * times >= rough * 0.999) ?? 10);
  const of = (/** @type {number} */ n) => Number((n * step).toPrecision(12));
  return multiples(Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9), of) ?? [low, high];
}

/**
 * A value for every whole number from one to another; null where that is not a few different ones: counted, and not added up, for
 * of large numbers one more may be the same.
 * @param {number} first
 * @param {number} last
 * @param {(n: number) => number} of
 */
function multiples(first, last, of) {
  const n = last - first + 1;
  if (!(n > 1 && n <= MOST_TICKS)) return null;
  const found = Array.from({ length: n }, (_, i) => of(first + i));
  return new Set(found).size === n ? found : null;
}

/** An axis that holds all of some curves. @param {(number | null)[][]} curves @returns {Axis} */
export function axisOf(curves) {
  const known = curves.flat().filter((value) => value !== null);
  if (!known.length) return { low: 0, high: 1, scale: "linear" };
  const [low, high] = [Math.min(...known), Math.max(...known)];
  if (low > 0 && high / low > 50) return { low: Math.max(10 ** Math.floor(Math.log10(low)), Number.MIN_VALUE), high: 10 ** Math.ceil(Math.log10(high)), scale: "log" };
  const foot = low >= 0 && low < high / 2 ? 0 : low;
  return { low: foot, high: high > foot ? high + (high - foot) * 0.05 : foot + Math.max(1, Math.abs(foot) / 1e6), scale: "linear" };
}

export class LoopChart {
  /** @type {Curve[]} */
  curves = [];
  /** @type {number[] | null} the line, a value a loop */
  line = null;
  /** @type {boolean} whether it may still be drawn */
  open = false;
  /** @type {number} the loop whose point has the keyboard */
  at = 0;

  /**
   * @param {Axis} axis
   * @param {number} loops
   * @param {{ axis: string, loop: (n: number) => string, loops: string, yours: string, shown: (value: number) => string }} words
   * @param {() => void} changed the line is another
   */
  constructor(axis, loops, words, changed = () => {}) {
    Object.assign(this, { axis, loops, words, changed });
    /** @type {Axis} */ this.axis = axis;
    /** @type {number} */ this.loops = loops;
    this.words = words;
    this.changed = changed;
    this.svg = /** @type {SVGSVGElement} */ (drawn("svg", { class: "lv-loop-chart" }));
    this.key = el("div", "lv-loop-key");
    this.node = el("div", "lv-loop-picture", this.svg, this.key);
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    new ResizeObserver(() => this.width !== this.node.clientWidth && this.draw()).observe(this.node);
    this.width = 0;
  }

  /** Let a line be drawn, flat to begin with. */
  ask() {
    this.line = Array(this.loops).fill(valueAt(this.axis, 0.5));
    this.open = true;
    this.draw();
  }

  /** No more drawing; what was measured lies beside the line. @param {Curve[]} curves */
  show(curves) {
    this.open = false;
    this.curves = curves;
    this.draw();
  }

  /** @param {number} r from 0 */
  x(r) {
    const room = this.width - EDGE.left - EDGE.right;
    return EDGE.left + (this.loops > 1 ? (r / (this.loops - 1)) * room : room / 2);
  }

  /** @param {number} value */
  y(value) {
    return EDGE.top + (1 - height(this.axis, value)) * (HEIGHT - EDGE.top - EDGE.bottom);
  }

  draw() {
    this.width = this.node.clientWidth;
    if (!this.width) return;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.setAttribute("height", String(HEIGHT));
    this.svg.setAttribute("role", this.open ? "group" : "img");
    this.svg.setAttribute("aria-label", this.words.axis);
    this.svg.classList.toggle("lv-drawing", this.open);
    this.svg.replaceChildren(...this.frame(), ...this.curves.map((curve) => this.curve(curve)), ...this.points());
    this.key.replaceChildren(...(this.curves.length ? [...this.curves, ...(this.line ? [this.own] : [])] : []).map((curve) => this.entry(curve)));
  }

  /** @returns {Curve} */
  get own() {
    return { called: this.words.yours, values: this.line, colour: "var(--lv-select)", dash: "dash" };
  }

  frame() {
    const [left, right, foot] = [EDGE.left, this.width - EDGE.right, HEIGHT - EDGE.bottom];
    const nodes = ticks(this.axis).flatMap((value) => [
      drawn("line", { x1: left, x2: right, y1: this.y(value), y2: this.y(value), class: "lv-grid-line" }),
      drawn("text", { x: left - 7, y: this.y(value) + 4, "text-anchor": "end" }, this.words.shown(value)),
    ]);
    const each = Math.ceil(this.loops / Math.max(4, Math.floor((right - left) / 34)));
    for (let r = 0; r < this.loops; r += each) nodes.push(drawn("text", { x: this.x(r), y: foot + 17, "text-anchor": "middle" }, String(r + 1)));
    nodes.push(drawn("text", { x: (left + right) / 2, y: HEIGHT - 5, "text-anchor": "middle" }, this.words.loops));
    nodes.push(drawn("text", { x: 2, y: 13 }, this.words.axis));
    return nodes;
  }

  /** @param {Curve} curve */
  curve({ values, colour, dash }) {
    let path = "";
    let on = false;
    values.slice(0, this.loops).forEach((value, r) => {
      if (value !== null) path += `${on ? "L" : "M"}${this.x(r).toFixed(1)} ${this.y(value).toFixed(1)}`;
      on = value !== null;
    });
    const line = drawn("path", { d: path, class: "lv-loop-curve", "stroke-dasharray": DASHES[dash] });
    line.style.stroke = colour;
    return line;
  }

  /** The line with its points: sliders, of which one can be reached by Tab. */
  points() {
    if (!this.line) return [];
    const points = this.line.map((value, r) => {
      const point = drawn("circle", { cx: this.x(r), cy: this.y(value), r: this.open ? 6 : 3, class: "lv-loop-point" });
      if (this.open) this.slider(/** @type {SVGElement} */ (point), value, r);
      return point;
    });
    return [this.curve(this.own), ...points];
  }

  /**
   * @param {SVGElement} point
   * @param {number} value
   * @param {number} r
   */
  slider(point, value, r) {
    const said = { role: "slider", tabindex: r === this.at ? 0 : -1, "aria-orientation": "vertical", "aria-label": this.words.loop(r + 1) };
    const range = { "aria-valuemin": this.axis.low, "aria-valuemax": this.axis.high, "aria-valuenow": value, "aria-valuetext": this.words.shown(value) };
    for (const [name, one] of Object.entries({ ...said, ...range })) point.setAttribute(name, String(one));
    point.addEventListener("keydown", (event) => this.pressed(/** @type {KeyboardEvent} */ (event), r));
  }

  /**
   * @param {KeyboardEvent} event
   * @param {number} r
   */
  pressed(event, r) {
    const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5, Home: -FINE, End: FINE }[event.key];
    const to = { ArrowLeft: r - 1, ArrowRight: r + 1 }[event.key];
    if (step === undefined && to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (step !== undefined) this.set(r, height(this.axis, this.line[r]) + step / FINE);
    this.at = Math.min(Math.max(to ?? r, 0), this.loops - 1);
    this.draw();
    this.focus();
  }

  focus() {
    /** @type {SVGElement | null} */ (this.svg.querySelector('[tabindex="0"]'))?.focus();
  }

  /**
   * @param {number} r
   * @param {number} share of the axis
   */
  set(r, share) {
    this.line[r] = Number(valueAt(this.axis, share).toPrecision(6));
    this.changed();
  }

  /** Draw by the pointer: every loop that it passes takes its height. @param {PointerEvent} event */
  press(event) {
    if (!this.open || !this.line) return;
    event.preventDefault();
    let before = this.passed(event);
    this.set(before.r, before.share);
    this.draw();
    /** @type {(moved: PointerEvent) => void} */
    const move = (moved) => {
      const now = this.passed(moved);
      const [from, to] = [Math.min(before.r, now.r), Math.max(before.r, now.r)];
      for (let r = from; r <= to; r++) {
        const part = now.r === before.r ? 1 : (r - before.r) / (now.r - before.r);
        this.set(r, before.share + part * (now.share - before.share));
      }
      before = now;
      this.draw();
    };
    const end = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", end);
      window.removeEventListener("pointercancel", end);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
  }

  /** The loop and the height under a pointer. @param {PointerEvent} event */
  passed(event) {
    const box = this.svg.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const share = (x - EDGE.left) / Math.max(1, this.width - EDGE.left - EDGE.right);
    const r = Math.min(Math.max(Math.round(share * (this.loops - 1)), 0), this.loops - 1);
    return { r, share: 1 - (y - EDGE.top) / (HEIGHT - EDGE.top - EDGE.bottom) };
  }

  /** @param {Curve} curve */
  entry({ called, colour, dash }) {
    const line = drawn("line", { x1: 0, x2: 30, y1: 5, y2: 5, class: "lv-loop-curve", "stroke-dasharray": DASHES[dash] });
    line.style.stroke = colour;
    return el("span", "", drawn("svg", { width: 30, height: 10, "aria-hidden": "true" }, line), called);
  }
}
