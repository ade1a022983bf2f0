// The arrow playground: a problem of "follow the arrows" as a graph to draw in, and a run of it as a token that goes where the
// model's guess was after each loop. It knows no page: `set` brings a prompt, `show` a run's guesses, `select` a loop; it tells of
// a prompt that was drawn (`onChange`), a loop that was chosen (`onSelect`) and loops allowed (`onBound`).

import { el, fill, name, press, renewing } from "../core/dom.js";
import { ArrowPicture } from "./arrow_picture.js";
import { filled, letters, moves, outside, parse, puzzle, walk, write } from "./arrow_problem.js";

/** @import { Move, Problem, Task, Word } from "./arrow_problem.js" */
/** @typedef {[string, number | null]} Guess a word, and its probability */
/**
 * A run: which one, its prompt, and of the word that asks the likeliest next word after each loop, straight from its state; and what
 * the model said in the end, by all of its layers. These may differ: what comes after the loop can go on from where its state stands.
 * @typedef {{ id: string, prompt: string, guesses: Guess[], said: Guess }} Told
 */
/** @typedef {{ low: number, high: number, value: number }} Bound how many loops there may be */

const LOOP_MS = 900; // from one loop to the next, at reading pace
const LONGEST_MS = 10_000; // for all of them: of many each is shorter
const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Of all graphs on a page: their instructions have ids. */
let count = 0;

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
  /**
   * @param {{ task: Task, onChange?: (prompt: string) => void, onSelect?: (step: number) => void, onBound?: (loops: number) => void }} options
   */
  constructor({ task, onChange = () => {}, onSelect = () => {}, onBound = null }) {
    this.task = task;
    this.onChange = onChange;
    this.onSelect = onSelect;
    this.onBound = onBound;
    this.id = `lv-arrows-${(count += 1)}`;
    this.anew = renewing();
    this.picture = new ArrowPicture(letters(task.nodes), this.id, this);
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
    this.node = el("div", "lv-arrows", el("div", "lv-arrows-picture", this.picture.svg, this.hint), side);
  }

  // --- what is told to it ------------------------------------------------------------------------------------------

  /** Its words, again whenever they change: `arrows.` of loopviz/app/texts/arrows.py. @param {Record<string, string>} texts */
  label(texts) {
    this.texts = texts;
    this.anew = renewing();
    this.picture.svg.setAttribute("aria-label", texts["arrows.graph"]);
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
    this.picture.from = this.told = null;
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
    this.moves = fits ? moves(drawn.arrows, drawn.start, run.guesses.map(([text]) => text), this.task) : [];
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
    if (this.range.matches(":active")) return; // it is being moved
    this.range.value = String(bound.value);
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
    this.wrong = this.picture.from = null;
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
    this.picture.from = null;
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

  /** Something is begun in the picture: what was said of the last thing is old. */
  began() {
    this.told = null;
    this.paint();
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  /** Everything as it is now. */
  paint() {
    const { problem, texts } = this;
    if (!texts) return;
    this.node.classList.toggle("lv-arrows-old", this.wrong !== null);
    const passed = this.moves.slice(0, this.step);
    const end = this.seen && problem.start !== null ? walk(problem.arrows, problem.start).end : null;
    const token = this.moves.length ? this.standing(this.step) : null;
    this.picture.paint({ problem, passed, end, token, says: (node) => this.calls(node, end) });
    this.paintWords();
    this.paintRun();
    this.anew("list", problem.arrows, () => this.paintList());
  }

  /** What a node is, in words. @param {string} node @param {string | null} end */
  calls(node, end) {
    const { problem, texts } = this;
    const to = problem.arrows.find(([from]) => from === node)?.[1];
    const says = [fill(texts[to ? "arrows.node" : "arrows.node.none"], { node, to })];
    if (node === problem.start) says.push(texts["arrows.node.start"]);
    if (node === end) says.push(texts["arrows.node.end"]);
    return says.join("");
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
    const [text, p] = run?.said ?? ["", null];
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
  hop({ kind, from, node }, i, [text, p]) {
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
    const [text, p] = this.run.said;
    const said = text.trim();
    const stands = this.standing(loops);
    const values = { start, end, said, stands, loops, p: percent(p), hops: path.length - 1, way: path.join(" → ") };
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
    if (place >= 0) (this.list.querySelectorAll("button")[Math.min(place, rows.length - 1)] ?? this.picture.nodes.get(this.picture.at)).focus();
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
    this.picture.way = null;
    if (!this.moves.length) [this.step, this.seen] = [0, false];
  }

  /** The token goes to where the guess was after so many loops. @param {number} step */
  go(step) {
    const [before, move] = [this.step, this.moves[step - 1]];
    this.step = step;
    if (step === this.moves.length) this.seen = true;
    const moving = move && step === before + 1 && (move.kind === "hop" || move.kind === "jump") && !calm();
    this.picture.way = null;
    if (moving) this.picture.travel(move, this.pace);
    this.paint();
  }
}
