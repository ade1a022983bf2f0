// The Learn page: a list of lessons, and the one that is open, step by step. Knows no lesson by name.
// The other half is loopviz/app/learn/service.py; messages are stated in loopviz/app/contract/learn.py.

import { LONGEST_LESSON, MOST_STUDENT, OWN_LESSON, QUERIES, STORED } from "../core/contract.js";
import { cut, el, kept, press } from "../core/dom.js";
import { Frame, start, ticket } from "../core/page_head.js";
import { Glossary } from "../widgets/glossary.js";
import { ClassLink } from "./class_link.js";
import { HandIn } from "./hand_in.js";
import { KeptAnswers } from "./kept_answers.js";
import { ScoreCard, judgement } from "./score_card.js";
import { StepView } from "./step_view.js";

const SILENCE_MS = 8000; // then the server is asked whether something got lost

/** @import { Judged, LearnConfig, LearnMessage, LearnQuestions, Lesson, LessonEntry, LessonFault, LessonStep, OpenedLesson, TryLesson } from "../core/contract.js" */
/** @import { Parts } from "../core/page_globals.js" */

export class Page {
  /** @type {Lesson | null} that is open */
  lesson = null;
  /** @type {string} its JSON, of one that is not ours */
  source = "";
  /** @type {string} under which its answers are kept */
  key = "";
  /** @type {string[]} models that are needed */
  models = [];
  /** @type {boolean} whether a link brought it */
  linked = false;
  /** @type {{ id?: string, source?: string, word?: string } | null} by what it was asked for */
  asked = null;
  /** @type {StepView | null} the step on screen */
  view = null;
  /** @type {ScoreCard | null} ... or what was answered to all of them */
  card = null;
  /** @type {{ name: string, faults: LessonFault[] } | null} what is wrong with a file */
  wrong = null;
  /** @type {boolean} whether runs are made */
  running = false;
  /** @type {number} when something was heard of them */
  heard = 0;
  /** @type {string | null} the run shown, as far as messages have brought it */
  shown = null;
  /** @type {number} of the latest start */
  n = 0;
  /** @type {string | null} of that one, unguessable */
  ticket = null;
  /** @type {boolean} whether the models are not wanted any more: Stop was pressed while one was on its way */
  resting = false;
  /** @type {number | undefined} until the models are looked for again */
  following = undefined;
  /** @type {string} what is said */
  said = "";
  /** @type {boolean} whether that is bad news */
  bad = false;

  /**
   * @param {Parts<TryLesson>} parts
   * @param {LearnConfig} config
   */
  constructor(parts, config) {
    /** @type {Frame<LearnConfig, LearnQuestions, TryLesson>} */
    this.frame = new Frame(parts, config, this, new Glossary());
    this.root = parts.root;
    this.models = config.models.slice(0, 1);
    this.kept = new KeptAnswers(() => this.answeredElsewhere());
    this.handing = new HandIn(this);
    this.build(config);
    this.frame.label();
    this.speak();
    this.open();
    this.handing.meet();
    setInterval(() => this.watch(), 1000);
  }

  /**
   * @param {string} key
   * @param {Record<string, any>} [values]
   */
  text(key, values) {
    return this.frame.text(key, values);
  }

  // --- building --------------------------------------------------------------------------------------------------

  /** @param {LearnConfig} config */
  build(config) {
    this.listTitle = el("h2");
    this.entries = config.lessons.map((entry) => {
      const button = press("lv-lesson-entry", () => this.choose(entry.id));
      button.dataset.lesson = entry.id;
      return button;
    });
    this.list = el("div", "lv-lesson-list", ...this.entries);
    this.ownTitle = el("h3");
    this.ownHint = el("p", "lv-question");
    this.file = Object.assign(el("input"), { type: "file", accept: ".json,application/json" });
    this.file.className = "lv-sr";
    this.file.addEventListener("change", () => this.openFile());
    this.ownOpen = el("label", "lv-quiet lv-own-open", el("span"), this.file);
    const side = el("section", "lv-card lv-lesson-side", this.listTitle, this.list, this.ownTitle, this.ownHint, this.ownOpen);
    this.title = el("h2");
    this.badge = el("span", "lv-badge");
    this.about = el("p", "lv-lesson-about");
    this.nameTitle = el("span", "lv-field-title");
    this.student = Object.assign(el("input", "lv-input"), { type: "text", maxLength: MOST_STUDENT, autocomplete: "name" });
    this.student.value = cut(new URLSearchParams(location.search).get(QUERIES.name) ?? String(kept.get(STORED.student, "")), MOST_STUDENT);
    this.student.addEventListener("input", () => kept.set(STORED.student, this.student.value));
    this.nameHint = el("span", "lv-field-info");
    this.class = new ClassLink(this);
    this.who = el("div", "lv-who", el("label", "lv-field", this.nameTitle, this.student, this.nameHint), this.class.node);
    this.modelLine = el("span", "lv-model");
    this.dots = el("ol", "lv-dots");
    this.place = el("div", "lv-place");
    this.line = el("p", "lv-status");
    this.line.setAttribute("role", "status");
    this.main = el("section", "lv-card lv-lesson", el("div", "lv-lesson-head", this.title, this.badge), this.about, this.line, this.dots, this.place, this.who, this.modelLine);
    this.root.replaceChildren(this.frame.head, el("div", "lv-learning", side, this.main), this.frame.glossary.dialog);
  }

  /** What the address names: one of ours, or a lesson of a teacher's own, packed. */
  async open() {
    const word = new URLSearchParams(location.hash.slice(1)).get(OWN_LESSON);
    const named = new URLSearchParams(location.search).get(QUERIES.lesson);
    if (word) await this.ask({ word }, this.text("lesson.faults.link"));
    else if (named) await this.choose(named);
    this.follow();
    this.mark();
  }

  /** @param {string} id */
  choose(id) {
    return this.ask({ id }, id);
  }

  async openFile() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file) return;
    const text = file.size > 4 * LONGEST_LESSON ? "" : await file.text();
    if (!text || text.length > LONGEST_LESSON) {
      const words = this.text("lesson.too_long", { name: file.name, n: text.length || file.size, limit: LONGEST_LESSON });
      this.refuse(file.name, [{ field: "file", text: words }]);
    } else await this.ask({ source: text }, file.name);
  }

  /**
   * Open a lesson, or say all that is wrong with it; what was open stays until then.
   * @param {{ id?: string, source?: string, word?: string }} which
   * @param {string} name
   */
  async ask(which, name) {
    this.leave();
    this.asked = which;
    this.say(this.text("lesson.fetching"));
    const answer = await this.frame.ask("lesson", { ...which, lang: this.frame.lang });
    if (this.asked !== which) return undefined; // another was asked for meanwhile
    if (answer?.kind !== "lesson") return this.say(this.text("lesson.lost"), true);
    this.say("");
    if (answer.lesson) this.teach(answer, Boolean(which.word));
    else this.refuse(name, answer.faults);
    return undefined;
  }

  /** @param {string} name @param {LessonFault[]} faults */
  refuse(name, faults) {
    this.leave(); // what was open could be run meanwhile
    this.wrong = { name, faults };
    [this.lesson, this.view, this.card] = [null, null, null];
    this.label();
    /** @type {HTMLElement | null} */ (this.place.firstElementChild)?.focus();
  }

  /** @param {OpenedLesson} opened @param {boolean} linked */
  teach({ lesson, source, key, models }, linked) {
    this.leave(); // of what was open a step may have been begun meanwhile
    [this.lesson, this.source, this.key, this.models, this.wrong, this.linked] = [lesson, source, key, models, null, linked];
    const { answers } = this.record;
    const first = lesson.steps.findIndex((step) => !(step.id in answers));
    this.go(first < 0 ? lesson.steps.length : first, false);
    this.resting = false;
    this.follow();
    if (matchMedia("(max-width: 980px)").matches) this.main.scrollIntoView();
  }

  /** The lesson that is open, for what is kept of it. @returns {import("./kept_answers.js").Which} */
  get which() {
    return { key: this.key, version: this.lesson.version };
  }

  /** What is kept of it. */
  get record() {
    return this.kept.of(this.which);
  }

  /** The lesson of the list after this one. @returns {LessonEntry | undefined} */
  nextEntry() {
    const { lessons } = this.frame.config;
    return this.source ? undefined : lessons[lessons.findIndex(({ id }) => id === this.lesson.id) + 1];
  }

  another() {
    const next = this.nextEntry();
    if (next) this.choose(next.id);
  }

  restart() {
    this.kept.clear(this.which);
    this.go(0);
  }

  /** The step on screen is left: its runs end, and what is still on its way to it is not heard any more. */
  leave() {
    if (this.running) this.stop();
    this.ticket = this.shown = null;
    this.running = false;
    this.say("");
  }

  /** A step, or behind the last one the score card. @param {number} place */
  go(place, focus = true) {
    this.leave();
    const step = this.lesson.steps[place];
    this.view = step ? new StepView(this, step, place) : null;
    this.card = step ? null : new ScoreCard(this);
    this.label();
    if (!focus) return;
    const { title } = this.view ?? this.card;
    title.focus({ preventScroll: true });
    title.scrollIntoView({ block: "nearest" });
  }

  // --- words -----------------------------------------------------------------------------------------------------

  async speak() {
    this.label();
    this.view?.label();
    this.card?.label();
    if (this.wrong && this.asked) await this.ask(this.asked, this.wrong.name);
    this.follow();
  }

  label() {
    const { lang } = this.frame;
    this.listTitle.textContent = this.text("lesson.list");
    this.frame.config.lessons.forEach((entry, i) => this.entry(entry, this.entries[i]));
    this.ownTitle.textContent = this.text("lesson.own");
    this.ownHint.textContent = this.text("lesson.own.hint");
    this.ownOpen.firstElementChild.textContent = this.text("lesson.own.open");
    this.nameTitle.textContent = this.text("lesson.name");
    this.nameHint.textContent = this.text("lesson.name.hint");
    const { lesson, wrong } = this;
    this.title.textContent = lesson ? lesson.title[lang] : "";
    this.title.hidden = this.who.hidden = this.dots.hidden = !lesson;
    this.badge.textContent = lesson && this.source ? this.text(this.linked ? "lesson.link.badge" : "lesson.own.badge") : "";
    this.about.textContent = lesson ? lesson.about[lang] : wrong ? "" : this.text("lesson.choose");
    if (lesson) this.class.label();
    const shown = this.view?.node ?? this.card?.node ?? (wrong ? this.faults() : this.overview());
    if (shown !== this.place.firstElementChild) this.place.replaceChildren(shown);
    this.marks();
    this.mark();
  }

  /** @param {LessonEntry} entry @param {HTMLButtonElement} button */
  entry({ id, title, minutes, steps, version }, button) {
    const { lang } = this.frame;
    const done = Object.keys(this.kept.of({ key: id, version }).answers).length;
    const said = done >= steps ? this.text("lesson.ticked") : done ? this.text("lesson.begun", { done, n: steps }) : this.text("lesson.steps", { n: steps });
    const tick = el("span", "lv-tick", done >= steps ? "✓" : "");
    tick.setAttribute("aria-hidden", "true");
    button.replaceChildren(el("b", "", tick, title[lang]), el("small", "", `${this.text("lesson.minutes", { n: minutes })} · ${said}`));
    button.setAttribute("aria-pressed", String(this.lesson?.id === id && !this.source));
  }

  /** The steps as dots, answered or not. */
  marks() {
    if (!this.lesson) return this.dots.replaceChildren();
    const { answers } = this.record;
    const dots = this.lesson.steps.map((step, i) => {
      const dot = press("lv-dot", () => this.go(i), String(i + 1));
      const answer = answers[step.id];
      const { how, sign } = judgement(answer);
      dot.dataset.judged = how;
      dot.setAttribute("aria-label", [this.text("lesson.step", { n: i + 1, total: this.lesson.steps.length }), sign].filter(Boolean).join(" "));
      dot.disabled = !answer && this.view?.place !== i;
      if (this.view?.place === i) dot.setAttribute("aria-current", "step");
      return el("li", "", dot);
    });
    return this.dots.replaceChildren(...dots);
  }

  /** All lessons, what each is about: as long as none is open. */
  overview() {
    const { lang, config } = this.frame;
    const cards = config.lessons.map(({ id, title, about, minutes }) => {
      const words = [el("b", "", title[lang]), el("span", "", about[lang]), el("small", "", this.text("lesson.minutes", { n: minutes }))];
      return el("li", "", press("lv-lesson-card", () => this.choose(id), ...words));
    });
    return el("ol", "lv-lesson-cards", ...cards);
  }

  /** All that is wrong with a lesson file. */
  faults() {
    const { name, faults } = this.wrong;
    const title = el("h3", "lv-step-question", this.text(faults.length === 1 ? "lesson.faults.one" : "lesson.faults", { name, n: faults.length }));
    title.tabIndex = -1;
    return el("article", "lv-faults", title, el("ul", "", ...faults.map(({ text }) => el("li", "", text))));
  }

  recolour() {
    this.view?.outcomeWords();
    this.mark();
  }

  // --- running ---------------------------------------------------------------------------------------------------

  /** A step's runs, in place of what is run now. @param {string} step @param {boolean} whatIf */
  begin(step, whatIf) {
    this.leave();
    this.ticket = ticket();
    this.n += 1;
    this.running = true;
    this.heard = performance.now();
    this.say(this.text("lesson.waiting"));
    this.resting = false;
    const which = this.source ? { id: "", source: this.source } : { id: this.lesson.id, source: "" };
    this.frame.begin({ lang: this.frame.lang, ticket: this.ticket, n: this.n, ...which, step, what_if: whatIf });
    this.follow();
  }

  stop() {
    this.frame.ask("stop", { ticket: this.ticket });
    if (this.root.dataset.model !== "ready") this.resting = true; // they are not wanted any more
    this.say(this.text("lesson.stopping"));
  }

  /** @param {LearnMessage} message */
  receive(message) {
    this.heard = performance.now();
    if (message.kind === "visit") {
      this.handing.visit(message);
      return;
    }
    if ("ticket" in message && message.ticket !== this.ticket) return; // of a try that another has replaced, or a step that was left
    if (message.kind === "status") {
      this.say(message.text, message.bad);
      if (message.over) this.over();
    } else if (message.kind === "progress") {
      this.shown = message.run;
      if (this.said !== this.text("lesson.stopping")) this.say(this.text("lesson.progress", { done: message.done, total: message.total }));
    } else if (message.kind === "result") {
      this.over();
      this.say(message.end === "done" ? "" : this.text(`lesson.end.${message.end}`), message.end !== "done");
    }
    if (message.kind !== "config") this.view?.receive(message);
    this.mark();
  }

  over() {
    this.running = false;
    this.view?.show();
  }

  async watch() {
    if (!this.running || !this.shown || performance.now() - this.heard < SILENCE_MS) return;
    this.heard = performance.now();
    const asked = this.ticket;
    const answer = await this.frame.ask("look", { run: this.shown });
    if (asked !== this.ticket) return;
    if (answer?.kind === "result" && answer.end) this.receive(answer);
    else if (answer?.kind === "gone") {
      this.over();
      this.say(this.text("lesson.gone"), true);
    }
  }

  /** Keep an answer. @param {LessonStep} step @param {any} guess @param {Judged} judged @param {Record<string, string>} madeWith */
  answered(step, guess, judged, madeWith) {
    this.kept.answer(this.which, step.id, guess, judged, madeWith);
    this.label();
  }

  /** Another tab has kept answers, of this lesson it may be. */
  answeredElsewhere() {
    this.label();
    this.view?.show();
    this.card?.label();
  }

  /** Follow the models until they are there; one that is not of the list is not wanted before it is run. */
  follow(wait = 0) {
    clearTimeout(this.following);
    this.following = setTimeout(async () => {
      const { lang } = this.frame;
      const needed = this.models;
      for (const model of needed) {
        const look = this.resting || (!this.running && !this.frame.config.models.includes(model));
        const answer = await this.frame.ask("model", { model, lang, look });
        if (needed !== this.models || lang !== this.frame.lang) return this.follow();
        const state = answer?.kind === "model" ? answer.state : "waiting";
        this.modelLine.textContent = answer?.kind === "model" ? answer.text : "";
        this.modelLine.dataset.state = this.root.dataset.model = state;
        if (state === "ready") continue;
        return state === "failed" || (look && state === "waiting") ? null : this.follow(900);
      }
      return null;
    }, wait);
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  /** @param {string} text */
  say(text, bad = false) {
    this.said = text;
    this.bad = bad;
    this.view?.show();
    this.line.textContent = this.view ? "" : text; // a step has a line of its own
    this.line.hidden = !this.line.textContent;
    this.line.classList.toggle("lv-bad", bad);
  }

  /** What tests and styles go by. */
  mark() {
    this.root.dataset.state = this.running ? "running" : "idle";
    this.root.dataset.lesson = this.lesson?.id ?? "";
    this.root.dataset.drawn = "true"; // pictures are, as soon as there are numbers
    this.root.dataset.ready = "1";
  }
}

/** @param {Parts<TryLesson>} parts */
export function mount(parts) {
  return start(parts, Page);
}
