// The Learn page: a list of lessons, and the one that is open, step by step. Knows no lesson by name.
// The other half is loopviz/app/learn/service.py; messages are stated in loopviz/app/contract/learn.py.

import { LONGEST_LESSON, MOST_STUDENT, OWN_LESSON, QUERIES, STORED } from "../core/contract.js";
import { el, kept, press } from "../core/dom.js";
import { Frame, start, ticket } from "../core/page_head.js";
import { Glossary } from "../widgets/glossary.js";
import { ClassLink } from "./class_link.js";
import { ScoreCard } from "./score_card.js";
import { StepView } from "./step_view.js";

const SILENCE_MS = 8000; // then the server is asked whether something got lost

/** @import { Judged, LearnConfig, LearnMessage, LearnQuestions, Lesson, LessonAnswer, LessonEntry, LessonFault, LessonStep, OpenedLesson, TryLesson, Words } from "../core/contract.js" */
/** @import { Parts } from "../core/page_globals.js" */
/** @typedef {Pick<LessonAnswer, "right" | "score" | "when"> & { guess: Words, measured: Words, raw: any }} Answer as it is kept: the guess itself too */
/** @typedef {{ version: number, answers: Record<string, Answer>, made_with?: Record<string, string> }} Kept of a lesson that was begun */

export class Page {
  /** @type {Lesson | null} that is open */
  lesson = null;
  /** @type {string} its JSON, of one that is not ours */
  source = "";
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
    const records = kept.get(STORED.lessons, {});
    /** @type {Record<string, Kept>} */
    this.records = typeof records === "object" && !Array.isArray(records) ? records : {};
    this.build(config);
    this.frame.label();
    this.speak();
    this.open();
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
    this.student.value = new URLSearchParams(location.search).get(QUERIES.name)?.slice(0, MOST_STUDENT) ?? kept.get(STORED.student, "");
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
    if (this.running) this.stop();
    this.say(this.text("lesson.fetching"));
    const answer = await this.frame.ask("lesson", { ...which, lang: this.frame.lang });
    if (answer?.kind !== "lesson") return this.say(this.text("lesson.lost"), true);
    this.say("");
    this.asked = which;
    if (answer.lesson) this.teach(answer, Boolean(which.word));
    else this.refuse(name, answer.faults);
    return undefined;
  }

  /** @param {string} name @param {LessonFault[]} faults */
  refuse(name, faults) {
    this.wrong = { name, faults };
    [this.lesson, this.view, this.card] = [null, null, null];
    this.label();
    /** @type {HTMLElement | null} */ (this.place.firstElementChild)?.focus();
  }

  /** @param {OpenedLesson} opened @param {boolean} linked */
  teach({ lesson, source, models }, linked) {
    [this.lesson, this.source, this.models, this.wrong, this.linked] = [lesson, source, models, null, linked];
    this.over();
    const first = lesson.steps.findIndex((step) => !(step.id in this.record.answers));
    this.go(first < 0 ? lesson.steps.length : first, false);
    this.resting = false;
    this.follow();
    if (matchMedia("(max-width: 980px)").matches) this.main.scrollIntoView();
  }

  /** What is kept of the lesson that is open; of another version of it nothing. @returns {Kept} */
  get record() {
    const key = this.source ? `${OWN_LESSON}:${this.lesson.id}` : this.lesson.id;
    const found = this.records[key];
    const fits = found?.version === this.lesson.version && found.answers && typeof found.answers === "object";
    return fits ? found : (this.records[key] = { version: this.lesson.version, answers: {} });
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
    Object.assign(this.record, { answers: {}, made_with: {} });
    kept.set(STORED.lessons, this.records);
    this.go(0);
  }

  /** A step, or behind the last one the score card. @param {number} place */
  go(place, focus = true) {
    if (this.running) this.stop();
    this.say("");
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
    const record = this.records[id];
    const done = record?.version === version ? Object.keys(record.answers ?? {}).length : 0;
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
      dot.dataset.judged = answer ? (answer.right ? "right" : "wrong") : "";
      dot.setAttribute("aria-label", `${this.text("lesson.step", { n: i + 1, total: this.lesson.steps.length })}${answer ? ` ${answer.right ? "✓" : "✗"}` : ""}`);
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
    if (this.running) this.stop();
    this.ticket = ticket();
    this.n += 1;
    this.running = true;
    this.shown = null;
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
    if ("ticket" in message && message.ticket !== this.ticket) return; // of a try that another has replaced
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
    const answer = await this.frame.ask("look", { run: this.shown });
    if (answer?.kind === "result" && answer.end) this.receive(answer);
    else if (answer?.kind === "gone") {
      this.over();
      this.say(this.text("lesson.gone"), true);
    }
  }

  /**
   * Keep an answer: the first to a step counts.
   * @param {LessonStep} step
   * @param {any} guess
   * @param {Judged} judged
   * @param {Record<string, string>} madeWith
   */
  answered(step, guess, judged, madeWith) {
    const { record } = this;
    const { right, score, measured } = judged;
    record.made_with = { ...record.made_with, ...madeWith };
    record.answers[step.id] ??= { guess: judged.guess, measured, right, score, when: new Date().toISOString(), raw: guess };
    kept.set(STORED.lessons, this.records);
    this.label();
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
