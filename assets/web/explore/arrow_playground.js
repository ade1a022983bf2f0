// The arrow playground on Explore: while the model that follows arrows is chosen, its prompt is a picture too. What is drawn is
// typed into the prompt, what is typed is drawn; a run's guesses are asked for once its question has been read.

import { ARROW_TASK, ELEMENTS } from "../core/contract.js";
import { el } from "../core/dom.js";

const LOOK_MS = 500; // between two looks at the control of loops, which others change too

/** @param {string} control @returns {HTMLInputElement | HTMLTextAreaElement | null} */
const field = (control, kind = "input") => document.querySelector(`#${ELEMENTS.control}${control} ${kind}`);

/** Type into a field of Gradio's. @param {HTMLInputElement | HTMLTextAreaElement | null} box @param {string} value */
function type(box, value) {
  if (!box) return;
  box.value = value;
  for (const kind of ["input", "change", "blur"]) box.dispatchEvent(new Event(kind, { bubbles: kind !== "blur" }));
}

export class Playground {
  /** @type {import("../widgets/arrow_graph.js").ArrowGraph | null} */
  graph = null;
  /** @type {boolean} whether its script is on its way */
  coming = false;
  /** @type {string | null} the run whose guesses were asked for last */
  asked = null;
  /** @type {string} what is selected, as it was told last */
  selected = "";

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2");
    this.hint = el("small");
    this.node = el("details", "lv-card lv-arrows-place", el("summary", "", this.title, this.hint));
    this.node.open = true;
    this.node.hidden = true;
    setInterval(() => this.bound(), LOOK_MS);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.title.textContent = texts["arrows.title"];
    this.hint.textContent = texts["arrows.title.hint"];
    this.graph?.label(texts);
  }

  /** Whether the model that is chosen follows arrows. */
  get wanted() {
    return (this.page.form.model ?? field("model")?.value.trim()) === ARROW_TASK.model;
  }

  /** The page has heard something: another model may be chosen, a run may have come further, something else be selected. */
  follow() {
    this.node.hidden = !this.page.texts || !this.wanted;
    if (this.node.hidden) return;
    if (!this.graph) this.make();
    else this.showRun();
  }

  async make() {
    if (this.coming) return;
    this.coming = true;
    const { ArrowGraph } = await import("../widgets/arrow_graph.js");
    const { page } = this;
    this.graph = new ArrowGraph({
      task: ARROW_TASK,
      onChange: (prompt) => type(this.box, prompt),
      onSelect: (step) => page.look({ token: this.question, step }),
      onBound: (loops) => page.form.turn({ [page.hero.dials.counted]: loops }),
    });
    this.node.append(this.graph.node);
    this.graph.label(page.texts);
    this.typed(this.box?.value ?? "");
    this.follow();
  }

  get box() {
    return field("prompt", "textarea");
  }

  /** What stands in the prompt now. @param {string} prompt */
  typed(prompt) {
    this.graph?.set(prompt);
  }

  // --- the run on screen ---------------------------------------------------------------------------------------------

  /** The place of the word that asks: the prompt's last. */
  get question() {
    return this.page.promptTokens - 1;
  }

  showRun() {
    const { page } = this;
    if (page.run !== this.asked && page.tokens.length > this.question && this.question >= 0) this.ask(page.run);
    const { token, step } = page.focus;
    const selected = JSON.stringify([page.run, token, step]);
    if (selected === this.selected) return;
    this.selected = selected;
    if (token === this.question) this.graph.select(step);
  }

  /** @param {string} run */
  async ask(run) {
    const { page } = this;
    this.asked = run;
    const prompt = page.tokens.slice(0, page.promptTokens).map(([text]) => text.trim()).join(" ");
    const answer = await page.ask("guesses", () => ({ run, token: this.question }));
    if (this.asked !== run) return;
    if (answer?.kind === "guesses") this.graph.show({ id: run, prompt, guesses: answer.steps, said: answer.said });
    else this.graph.show(null);
  }

  // --- the control of loops --------------------------------------------------------------------------------------------

  /** Its slider stands for the form's own control, as the one beside the ring does. */
  bound() {
    const { form, config, hero } = this.page;
    const control = hero.dials.counted;
    const value = form.dials[control];
    if (!this.graph || !config) return;
    const [low, high] = config.dials[control];
    this.graph.bound(value === undefined ? null : { low, high, value: Number(value) });
  }
}
