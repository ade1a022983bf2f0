// A step of a lesson on screen: question, guess, what is run, what was measured, why, and what if.

import { ARROW_TASK } from "../core/contract.js";
import { el, press } from "../core/dom.js";
import { measuredNodes, written } from "./measured.js";
import { predictionOf } from "./prediction.js";

/** @import { Judged, LearnMessage, LessonResult, LessonStep, Words } from "../core/contract.js" */
/** @typedef {import("./main.js").Page} Page */
/** @typedef {import("./measured.js").Part} Part */

export class StepView {
  /** @type {import("../widgets/arrow_graph.js").ArrowGraph | null} the problem as a picture */
  graph = null;
  /** @type {LessonResult | null} what its runs came to */
  result = null;
  /** @type {Judged | null} how the guess stands to that */
  judged = null;
  /** @type {LessonResult | null} of its what-if */
  tried = null;
  /** @type {boolean} whether its what-if is made now, and not the step itself */
  trying = false;

  /**
   * @param {Page} page
   * @param {LessonStep} step
   * @param {number} place of it in the lesson, from 0
   */
  constructor(page, step, place) {
    this.page = page;
    this.step = step;
    this.place = place;
    this.blind = step.predict.kind === "blind";
    this.prediction = predictionOf(this);
    this.build();
    const answered = page.record.answers[step.id];
    if (answered) {
      this.prediction.restore(answered.raw);
      if (!this.blind) this.prediction.close();
    }
    this.label();
  }

  build() {
    this.count = el("p", "lv-step-count");
    this.title = el("h3", "lv-step-question");
    this.title.tabIndex = -1;
    this.about = el("p", "lv-step-about");
    this.summary = el("summary");
    this.plan = el("div", "lv-plan");
    this.go = press("lv-go", () => this.run());
    this.halt = press("lv-halt", () => this.page.stop());
    this.reveal = press("lv-go", () => this.judge());
    this.status = el("span", "lv-status");
    this.status.setAttribute("role", "status");
    this.bar = el("progress", "lv-progress");
    this.pictured = el("div", "lv-step-picture");
    if (this.step.picture) this.draw();
    this.verdict = el("p", "lv-verdict");
    this.heading = el("h4", "lv-step-result");
    this.heading.tabIndex = -1;
    this.found = el("div", "lv-found-all");
    this.whyTitle = el("b");
    this.why = el("p", "lv-why");
    this.outcome = el("section", "lv-outcome", this.heading, this.verdict, this.found, this.why);
    this.outcome.setAttribute("aria-live", "polite");
    this.ask = el("p");
    this.try = press("lv-quiet", () => this.run(true));
    this.trial = el("div", "lv-trial");
    this.trial.setAttribute("aria-live", "polite");
    this.ifTitle = el("h4");
    this.what_if = el("section", "lv-what-if", this.ifTitle, this.ask, this.try, this.trial);
    this.next = press("lv-go lv-next", () => this.page.go(this.place + 1));
    this.back = press("lv-quiet", () => this.page.go(this.place - 1));
    const details = el("details", "lv-plan-fold", this.summary, this.plan);
    this.notesTitle = el("summary");
    this.notes = el("p");
    const notes = el("details", "lv-plan-fold lv-notes", this.notesTitle, this.notes); // shut: the class sees the screen too
    notes.hidden = !this.step.notes;
    const buttons = el("div", "lv-buttons-row", this.go, this.reveal, this.halt);
    this.row = el("div", "lv-card-row", buttons, this.status);
    const ways = el("div", "lv-step-ways", this.back, this.next);
    this.node = el("article", "lv-step", this.count, this.title, this.about, this.pictured, this.prediction.node, details, notes, this.row, this.bar, this.outcome, this.what_if, ways);
  }

  /** The problem of arrows as a graph: to be looked at, for what is run is the lesson's own. */
  async draw() {
    const { ArrowGraph } = await import("../widgets/arrow_graph.js");
    const { prompt } = Object.values(this.step.runs)[0];
    this.graph = new ArrowGraph({ task: ARROW_TASK });
    this.graph.label(this.page.frame.texts);
    this.graph.set(prompt);
    this.pictured.replaceChildren(this.graph.node);
    /** @type {HTMLElement} */ (this.graph.node.firstElementChild).inert = true;
    this.outcomeWords();
  }

  /** The token goes the way of the run. */
  hop() {
    const { way, run } = this.result;
    if (!this.graph || !way) return;
    this.graph.show({ id: run, prompt: way.prompt, guesses: way.steps, said: way.said });
  }

  // --- words ---------------------------------------------------------------------------------------------------------

  /**
   * @param {string} key
   * @param {Record<string, any>} [values]
   */
  text(key, values) {
    return this.page.text(key, values);
  }

  /** A sentence of the lesson in the page's language. @param {Words} words */
  said(words) {
    return words[this.page.frame.lang];
  }

  /** A number of a measurement. @param {Part} part @param {string} name @param {number} value */
  written(part, name, value) {
    return written(this.page.frame.config.shown[part.measure[name].what], value);
  }

  label() {
    const { step, place } = this;
    const total = this.page.lesson.steps.length;
    this.count.textContent = this.text("lesson.step", { n: place + 1, total });
    this.title.textContent = this.said(step.question);
    this.about.textContent = step.about ? this.said(step.about) : "";
    this.summary.textContent = this.text("lesson.runs");
    this.notesTitle.textContent = this.text("lesson.notes");
    this.notes.textContent = step.notes ? this.said(step.notes) : "";
    this.plan.replaceChildren(...Object.values(step.runs).map((run) => this.planned(run)));
    this.go.textContent = this.text(this.blind ? "lesson.run.blind" : "lesson.run");
    this.reveal.textContent = this.text("lesson.reveal");
    this.halt.textContent = this.text("lesson.stop");
    this.heading.textContent = this.text("lesson.result");
    this.whyTitle.textContent = `${this.text("lesson.why")}: `;
    this.ifTitle.textContent = this.text("lesson.what_if");
    this.ask.textContent = step.what_if ? this.said(step.what_if.ask) : "";
    this.try.textContent = this.text("lesson.what_if.try");
    this.back.textContent = this.text("lesson.back");
    this.next.textContent = this.text(place + 1 < total ? "lesson.next" : "lesson.finish");
    this.prediction.label();
    this.graph?.label(this.page.frame.texts);
    this.outcomeWords();
    this.show();
  }

  /** What a run will be, in words. @param {LessonStep["runs"][string]} run */
  planned(run) {
    const usual = this.text("lesson.runs.usual");
    const fields = (/** @type {Record<string, any> | undefined} */ of) => Object.entries(of ?? {}).map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join(", ") || usual;
    const how = run.task
      ? [["lesson.runs.task", run.task], ["lesson.runs.params", Object.keys(run.params ?? {}).length ? fields(run.params) : this.text("lesson.runs.quick")]]
      : [["lesson.runs.loop", fields(run.loop)], ["lesson.runs.sampling", fields(run.sampling)]];
    const rows = [
      ["lesson.runs.model", run.model ?? this.page.lesson.model],
      [run.task ? "lesson.runs.text" : "lesson.runs.prompt", run.prompt],
      ...how,
    ];
    const list = rows.flatMap(([key, value]) => [el("dt", "", this.text(key)), el("dd", "", value)]);
    return el("div", "", ...(run.called ? [el("b", "", this.said(run.called))] : []), el("dl", "", ...list));
  }

  // --- guessing, running ---------------------------------------------------------------------------------------------

  /** The guess is another. */
  guessed() {
    this.show();
  }

  get running() {
    return this.page.running;
  }

  run(whatIf = false) {
    if (!whatIf && !this.blind && this.prediction.guess === null) return this.page.say(this.text("lesson.guess.first"), true);
    this.trying = whatIf;
    if (!whatIf) [this.result, this.judged] = [null, null];
    else this.tried = null;
    if (!whatIf && !this.blind) this.prediction.close();
    this.page.begin(this.step.id, whatIf);
    this.show();
    return undefined;
  }

  /** What a message says of its runs. @param {LearnMessage} message */
  receive(message) {
    if (message.kind === "progress") {
      this.bar.max = message.total || 1;
      this.bar.value = message.done;
    } else if (message.kind === "result" && message.what_if) {
      this.tried = message;
      this.outcomeWords();
    } else if (message.kind === "result") this.take(message);
    this.show();
  }

  /** @param {LessonResult} result */
  take(result) {
    this.result = result.end === "done" ? result : null;
    if (!this.result) return;
    if (!this.blind) this.judge();
    else /** @type {any} */ (this.prediction).texts(result.texts);
  }

  async judge() {
    const { guess } = this.prediction;
    const { page, result } = this;
    const judged = await page.frame.ask("judge", { run: result.run, guess });
    if (page.view !== this || result !== this.result) return; // it was left, or is run again
    if (judged?.kind !== "judged") {
      this.again();
      if (!page.bad) page.say(this.text(judged ? "lesson.gone" : "lesson.unjudged"), true);
      return;
    }
    const first = !this.judged;
    this.judged = judged;
    this.prediction.close();
    if (first) page.answered(this.step, guess, judged, result.made_with);
    this.outcomeWords();
    this.show();
    if (first) this.heading.focus({ preventScroll: true });
    if (first) this.outcome.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** What was run cannot be judged any more: the step is as before its run. */
  again() {
    this.result = null;
    if (this.blind) /** @type {any} */ (this.prediction).forget();
    this.show();
  }

  // --- what is shown -------------------------------------------------------------------------------------------------

  outcomeWords() {
    const { result, judged, tried, step } = this;
    if (result && judged) {
      this.verdict.textContent = this.said(judged.said);
      this.verdict.dataset.right = String(judged.right);
      const own = step.predict.kind === "line" ? [step.predict.of] : [];
      this.found.replaceChildren(...measuredNodes(this, step, result, own));
      this.why.replaceChildren(this.whyTitle, this.said(judged.why));
      this.prediction.show(result, judged);
      this.hop();
    }
    if (tried?.end === "done") this.trial.replaceChildren(el("p", "lv-says", this.said(tried.says)), ...measuredNodes(this, step.what_if, tried));
    else this.trial.replaceChildren();
  }

  show() {
    const { running } = this;
    const done = Boolean(this.result && this.judged);
    this.go.hidden = done || (this.blind && Boolean(this.result));
    this.reveal.hidden = done || !this.blind || !this.result;
    this.go.disabled = running || (!this.blind && this.prediction.guess === null);
    this.reveal.disabled = this.prediction.guess === null;
    this.halt.hidden = !running;
    this.bar.hidden = !running;
    this.outcome.hidden = !done;
    this.what_if.hidden = !done || !this.step.what_if;
    this.try.disabled = running;
    this.next.hidden = !done && !this.page.record.answers[this.step.id];
    this.back.hidden = !this.place;
    this.about.hidden = !this.step.about;
    this.go.dataset.state = running && !this.trying ? "running" : "idle";
    this.node.dataset.state = running ? "running" : done ? "done" : this.result ? "guessing" : "asking";
    this.status.textContent = this.page.said;
    this.row.classList.toggle("lv-at-rest", done && !running && !this.page.said); // its line stays, for screen readers
    this.status.classList.toggle("lv-bad", this.page.bad && Boolean(this.page.said));
  }
}
