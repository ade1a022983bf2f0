// A problem of arrows as a picture: its letters as buttons, its arrows as lines, and the token of a run that goes along them. What
// mouse, finger and keyboard do in it is told to who draws (`Hand`), and what is drawn comes from there.

import { renewing } from "../core/dom.js";
import { drawn } from "../core/svg.js";
import { ArrowCircle, NODE, SIZE } from "./arrow_circle.js";

/** @import { Arrow, Move, Problem } from "./arrow_problem.js" */
/** @import { Point } from "./arrow_circle.js" */
/**
 * What is done with what is done in the picture: a node is asked about, an arrow drawn or taken away, something is said, and what
 * was said before is old.
 * @typedef {{ ask(node: string): void, connect(from: string, to: string): void, remove(from: string): void, tell(key: string, values: Record<string, string>, bad?: boolean): void, began(): void, paint(): void }} Hand
 */
/** @typedef {{ problem: Problem, passed: Move[], end: string | null, token: string | null, says: (node: string) => string }} Shown the moves that were made, where the arrows end (once that may be seen), where the token stands, what a node is called */

const MOVING = 0.5; // of the time for a loop that the token is on its way

export class ArrowPicture {
  /** @type {string | null} the node an arrow is being drawn from */
  from = null;
  /** @type {boolean} whether that is by the keyboard */
  typing = false;
  /** @type {string} the node that Tab leads to */
  at = "a";
  /** @type {object | null} the way that the token is on */
  way = null;

  /**
   * @param {string[]} names
   * @param {string} described the id of what says how it is used
   * @param {Hand} hand
   */
  constructor(names, described, hand) {
    this.names = names;
    this.hand = hand;
    this.circle = new ArrowCircle(names);
    this.anew = renewing();
    this.lines = drawn("g", { "aria-hidden": "true" });
    this.ways = drawn("g", { "aria-hidden": "true" });
    this.ghost = drawn("path", { class: "lv-arrows-ghost", "aria-hidden": "true" });
    this.token = drawn("circle", { class: "lv-arrows-token", r: NODE + 5, "aria-hidden": "true" });
    /** @type {Map<string, SVGGElement>} */
    this.nodes = new Map(names.map((node) => [node, this.knot(node)]));
    const shown = [this.lines, this.ways, this.ghost, ...this.nodes.values(), this.token];
    this.svg = drawn("svg", { class: "lv-arrows-svg", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-describedby": described }, ...shown);
    // a finger that begins on a node draws, and does not scroll the page: `touch-action` is not heeded inside of pictures everywhere
    this.svg.addEventListener("touchstart", (event) => this.knotAt(event) && event.preventDefault(), { passive: false });
    this.svg.addEventListener("pointerdown", (event) => this.grasp(event));
    this.svg.addEventListener("pointermove", (event) => this.drag(event));
    this.svg.addEventListener("pointerup", (event) => this.drop(event));
    this.svg.addEventListener("pointercancel", () => this.letGo());
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** @param {string} node */
  knot(node) {
    const [x, y] = this.circle.place(node);
    const flag = drawn("text", { class: "lv-arrows-flag", x: x + NODE + 5, y: y - NODE - 2 }, "⚑");
    const shape = drawn("circle", { cx: x, cy: y, r: NODE });
    const made = drawn("g", { class: "lv-arrows-node", role: "button", tabindex: -1, "data-node": node }, shape, drawn("text", { x, y }, node), flag);
    made.addEventListener("focus", () => (this.at = node));
    made.addEventListener("click", (event) => {
      if (event.detail === 0) this.enter(node); // by a screen reader
    });
    return made;
  }

  // --- what is drawn -----------------------------------------------------------------------------------------------

  /** Everything as it is now. @param {Shown} shown */
  paint({ problem, passed, end, token, says }) {
    this.anew("lines", problem.arrows, () => this.lines.replaceChildren(...problem.arrows.map((arrow) => this.arrow(arrow))));
    this.anew("ways", passed, () => {
      const lit = passed.map((move, i) => (move.kind === "hop" || move.kind === "jump" ? this.lit(move, i) : null));
      this.ways.replaceChildren(...lit.filter((one) => one !== null));
    });
    for (const [node, knot] of this.nodes) {
      const start = node === problem.start;
      knot.classList.toggle("lv-start", start);
      knot.classList.toggle("lv-from", node === this.from);
      knot.classList.toggle("lv-end", node === end);
      knot.setAttribute("tabindex", node === this.at ? "0" : "-1");
      knot.children[1].textContent = start ? `${node}?` : node;
      knot.setAttribute("aria-label", says(node));
      knot.setAttribute("aria-pressed", String(start));
    }
    if (this.from === null || this.typing) this.ghost.setAttribute("d", "");
    this.token.classList.toggle("lv-arrows-gone", token === null);
    if (token !== null && !this.way) this.put(this.circle.place(token)); // else it is on its way
  }

  /** The arrow from a node to a node. @param {Arrow} arrow */
  arrow([from, to]) {
    const { path, head } = this.circle.line(from, to);
    const hit = drawn("path", { class: "lv-arrows-hit", d: path });
    hit.addEventListener("click", () => this.hand.remove(from));
    return drawn("g", { class: "lv-arrows-arrow", "data-arrow": `${from}>${to}` }, drawn("path", { d: path }), drawn("polygon", { points: head }), hit);
  }

  /**
   * What a loop's guess did, drawn: an arrow lit up, or a jump, dashed.
   * @param {Move} move
   * @param {number} i
   */
  lit({ from, node, kind }, i) {
    const { path, head, middle } = this.circle.line(from, node, kind === "jump" ? "jump" : "arrow");
    const [x, y] = middle;
    const badge = drawn("g", { class: "lv-arrows-loop" }, drawn("circle", { cx: x, cy: y, r: 9.5 }), drawn("text", { x, y }, String(i + 1)));
    return drawn("g", { class: `lv-arrows-move lv-arrows-${kind}`, "data-loop": i + 1 }, drawn("path", { d: path }), drawn("polygon", { points: head }), badge);
  }

  // --- the token ---------------------------------------------------------------------------------------------------

  /** @param {Point} point */
  put([x, y]) {
    this.token.setAttribute("cx", String(x));
    this.token.setAttribute("cy", String(y));
  }

  /**
   * The token goes along the line of a move, a picture a frame, and is there when half of a loop's time has passed.
   * @param {Move} move
   * @param {number} pace milliseconds for a loop
   */
  travel({ from, node, kind }, pace) {
    const way = (this.way = {});
    const since = performance.now();
    const path = /** @type {SVGPathElement} */ (/** @type {unknown} */ (drawn("path", { d: this.circle.line(from, node, kind === "jump" ? "jump" : "arrow").whole })));
    const length = path.getTotalLength();
    const on = () => {
      if (way !== this.way) return;
      const share = Math.min(1, (performance.now() - since) / (MOVING * pace));
      const { x, y } = path.getPointAtLength(length * share);
      this.put([x, y]);
      if (share < 1) requestAnimationFrame(on);
      else this.way = null;
    };
    on();
  }

  // --- by mouse and finger -----------------------------------------------------------------------------------------

  /** Where a pointer is in the picture. @param {PointerEvent} event @returns {Point} */
  point({ clientX, clientY }) {
    const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return [x, y];
  }

  /** The node's element where something happened. @param {Event} event @returns {SVGGElement | null} */
  knotAt({ target }) {
    return target instanceof Element ? target.closest("[data-node]") : null;
  }

  /** @param {PointerEvent} event */
  grasp(event) {
    const knot = event.button === 0 ? this.knotAt(event) : null;
    if (!knot) return;
    event.preventDefault(); // nothing is selected meanwhile
    this.svg.setPointerCapture(event.pointerId);
    this.from = knot.getAttribute("data-node");
    this.typing = false;
    this.at = this.from;
    this.hand.began();
    knot.focus({ preventScroll: true });
  }

  /** @param {PointerEvent} event */
  drag(event) {
    if (this.from === null || this.typing) return;
    const { circle } = this;
    const to = circle.near(this.point(event));
    const [[ax, ay], [x, y]] = [circle.place(this.from), to ? circle.place(to) : this.point(event)];
    this.ghost.setAttribute("d", to === this.from ? "" : `M${ax},${ay} L${x},${y}`);
  }

  /** @param {PointerEvent} event */
  drop(event) {
    if (this.from === null || this.typing) return;
    const [from, to] = [this.from, this.circle.near(this.point(event))];
    this.from = null;
    if (to === from) this.hand.ask(from);
    else if (to) this.hand.connect(from, to);
    else this.hand.paint();
  }

  letGo() {
    this.from = null;
    this.hand.paint();
  }

  // --- by keyboard -------------------------------------------------------------------------------------------------

  /** Enter: the arrow that was begun ends at this node; when none was, it is asked about. @param {string} node */
  enter(node) {
    if (this.from === null || !this.typing) this.hand.ask(node);
    else if (this.from === node) this.hand.tell("self", { node }, true);
    else this.hand.connect(this.from, node);
  }

  /** Space: an arrow begins at this node, or ends at it. @param {string} node */
  begin(node) {
    if (this.from !== null && this.typing) return this.enter(node);
    [this.from, this.typing] = [node, true];
    return this.hand.tell("begun", { from: node });
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { at, names } = this;
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const key = event.key.toLowerCase();
    if (way) this.focus(names[(names.indexOf(at) + way + names.length) % names.length]);
    else if (names.includes(key)) this.focus(key);
    else if (event.key === " " || event.key === ">") this.begin(at);
    else if (event.key === "Enter") this.enter(at);
    else if (event.key === "Delete" || event.key === "Backspace") this.hand.remove(at);
    else if (event.key === "Escape" && this.from !== null) {
      this.from = null;
      this.hand.tell("dropped", {});
    } else return;
    event.preventDefault();
    event.stopPropagation(); // the page has keys of its own
  }

  /** @param {string} node */
  focus(node) {
    this.nodes.get(this.at).setAttribute("tabindex", "-1");
    this.at = node;
    const knot = this.nodes.get(node);
    knot.setAttribute("tabindex", "0");
    knot.focus();
  }
}
