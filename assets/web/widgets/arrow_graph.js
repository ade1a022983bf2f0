// The arrow playground: a problem of "follow the arrows" as a graph to draw in, and a run of it as a token that goes where the
// model's guess was after each loop. It knows no page: `set` brings a prompt, `show` a run's guesses, `select` a loop; it tells of
// a prompt that was drawn (`onChange`), a loop that was chosen (`onSelect`) and loops allowed (`onBound`).

import { el, fill, name, press } from "../core/dom.js";
import { filled, letters, moves, outside, parse, puzzle, walk, write } from "./arrow_problem.js";

/** @import { Arrow, Move, Problem, Task, Word } from "./arrow_problem.js" */
/** @typedef {{ text: string, p: number | null }} Guess a word, and its probability */
/**
 * A run: which one, its prompt, and of the word that asks the likeliest next word after each loop, straight from its state; and what
 * the model said in the end, by all of its layers. These may differ: what comes after the loop can go on from where its state stands.
 * @typedef {{ id: string, prompt: string, guesses: Guess[], said: Guess }} Told
 */
/** @typedef {{ low: number, high: number, value: number }} Bound how many loops there may be */
/** @typedef {[number, number]} Point */

const SVG = "http://www.w3.org/2000/svg";
const SIZE = 380;
const [AROUND, NODE, HEAD] = [158, 17, 8]; // radius of the circle, radius of a node, length of an arrow's head
const REACH = 27; // from a node's middle: there it is meant
const BEND = { arrow: 0.11, jump: -0.24 }; // of the length: an arrow there and one back lie apart, and a jump lies on neither
// Between near nodes lines bend to the inside instead, away from the nodes they pass, by how many nodes on: there, and back.
/** @type {Record<number, Point>} */
const INSIDE = { 1: [6, 26], 2: [30, 50], 3: [14, 34] };
const FURTHER = 40; // and a jump by so much more
const ASIDE = 17; // of the number of a loop, where its arrow is no longer than that number
const LOOP_MS = 900; // from one loop to the next, at reading pace
const LONGEST_MS = 10_000; // for all of them: of many each is shorter
const MOVING = 0.5; // of that it is on its way
const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Of all graphs on a page: their instructions have ids. */
let count = 0;

/**
 * An element of a picture.
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 * @returns {SVGGElement}
 */
function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return /** @type {any} */ (node);
}

/** @type {(p: number | null) => string} */
const percent = (p) => (p === null ? "" : `${Math.round(100 * p)} %`);

export class ArrowGraph {
  /** @type {Record<string, string> | null} */
  texts = null;
  /** @type {Problem} what is drawn */
  problem = { arrows: [], start: null };
  /** @type {Word | null} why the prompt is no graph: what is drawn is an earlier one */
  wrong = null;
  /** @type {{ word: Word, bad: boolean } | null} what came of the last thing that was done */
  told = null;
  /** @type {Told | null} the run */
  run = null;
  /** @type {Move[]} what its guesses did, where it is a run of what is drawn */
  moves = [];
  /** @type {number} the loop after which the token stands; 0: at the start */
  step = 0;
  /** @type {boolean} whether the token has been at the last loop */
  seen = false;
  /** @type {number | null} until the next loop */
  timer = null;
  /** @type {object | null} the way that the token is on */
  way = null;
  /** @type {string | null} the node an arrow is being drawn from */
  from = null;
  /** @type {boolean} whether that is by the keyboard */
  typing = false;
  /** @type {string} the node that Tab leads to */
  at = "a";
  /** @type {Record<string, string>} by part, of what it was made last */
  made = {};

  /**
   * @param {{ task: Task, onChange?: (prompt: string) => void, onSelect?: (step: number) => void, onBound?: (loops: number) => void }} options
   */
  constructor({ task, onChange = () => {}, onSelect = () => {}, onBound = null }) {
    this.task = task;
    this.onChange = onChange;
    this.onSelect = onSelect;
    this.onBound = onBound;
    this.names = letters(task.nodes);
    this.id = `lv-arrows-${(count += 1)}`;
    this.picture();
    this.hint = el("p", "lv-arrows-hint");
    this.hint.id = this.id;
    this.said = el("p", "lv-arrows-said");
    this.said.setAttribute("role", "status");
    this.asked = el("p", "lv-arrows-asked");
    this.tools = el("div", "lv-arrows-tools");
    this.another = press("lv-quiet", () => this.changed(puzzle(task)));
    this.fill = press("lv-quiet", () => this.changed(filled(this.problem, task)));
    this.clear = press("lv-quiet", () => this.changed({ arrows: [], start: null }));
    this.tools.append(this.another, this.fill, this.clear);
    this.outside = el("div", "lv-arrows-outside");
    this.slider();
    this.legend = el("p", "lv-arrows-legend");
    this.legend.id = `${this.id}-hops`;
    this.hops = el("ol", "lv-arrows-hops");
    this.hops.setAttribute("aria-labelledby", this.legend.id);
    this.answer = el("p", "lv-arrows-answer");
    this.again = press("lv-quiet lv-arrows-again", () => this.play());
    this.verdict = el("p", "lv-arrows-verdict");
    this.verdict.setAttribute("role", "status");
    this.listed = el("p", "lv-arrows-listed");
    this.list = el("ul", "lv-arrows-list");
    const run = el("div", "lv-arrows-run", this.bounding, this.legend, this.hops, this.answer, this.verdict, this.again);
    const side = el("div", "lv-arrows-side", this.asked, this.tools, this.said, this.outside, run, this.listed, this.list);
    this.node = el("div", "lv-arrows", el("div", "lv-arrows-picture", /** @type {any} */ (this.svg), this.hint), side);
  }

  // --- what is told to it ------------------------------------------------------------------------------------------

  /** Its words, again whenever they change: `arrows.` of loopviz/app/texts/arrows.py. @param {Record<string, string>} texts */
  label(texts) {
    this.texts = texts;
    this.made = {};
    this.svg.setAttribute("aria-label", texts["arrows.graph"]);
    this.hint.replaceChildren(texts["arrows.hint"], " ", el("span", "lv-arrows-keys", texts["arrows.keys"]));
    this.another.textContent = texts["arrows.puzzle"];
    this.fill.textContent = fill(texts["arrows.fill"], { trained: this.task.arrows });
    this.clear.textContent = texts["arrows.clear"];
    this.again.textContent = texts["arrows.again"];
    this.legend.textContent = texts["arrows.hops"];
    this.show(this.run);
  }

  /** A prompt to draw; whether it is a graph. One that is none leaves what is drawn. @param {string} prompt */
  set(prompt) {
    const { problem, wrong } = parse(prompt, this.task);
    if (problem && !this.wrong && write(problem) === write(this.problem)) return true;
    this.from = this.told = null;
    this.wrong = wrong ?? null;
    if (problem) this.problem = problem;
    this.show(this.run);
    return !wrong;
  }

  /** A run to show; of another problem than the one drawn nothing is shown. @param {Told | null} run */
  show(run) {
    const other = JSON.stringify(run) !== JSON.stringify(this.run);
    this.run = run;
    const drawn = run && parse(run.prompt, this.task).problem;
    const fits = drawn && drawn.start !== null && !this.wrong && write(drawn) === write(this.problem);
    const shown = this.moves.length > 0;
    this.moves = fits ? moves(drawn.arrows, drawn.start, run.guesses.map(({ text }) => text), this.task) : [];
    if (this.moves.length && (other || !shown)) this.play();
    else if (!this.moves.length) this.rest();
    this.step = Math.min(this.step, this.moves.length);
    this.paint();
  }

  /** The loop that is selected elsewhere; none: the last. @param {number | null} step */
  select(step) {
    if (!this.moves.length || (step === null && this.timer !== null)) return;
    this.rest();
    this.go(Math.min(step ?? this.moves.length, this.moves.length));
  }

  /** How many loops there may be; null: that is not to be set here. @param {Bound | null} bound */
  bound(bound) {
    this.bounding.hidden = !bound || !this.onBound;
    if (!bound) return;
    Object.assign(this.range, { min: String(bound.low), max: String(bound.high) });
    if (document.activeElement !== this.range || this.range.value !== String(bound.value)) this.range.value = String(bound.value);
    this.sayBound();
  }

  // --- what is done here -------------------------------------------------------------------------------------------

  /**
   * Another problem is drawn, by the visitor.
   * @param {Problem} problem
   * @param {Word | null} word what is said of it
   */
  changed(problem, word = null) {
    this.problem = problem;
    this.wrong = this.from = null;
    this.told = word && { word, bad: false };
    this.show(this.run);
    this.onChange(write(problem));
  }

  /** @param {string} key @param {Record<string, string | number>} values */
  tell(key, values, bad = false) {
    this.told = { word: { key, values }, bad };
    this.paint();
  }

  /**
   * Draw an arrow; one that is there goes, and a second one from a node is refused.
   * @param {string} from
   * @param {string} to
   */
  connect(from, to) {
    this.from = null;
    const earlier = this.problem.arrows.find(([node]) => node === from);
    if (earlier?.[1] === to) return this.remove(from);
    if (earlier) return this.tell("refused", { from, first: earlier[1], second: to }, true);
    return this.changed({ ...this.problem, arrows: [...this.problem.arrows, [from, to]] }, { key: "added", values: { from, to } });
  }

  /** @param {string} from */
  remove(from) {
    const gone = this.problem.arrows.find(([node]) => node === from);
    if (!gone) return this.tell("nothing", { from });
    const arrows = this.problem.arrows.filter((arrow) => arrow !== gone);
    return this.changed({ ...this.problem, arrows }, { key: "removed", values: { from, to: gone[1] } });
  }

  /** Ask about a node; asked about already it is let go of. @param {string} node */
  ask(node) {
    const start = this.problem.start === node ? null : node;
    this.changed({ ...this.problem, start }, start === null ? null : { key: "chosen", values: { start } });
  }

  // --- the picture -------------------------------------------------------------------------------------------------

  picture() {
    this.lines = draw("g", { "aria-hidden": "true" });
    this.ways = draw("g", { "aria-hidden": "true" });
    this.ghost = draw("path", { class: "lv-arrows-ghost", "aria-hidden": "true" });
    this.token = draw("circle", { class: "lv-arrows-token", r: NODE + 5, "aria-hidden": "true" });
    /** @type {Map<string, SVGGElement>} */
    this.nodes = new Map(this.names.map((node) => [node, this.knot(node)]));
    const shown = [this.lines, this.ways, this.ghost, ...this.nodes.values(), this.token];
    this.svg = draw("svg", { class: "lv-arrows-svg", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-describedby": this.id }, ...shown);
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
    const [x, y] = this.place(node);
    const flag = draw("text", { class: "lv-arrows-flag", x: x + NODE + 5, y: y - NODE - 2 }, "⚑");
    const shape = draw("circle", { cx: x, cy: y, r: NODE });
    const made = draw("g", { class: "lv-arrows-node", role: "button", tabindex: -1, "data-node": node }, shape, draw("text", { x, y }, node), flag);
    made.addEventListener("focus", () => (this.at = node));
    made.addEventListener("click", (event) => {
      if (/** @type {MouseEvent} */ (event).detail === 0) this.enter(node); // by a screen reader
    });
    return made;
  }

  /** @param {string} node @returns {Point} */
  place(node) {
    const turn = (2 * Math.PI * this.names.indexOf(node)) / this.names.length - Math.PI / 2;
    return [SIZE / 2 + AROUND * Math.cos(turn), SIZE / 2 + AROUND * Math.sin(turn)];
  }

  /** How many nodes on a node is from another, the shorter way round: clockwise above 0. @param {string} from @param {string} to */
  steps(from, to) {
    const { names } = this;
    const on = (names.indexOf(to) - names.indexOf(from) + names.length) % names.length;
    return on > names.length / 2 ? on - names.length : on;
  }

  /**
   * From the middle between two nodes towards the middle of the picture.
   * @param {Point} from
   * @param {number} by
   * @returns {Point}
   */
  inward([x, y], by) {
    const [dx, dy] = [SIZE / 2 - x, SIZE / 2 - y];
    return [x + (by * dx) / Math.hypot(dx, dy), y + (by * dy) / Math.hypot(dx, dy)];
  }

  /**
   * What a line between two nodes is bent towards.
   * @param {string} from
   * @param {string} to
   * @param {"arrow" | "jump"} kind
   * @returns {Point}
   */
  bent(from, to, kind) {
    const [[ax, ay], [bx, by]] = [this.place(from), this.place(to)];
    /** @type {Point} */
    const between = [(ax + bx) / 2, (ay + by) / 2];
    const steps = this.steps(from, to);
    const near = INSIDE[Math.abs(steps)];
    if (near) return this.inward(between, near[steps > 0 ? 0 : 1] + (kind === "jump" ? FURTHER : 0));
    return [between[0] - BEND[kind] * (by - ay), between[1] + BEND[kind] * (bx - ax)];
  }

  /**
   * The line from a node to a node: its path, where its number stands, and its head.
   * @param {string} from
   * @param {string} to
   * @param {"arrow" | "jump"} kind
   */
  line(from, to, kind = "arrow") {
    const [[ax, ay], [bx, by]] = [this.place(from), this.place(to)];
    const [cx, cy] = this.bent(from, to, kind);
    /** @type {(x: number, y: number) => Point} */
    const unit = (x, y) => [x / Math.hypot(x, y), y / Math.hypot(x, y)];
    const [[ux, uy], [vx, vy]] = [unit(cx - ax, cy - ay), unit(bx - cx, by - cy)];
    const [sx, sy] = [ax + NODE * ux, ay + NODE * uy];
    const [tx, ty] = [bx - (NODE + 2) * vx, by - (NODE + 2) * vy];
    const [hx, hy] = [tx - HEAD * vx, ty - HEAD * vy];
    const wing = 0.55 * HEAD;
    const head = `${tx},${ty} ${hx - wing * vy},${hy + wing * vx} ${hx + wing * vy},${hy - wing * vx}`;
    /** @type {Point} */
    const on = [(sx + 2 * cx + hx) / 4, (sy + 2 * cy + hy) / 4];
    const middle = Math.abs(this.steps(from, to)) === 1 ? this.inward(on, ASIDE) : on;
    return { path: `M${sx},${sy} Q${cx},${cy} ${hx},${hy}`, whole: `M${ax},${ay} Q${cx},${cy} ${bx},${by}`, middle, head };
  }

  /** The arrow from a node to a node. @param {Arrow} arrow */
  arrow([from, to]) {
    const { path, head } = this.line(from, to);
    const hit = draw("path", { class: "lv-arrows-hit", d: path });
    hit.addEventListener("click", () => this.remove(from));
    return draw("g", { class: "lv-arrows-arrow", "data-arrow": `${from}>${to}` }, draw("path", { d: path }), draw("polygon", { points: head }), hit);
  }

  /**
   * What a loop's guess did, drawn: an arrow lit up, or a jump, dashed.
   * @param {Move} move
   * @param {number} i
   */
  lit({ from, node, kind }, i) {
    const { path, head, middle } = this.line(from, node, kind === "jump" ? "jump" : "arrow");
    const badge = draw("g", { class: "lv-arrows-loop" }, draw("circle", { cx: middle[0], cy: middle[1], r: 9.5 }), draw("text", { x: middle[0], y: middle[1] }, String(i + 1)));
    return draw("g", { class: `lv-arrows-move lv-arrows-${kind}`, "data-loop": i + 1 }, draw("path", { d: path }), draw("polygon", { points: head }), badge);
  }

  /**
   * Make a part anew where that of which it is made has changed: else whoever is in it would be put out, and told it again.
   * @param {string} part
   * @param {unknown} of
   * @param {() => void} make
   */
  anew(part, of, make) {
    const now = JSON.stringify(of);
    if (this.made[part] === now) return;
    this.made[part] = now;
    make();
  }

  /** Everything as it is now. */
  paint() {
    const { problem, texts } = this;
    if (!texts) return;
    this.node.classList.toggle("lv-arrows-old", this.wrong !== null);
    this.anew("lines", problem.arrows, () => this.lines.replaceChildren(...problem.arrows.map((arrow) => this.arrow(arrow))));
    const passed = this.moves.slice(0, this.step);
    this.anew("ways", passed, () => {
      const drawn = passed.map((move, i) => (move.kind === "hop" || move.kind === "jump" ? this.lit(move, i) : null));
      this.ways.replaceChildren(...drawn.filter((one) => one !== null));
    });
    this.paintNodes();
    this.paintToken();
    this.paintWords();
    this.paintRun();
    this.anew("list", problem.arrows, () => this.paintList());
  }

  paintNodes() {
    const { problem, texts } = this;
    const leads = new Map(problem.arrows);
    const end = this.seen && problem.start !== null ? walk(problem.arrows, problem.start).end : null;
    for (const [node, knot] of this.nodes) {
      const start = node === problem.start;
      knot.classList.toggle("lv-start", start);
      knot.classList.toggle("lv-from", node === this.from);
      knot.classList.toggle("lv-end", node === end);
      knot.setAttribute("tabindex", node === this.at ? "0" : "-1");
      knot.children[1].textContent = start ? `${node}?` : node;
      const says = [fill(texts[leads.has(node) ? "arrows.node" : "arrows.node.none"], { node, to: leads.get(node) })];
      if (start) says.push(texts["arrows.node.start"]);
      if (node === end) says.push(texts["arrows.node.end"]);
      knot.setAttribute("aria-label", says.join(""));
      knot.setAttribute("aria-pressed", String(start));
    }
    if (this.from === null || this.typing) this.ghost.setAttribute("d", "");
  }

  paintToken() {
    const node = this.standing(this.step);
    this.token.classList.toggle("lv-arrows-gone", !this.moves.length || node === null);
    if (node === null || this.way) return; // it is on its way
    this.put(this.place(node));
  }

  /** @param {Point} point */
  put([x, y]) {
    this.token.setAttribute("cx", String(x));
    this.token.setAttribute("cy", String(y));
  }

  /** Where the token stands after so many loops. @param {number} step */
  standing(step) {
    if (!step || !this.moves.length) return this.problem.start;
    const { node, from } = this.moves[step - 1];
    return node ?? from;
  }

  paintWords() {
    const { problem, task, texts, wrong } = this;
    const { word, bad } = wrong ? { word: wrong, bad: true } : (this.told ?? { word: null, bad: false });
    const says = word ? fill(texts[`arrows.${word.key}`], word.values) : "";
    this.anew("said", [says, wrong], () => (this.said.textContent = wrong ? `${texts["arrows.wrong"]} ${says}` : says));
    this.said.classList.toggle("lv-bad", bad);
    this.asked.textContent = problem.start === null ? texts["arrows.unasked"] : fill(texts["arrows.asked"], { start: problem.start });
    this.fill.disabled = problem.arrows.length >= task.arrows;
    this.clear.disabled = !problem.arrows.length && problem.start === null;
    const found = problem.arrows.length ? outside(problem, task) : [];
    this.anew("outside", found, () => {
      const words = found.map(({ key, values }) => el("li", "", fill(texts[`arrows.${key}`], values)));
      this.outside.replaceChildren(...(words.length ? [el("p", "", texts["arrows.outside"]), el("ul", "", ...words)] : []));
    });
  }

  paintRun() {
    const { moves: made, run, texts } = this;
    this.again.hidden = this.hops.hidden = this.legend.hidden = !made.length;
    this.anew("hops", [made, made.length && run.guesses], () => this.hops.replaceChildren(...made.map((move, i) => el("li", "", this.hop(move, i, run.guesses[i])))));
    for (const chip of this.hops.querySelectorAll("button")) chip.setAttribute("aria-pressed", String(chip.dataset.loop === String(this.step)));
    const { text, p } = run?.said ?? { text: "", p: null };
    this.answer.textContent = this.seen && made.length ? fill(texts["arrows.said"], { said: text.trim(), p: percent(p) }) : "";
    const stale = !made.length && run && !this.wrong && this.problem.start !== null;
    const says = this.seen && made.length ? this.judged() : { kind: "waiting", sign: "", words: stale ? texts["arrows.stale"] : "" };
    this.anew("verdict", says, () => {
      this.verdict.className = `lv-arrows-verdict lv-arrows-${says.kind}`;
      const sign = says.sign ? el("b", "", says.sign) : null;
      sign?.setAttribute("aria-hidden", "true"); // the words say it too
      this.verdict.replaceChildren(...(sign ? [sign] : []), ...(says.words ? [el("span", "", says.words)] : []));
    });
  }

  /**
   * A loop in the list: which one, what it says, what that is to the arrows.
   * @param {Move} move
   * @param {number} i
   * @param {Guess} guess
   */
  hop({ kind, from, node }, i, { text, p }) {
    const says = node ?? text.trim();
    const made = press(`lv-chip lv-arrows-${kind}`, () => this.chosen(i + 1), el("span", "", `↻${i + 1}`), ` ${says}`, el("small", "", ` ${percent(p)}`));
    made.dataset.loop = String(i + 1);
    name(made, fill(this.texts[`arrows.move.${kind}`], { loop: i + 1, from, node: says, p: percent(p) }));
    return made;
  }

  /** What came of it: the last guess beside where the arrows end. */
  judged() {
    const { arrows, start } = this.problem;
    const { path, end, back } = walk(arrows, start);
    const loops = this.moves.length;
    const said = this.run.said.text.trim();
    const stands = this.standing(loops);
    const values = { start, end, said, stands, loops, p: percent(this.run.said.p), hops: path.length - 1, way: path.join(" → ") };
    if (end === null) {
      const circle = path.slice(path.indexOf(back));
      const before = path.length - circle.length;
      const there = loops < path.length ? path[loops] : circle[(loops - before) % circle.length];
      return { kind: "endless", sign: "∞", words: fill(this.texts["arrows.endless"], { ...values, there, way: [...path, back].join(" → ") }) };
    }
    // how far the loop itself had come; the layers after it may have gone on
    const done = path.indexOf(stands);
    const short = done >= 0 && done < path.length - 1;
    const more = short ? ` ${fill(this.texts[said === stands ? "arrows.short" : "arrows.ahead"], { ...values, done })}` : "";
    const right = said === end;
    return { kind: right ? "right" : "wrong", sign: right ? "✓" : "✗", words: fill(this.texts[right ? "arrows.right" : "arrows.wrong_end"], values) + more };
  }

  paintList() {
    const { problem, texts } = this;
    const held = /** @type {HTMLElement | null} */ (this.list.contains(document.activeElement) ? document.activeElement : null)?.dataset.arrow;
    const place = held === undefined ? -1 : [...this.list.querySelectorAll("button")].findIndex((button) => button.dataset.arrow === held);
    this.listed.textContent = fill(texts["arrows.list"], { n: problem.arrows.length });
    const rows = problem.arrows.map(([from, to]) => {
      const made = press("lv-chip", () => this.remove(from), `${from} → ${to}`, el("small", "", " ×"));
      made.dataset.arrow = `${from}>${to}`;
      name(made, fill(texts["arrows.remove"], { from, to }));
      return el("li", "", made);
    });
    this.list.replaceChildren(...rows);
    // whoever removes one by the keyboard stays in the list
    if (place >= 0) (this.list.querySelectorAll("button")[Math.min(place, rows.length - 1)] ?? this.nodes.get(this.at)).focus();
  }

  slider() {
    this.range = el("input");
    this.range.type = "range";
    this.range.step = "1";
    this.bounds = el("span");
    this.bounding = el("label", "lv-arrows-bound", this.bounds, this.range);
    this.bounding.hidden = true;
    this.range.addEventListener("input", () => this.sayBound());
    this.range.addEventListener("change", () => this.onBound?.(Number(this.range.value)));
  }

  sayBound() {
    if (this.texts) this.bounds.textContent = fill(this.texts["arrows.bound"], { n: this.range.value });
  }

  // --- a run, loop by loop -----------------------------------------------------------------------------------------

  /** A loop of the list was pressed. @param {number} step */
  chosen(step) {
    this.select(step);
    this.onSelect(step);
  }

  /** Milliseconds for a loop. */
  get pace() {
    return Math.min(LOOP_MS, LONGEST_MS / this.moves.length);
  }

  /** From the start on, a loop after the other. */
  play() {
    this.rest();
    this.seen = false;
    if (calm()) return this.go(this.moves.length);
    this.step = 0;
    this.paint();
    const next = () => {
      this.timer = null;
      if (this.step >= this.moves.length) return;
      this.go(this.step + 1);
      this.timer = window.setTimeout(next, this.pace);
    };
    this.timer = window.setTimeout(next, this.pace);
  }

  /** The token stays where it is. */
  rest() {
    clearTimeout(this.timer);
    this.timer = null;
    this.way = null;
    if (!this.moves.length) [this.step, this.seen] = [0, false];
  }

  /** The token goes to where the guess was after so many loops. @param {number} step */
  go(step) {
    const [before, move] = [this.step, this.moves[step - 1]];
    this.step = step;
    if (step === this.moves.length) this.seen = true;
    const moving = move && step === before + 1 && (move.kind === "hop" || move.kind === "jump") && !calm();
    this.way = moving ? {} : null;
    this.paint();
    if (moving) this.travel(move, this.way, performance.now());
  }

  /**
   * Along the line of its move, a picture a frame.
   * @param {Move} move
   * @param {object} way
   * @param {number} since
   */
  travel({ from, node, kind }, way, since) {
    const path = /** @type {SVGPathElement} */ (/** @type {unknown} */ (draw("path", { d: this.line(from, node, kind === "jump" ? "jump" : "arrow").whole })));
    const length = path.getTotalLength();
    const on = () => {
      if (way !== this.way) return;
      const share = Math.min(1, (performance.now() - since) / (MOVING * this.pace));
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
    const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(/** @type {any} */ (this.svg).getScreenCTM().inverse());
    return [x, y];
  }

  /** The node at a place, if there is one. @param {Point} point */
  near([x, y]) {
    return this.names.find((node) => {
      const [nx, ny] = this.place(node);
      return Math.hypot(nx - x, ny - y) <= REACH;
    });
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
    this.told = null;
    this.paint();
    knot.focus({ preventScroll: true });
  }

  /** @param {PointerEvent} event */
  drag(event) {
    if (this.from === null || this.typing) return;
    const to = this.near(this.point(event));
    const [[ax, ay], [x, y]] = [this.place(this.from), to ? this.place(to) : this.point(event)];
    this.ghost.setAttribute("d", to === this.from ? "" : `M${ax},${ay} L${x},${y}`);
  }

  /** @param {PointerEvent} event */
  drop(event) {
    if (this.from === null || this.typing) return;
    const [from, to] = [this.from, this.near(this.point(event))];
    if (to === from) {
      this.from = null;
      this.ask(from);
    } else if (to) this.connect(from, to);
    else this.letGo();
  }

  letGo() {
    this.from = null;
    this.paint();
  }

  // --- by keyboard -------------------------------------------------------------------------------------------------

  /** Enter: the arrow that was begun ends at this node; when none was, it is asked about. @param {string} node */
  enter(node) {
    if (this.from === null || !this.typing) this.ask(node);
    else if (this.from === node) this.tell("self", { node }, true);
    else this.connect(this.from, node);
  }

  /** Space: an arrow begins at this node, or ends at it. @param {string} node */
  begin(node) {
    if (this.from !== null && this.typing) return this.enter(node);
    [this.from, this.typing] = [node, true];
    return this.tell("begun", { from: node });
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
    else if (event.key === "Delete" || event.key === "Backspace") this.remove(at);
    else if (event.key === "Escape" && this.from !== null) {
      this.from = null;
      this.tell("dropped", {});
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
