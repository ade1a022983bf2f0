// The ring: what a word goes through, as this run's model has it. Layers before the loop, the looped block as a track that winds
// outwards once a loop, layers after it. Every turn has the colour that a word of so many loops has in the text.

import { el, fill, name, press, shown } from "../core/dom.js";
import { drawn as draw } from "../core/svg.js";

/** @import { Hero, Stack } from "../core/contract.js" */

const [WIDE, HIGH, MIDDLE] = [232, 192, 86]; // of the drawing, and the height of its middle
const CORE = 25; // radius inside of which nothing winds: what stands there is read
const LARGEST = 80; // radius of the outermost turn
const THICKEST = 9; // a turn
const GAP = 0.16; // radians to both sides of where the word comes in
const STACK = 26; // width of a stack of layers
const SMALL = 15; // radius of a block that is not looked at
const MOST_BARS = 7; // layers drawn of a stack
const TURN_MS = 420; // a turn, where there is time
const MOST_MS = 4200; // all of them
const LEAST_MS = 110; // of a turn that can be followed by eye; faster ones are jumps

/** A piece without the blank before it, if there is more of it. @param {string} piece */
export const bare = (piece) => shown(piece.trim() ? piece.trim() : piece.replace(/ /g, "␣")) || "…";

/** @param {number} n */
const short = (n) => String(Math.round(100 * n) / 100);

export class LoopRing {
  /** @type {Record<string, string> | undefined} */
  texts = undefined;
  /** @type {Stack | null} what this run's model is made of */
  stack = null;
  /** @type {number[]} loops of each block of the word shown */
  loops = [];
  /** @type {number} the block looked at */
  block = 0;
  /** @type {number} turns that are drawn */
  turns = 0;
  /** @type {Element[]} a turn each */
  arcs = [];
  /** @type {number} of the block looked at: its middle */
  centre = WIDE / 2;
  /** @type {number} thickness of a turn */
  thick = THICKEST;
  /** @type {number} the request of the animation; 0: none runs */
  frame = 0;
  /** @type {string} all that is drawn but for where the word is */
  drawn = "";
  /** @type {Hero | null} what the word thought */
  hero = null;
  /** @type {string} the word */
  word = "";
  /** @type {Element | null} in the core: the loop it is in */
  number = null;
  /** @type {Element | null} and of how many */
  count = null;
  /** @type {Element | null} the word itself */
  dot = null;

  /**
   * @param {import("./page.js").Page} page
   * @param {{ at: (step: number) => void }} told the word comes to a loop
   */
  constructor(page, { at }) {
    this.page = page;
    this.at = at;
    this.calm = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.svg = draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
    this.line = el("p", "lv-ring-line");
    this.under = el("p", "lv-ring-under");
    this.again = press("lv-icon lv-ring-again", () => this.play(), "↻");
    this.node = el("div", "lv-ring", this.line, el("div", "lv-ring-drawing"), this.under, this.again);
    this.node.children[1].append(this.svg);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    name(this.again, texts["live.hero.again"]);
    this.drawn = "";
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  /**
   * Show a word: at rest, where it has come to.
   * @param {{ stack: Stack, loops: number[], block: number, hero: Hero, word: string, next: string }} word
   */
  show({ stack, loops, block, hero, word, next }) {
    this.stop();
    Object.assign(this, { stack, loops, block });
    this.turns = loops[block] ?? 0;
    this.hero = hero;
    this.word = word;
    // made anew: what is centred anew is else said to have moved
    this.line.replaceChildren(el("b", "", `“${bare(word)}”`), el("span", "", " → "), el("b", "", next ? `“${bare(next)}”` : "…"));
    this.line.title = `“${bare(word)}” → “${bare(next)}”`;
    const look = JSON.stringify([stack, loops, block, this.page.palette]);
    if (look !== this.drawn) this.build();
    this.drawn = look;
    this.again.hidden = this.turns < 1;
    this.rest();
  }

  build() {
    const { svg, stack, loops, block } = this;
    svg.replaceChildren();
    // a picture has no buttons in it for who does not see it: other blocks are such
    svg.setAttribute("role", stack.blocks.length > 1 ? "group" : "img");
    this.arcs = [];
    this.number = this.count = this.dot = null;
    if (!stack.blocks.length) return this.buildPlain();
    // from left to right: layers, block, layers, block, layers
    /** @type {{ kind: "stack" | "block", a: number, b: number, i: number }[]} */
    const parts = [];
    let next = 0;
    stack.blocks.forEach(([a, b], i) => {
      if (a > next) parts.push({ kind: "stack", a: next, b: a - 1, i });
      parts.push({ kind: "block", a, b, i });
      next = b + 1;
    });
    if (next < stack.layers) parts.push({ kind: "stack", a: next, b: stack.layers - 1, i: -1 });
    const others = parts.filter((part) => !(part.kind === "block" && part.i === block));
    const gap = others.length > 4 ? 6 : 14;
    const taken = others.reduce((sum, part) => sum + (part.kind === "stack" ? STACK : 2 * SMALL) + gap, 0);
    const radius = Math.max(CORE + 12, Math.min(LARGEST, (WIDE - 36 - taken) / 2));
    const whole = taken + 2 * radius;
    const scale = Math.min(1, (WIDE - 28) / whole);
    const all = draw("g", { transform: `translate(${short((WIDE - whole * scale) / 2)} ${short(MIDDLE * (1 - scale))}) scale(${short(scale)})` });
    all.append(draw("line", { class: "lv-ring-way", x1: -13, x2: whole + 9, y1: MIDDLE, y2: MIDDLE }));
    all.append(draw("path", { class: "lv-ring-tip", d: `M${short(whole + 7)} ${MIDDLE - 4}l7 4l-7 4z` }));
    let x = 0;
    for (const part of parts) {
      if (part.kind === "stack") {
        all.append(this.layers(x, part.a, part.b));
        x += STACK + gap;
      } else if (part.i === block) {
        this.centre = x + radius;
        all.append(this.winding(x + radius, radius, part.a, part.b));
        x += 2 * radius + gap;
      } else {
        all.append(this.small(x + SMALL, part, loops[part.i] ?? 0));
        x += 2 * SMALL + gap;
      }
    }
    svg.append(all);
  }

  /** A model that does not loop: its layers, once. */
  buildPlain() {
    const { stack, svg } = this;
    svg.append(draw("line", { class: "lv-ring-way", x1: 30, x2: WIDE - 32, y1: MIDDLE, y2: MIDDLE }));
    svg.append(draw("path", { class: "lv-ring-tip", d: `M${WIDE - 34} ${MIDDLE - 4}l7 4l-7 4z` }));
    svg.append(this.layers((WIDE - STACK) / 2, 0, stack.layers - 1));
  }

  /** @param {number} a @param {number} b */
  named(a, b) {
    return fill(this.texts[a === b ? "live.hero.layer" : "live.hero.layers"], { a, b });
  }

  /**
   * A stack of layers that a word goes through once.
   * @param {number} x
   * @param {number} a
   * @param {number} b
   */
  layers(x, a, b) {
    const group = draw("g", {});
    const count = Math.min(b - a + 1, MOST_BARS);
    const high = 9 * count - 3;
    group.append(draw("rect", { class: "lv-ring-back", x: x - 3, y: short(MIDDLE - high / 2 - 4), width: STACK + 6, height: high + 8, rx: 5 }));
    for (let i = 0; i < count; i += 1) {
      group.append(draw("rect", { class: "lv-ring-layer", x, y: short(MIDDLE - high / 2 + 9 * i), width: STACK, height: 6, rx: 2.5 }));
    }
    group.append(draw("title", {}, this.named(a, b)));
    group.append(draw("text", { class: "lv-ring-label", x: x + STACK / 2, y: MIDDLE + high / 2 + 19 }, a === b ? String(a) : `${a}–${b}`));
    return group;
  }

  /**
   * A block that is not looked at, with its loops; a press looks at it.
   * @param {number} x
   * @param {{ a: number, b: number, i: number }} part
   * @param {number} loops
   */
  small(x, { a, b, i }, loops) {
    const said = fill(this.texts["live.hero.block"], { block: i, a, b, n: loops });
    const group = draw("g", { class: "lv-ring-other", role: "button", tabindex: 0, "aria-label": said });
    group.append(draw("title", {}, said));
    group.append(draw("circle", { cx: x, cy: MIDDLE, r: SMALL, style: `stroke: ${this.colour(loops)}` }));
    group.append(draw("text", { class: "lv-ring-label", x, y: MIDDLE + 4.5 }, String(loops)));
    const look = () => this.page.look({ block: i, step: null });
    group.addEventListener("click", look);
    group.addEventListener("keydown", (event) => {
      if (!(event instanceof KeyboardEvent) || (event.key !== "Enter" && event.key !== " ")) return;
      event.preventDefault();
      look();
    });
    return group;
  }

  /**
   * The block looked at: a turn a loop, from the core outwards.
   * @param {number} x
   * @param {number} radius
   * @param {number} a
   * @param {number} b
   */
  winding(x, radius, a, b) {
    const group = draw("g", {});
    const { turns } = this;
    this.thick = Math.min(THICKEST, (radius - CORE) / Math.max(turns, 3));
    const ground = CORE + this.thick * Math.max(turns, 1);
    group.append(draw("circle", { class: "lv-ring-ground", cx: x, cy: MIDDLE, r: short(ground + 4) }));
    if (!turns) group.append(draw("path", { class: "lv-ring-turn lv-ring-none", d: this.turn(x, CORE + 8), "stroke-width": 2 }));
    for (let r = 1; r <= turns; r += 1) {
      const wide = this.thick > 3 ? this.thick - 1.6 : this.thick;
      const at = CORE + this.thick * (r - 0.5);
      group.append(draw("path", { class: "lv-ring-track", d: this.turn(x, at), "stroke-width": short(wide) }));
      const arc = draw("path", { class: "lv-ring-turn", d: this.turn(x, at), "stroke-width": short(wide), pathLength: 1, style: `stroke: ${this.colour(r)}` });
      this.arcs.push(arc);
      group.append(arc);
    }
    group.append(draw("line", { class: "lv-ring-way", x1: short(x - radius - 12), x2: x - CORE + 4, y1: MIDDLE, y2: MIDDLE }));
    this.number = draw("text", { class: "lv-ring-number", x, y: MIDDLE + 3 });
    this.count = draw("text", { class: "lv-ring-count", x, y: MIDDLE + 17 });
    this.dot = draw("circle", { class: "lv-ring-dot", r: 5.5 });
    group.append(this.number, this.count, this.dot);
    group.append(draw("text", { class: "lv-ring-label", x, y: short(MIDDLE + ground + 18) }, this.named(a, b)));
    return group;
  }

  /** A turn from where the word comes in, round by the right, and back. @param {number} x @param {number} radius */
  turn(x, radius) {
    const [dx, dy] = [radius * Math.cos(GAP), radius * Math.sin(GAP)].map(short);
    return `M${short(x - Number(dx))} ${short(MIDDLE - Number(dy))}A${short(radius)} ${short(radius)} 0 1 1 ${short(x - Number(dx))} ${short(MIDDLE + Number(dy))}`;
  }

  /** The colour of a word of so many loops; of a number that no word took, that of the next one. @param {number} loops */
  colour(loops) {
    return this.page.palette.slice(Math.max(0, loops - 1)).find(Boolean) ?? "var(--lv-line)";
  }

  // --- where the word is ---------------------------------------------------------------------------------------------

  /** At rest: after the step that is pointed at, else after the last. */
  rest() {
    const { step } = this.page.focus;
    this.place(step === null ? this.turns : Math.min(step, this.turns));
    this.say(step === null ? this.turns : Math.min(step, this.turns));
  }

  /** The word after so many turns, and parts of one. @param {number} gone */
  place(gone) {
    const { turns, dot, arcs } = this;
    if (!dot) return;
    arcs.forEach((arc, i) => arc.setAttribute("stroke-dasharray", `${short(Math.min(1, Math.max(0, gone - i)) * 1.001)} 2`));
    const whole = Math.min(Math.floor(gone), Math.max(turns - 1, 0));
    const part = Math.min(1, gone - whole);
    const angle = Math.PI + GAP + part * (2 * Math.PI - 2 * GAP);
    const radius = turns ? CORE + this.thick * (whole + 0.5) : CORE + 8;
    dot.setAttribute("cx", short(this.centre + radius * Math.cos(angle)));
    dot.setAttribute("cy", short(MIDDLE + radius * Math.sin(angle)));
    dot.setAttribute("display", turns ? "inline" : "none");
  }

  /** Say which loop it is in, in the core and to those who do not see it. @param {number} step */
  say(step) {
    const { texts, turns, stack, hero } = this;
    if (!texts || !stack) return;
    const word = bare(this.word);
    if (!stack.blocks.length) {
      this.svg.setAttribute("aria-label", fill(texts["live.hero.plain"], { word, layers: stack.layers }));
      this.under.textContent = texts["live.plain"];
      return;
    }
    if (!this.number) return; // another model's blocks: the ring is drawn anew in a moment
    this.number.textContent = String(step);
    this.count.textContent = turns ? fill(texts["live.hero.of"], { n: turns }) : "";
    this.svg.setAttribute("aria-label", fill(texts[turns ? "live.hero.ring" : "live.hero.skipped"], { word, step, n: turns }));
    this.under.textContent = this.change(hero, step);
  }

  /** How much the loops changed, from the first to this one; and which layers ran where not all did. @param {Hero} hero @param {number} step */
  change(hero, step) {
    const { texts } = this;
    if (!this.turns) return fill(texts["live.hero.skipped"], { word: bare(this.word) });
    const cell = hero.steps.length ? hero.steps.indexOf(step) : step - 1;
    const [first, last] = [hero.moved[0], hero.moved[cell]];
    const ran = hero.ran[cell]?.length ? ` · ${fill(texts["live.hero.ran"], { layers: hero.ran[cell].join(", ") })}` : "";
    if (last == null) return ran.slice(3);
    if (cell === 0 || first == null) return fill(texts[`live.hero.moved.one.${hero.measure}`], { last }) + ran;
    return fill(texts[`live.hero.moved.${hero.measure}`], { first, last }) + ran;
  }

  // --- motion --------------------------------------------------------------------------------------------------------

  stop() {
    if (this.frame) {
      cancelAnimationFrame(this.frame);
      this.at(0);
    }
    this.frame = 0;
  }

  /** Go round once a loop, from the first; in `all` milliseconds. Who wants no motion sees where it ends. @param {number} [all] */
  play(all = Math.min(MOST_MS, TURN_MS * this.turns)) {
    const { turns } = this;
    this.stop();
    if (!turns || this.calm.matches || document.hidden || this.page.focus.step !== null) return this.rest();
    const jumps = all / turns < LEAST_MS;
    const begun = performance.now();
    let step = 0;
    const next = () => {
      const gone = Math.min(turns, ((performance.now() - begun) / all) * turns);
      const now = Math.min(turns, Math.floor(gone) + 1);
      if (now !== step) {
        step = now;
        this.say(step);
        this.at(step);
      }
      this.place(jumps ? step : gone);
      this.frame = gone < turns ? requestAnimationFrame(next) : 0;
      if (!this.frame) this.at(0);
    };
    this.frame = requestAnimationFrame(next);
  }
}
