// The Lab page: a task, its parameters, its table and plot as they come. Knows no task by name.
// The other half is loopviz/app/lab/service.py; messages are stated in loopviz/app/contract/lab.py.

import { QUERIES, RECORDED, TABLE_FILES } from "../core/contract.js";
import { el, press } from "../core/dom.js";
import { Frame, save, start, ticket } from "../core/page_head.js";
import { Plot, Plots } from "../core/plot.js";
import { Field } from "../widgets/form.js";
import { Glossary } from "../widgets/glossary.js";
import { ModelNotes } from "../widgets/model_notes.js";
import { PrecisionChoice } from "../widgets/precision_choice.js";
import { followPrompt } from "../widgets/prompt_keys.js";
import { Table } from "../widgets/table.js";
import { FigureWalk } from "./figure_walk.js";
import { TaskForm } from "./task_form.js";

const SILENCE_MS = 8000; // then the server is asked whether something got lost

/** Seconds as people say them. @param {number} seconds */
function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @import { LabConfig, LabMessage, LabNews, LabQuestions, LabSnapshot, LabTask, Measure, Row } from "../core/contract.js" */
/** @import { Parts } from "../core/page_globals.js" */
/** @typedef {typeof TABLE_FILES[number]} FileKind */

export class Page {
  /** @type {LabTask[]} all that there are */
  tasks = [];
  /** @type {HTMLButtonElement[]} one each */
  buttons = [];
  /** @type {HTMLDetailsElement[]} what measurements of a group of its own stand in */
  groups = [];
  /** @type {LabTask | null} the one that is chosen */
  task = null;
  /** @type {LabSnapshot | null} the measurement that the visitor asked for, as far as messages have brought it */
  run = null;
  /** @type {Row[]} of it */
  rows = [];
  /** @type {LabSnapshot | null} the measurement that is shown: that one, or the recorded one, or the one before */
  shown = null;
  /** @type {boolean} whether it is of another asking than the latest */
  old = false;
  /** @type {LabSnapshot["figure"]} that is drawn */
  drawn = null;
  /** @type {boolean} whether one is made */
  running = false;
  /** @type {number} when something was heard of it */
  heard = 0;
  /** @type {boolean} whether it is asked for anew */
  looking = false;
  /** @type {number} of the latest start */
  n = 0;
  /** @type {string | null} of that one, unguessable */
  ticket = null;
  /** @type {string | null} the model that is not wanted any more: Stop was pressed while it was on its way */
  resting = null;
  /** @type {number | undefined} until the model is looked for again */
  following = undefined;
  /** @type {string} what is said; "": how far it is */
  said = "";
  /** @type {boolean} whether that is bad news */
  bad = false;

  /**
   * @param {Parts<Measure>} parts
   * @param {LabConfig} config
   */
  constructor(parts, config) {
    /** @type {Frame<LabConfig, LabQuestions, Measure>} */
    this.frame = new Frame(parts, config, this, new Glossary());
    this.root = parts.root;
    this.plots = new Plots(this.frame);
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

  /** @param {LabConfig} config */
  build(config) {
    this.model = new Field({ name: "model", kind: "name" }, () => {
      this.precision.offer(); // of another model it is no way out
      this.follow();
    });
    const names = el("datalist", "", ...config.models.map((called) => Object.assign(el("option"), { value: called })));
    names.id = "lv-models";
    this.model.input.setAttribute("list", names.id);
    this.model.value = config.models[0];
    this.modelLine = el("span", "lv-model");
    this.list = el("div", "lv-tasks");
    this.listTitle = el("h2");
    this.title = el("h2");
    this.question = el("p", "lv-task-question");
    this.how = el("p", "lv-question");
    this.cost = el("p", "lv-question");
    this.precision = new PrecisionChoice(config.controls, () => this.reheld(), () => this.measure());
    this.notes = new ModelNotes();
    this.form = new TaskForm(this.frame, () => ({ model: this.model.value.trim(), precision: this.precision.value }), () => this.measure());
    this.go = press("lv-halt lv-as-set", () => this.measure());
    this.halt = press("lv-halt", () => this.stop());
    this.status = el("span", "lv-status");
    this.status.setAttribute("role", "status");
    this.bar = el("progress", "lv-progress");
    this.model.node.append(this.modelLine, names);
    this.form.node.prepend(el("div", "lv-of-model", this.model.node, this.notes.node), this.precision.node);
    this.form.details.append(this.how, this.cost);
    this.only = el("span", "lv-only"); // of a measurement that comes in one size
    const buttons = el("div", "lv-buttons-row", this.form.sizes, this.only, this.halt);
    const chosen = el("section", "lv-card lv-asking", this.title, this.question);
    chosen.append(this.form.node, el("div", "lv-card-row", buttons, this.status, this.precision.out), this.bar, this.form.details);
    followPrompt(".lv-asking", () => this.measure());
    this.teach = this.frame.link("teach");
    const side = el("section", "lv-card lv-side", this.listTitle, this.list, this.teach);
    this.plot = new Plot("plot", this.plots);
    this.walk = new FigureWalk(this.frame, this.plot);
    this.manifest = press("lv-quiet", () => this.download("json"));
    this.intervals = press("lv-quiet", () => this.frame.glossary.open("bootstrap"));
    this.plot.node.append(this.walk.node, el("p", "lv-of-figure", this.manifest, this.intervals));
    this.table = new Table();
    this.tableTitle = el("h2");
    this.tableHint = el("p", "lv-question");
    this.files = TABLE_FILES.map((kind) => Object.assign(press("lv-quiet", () => this.download(kind)), { value: kind }));
    this.repeat = el("p", "lv-question");
    const rows = el("section", "lv-panel lv-rows", this.tableTitle, this.tableHint, this.table.node, el("div", "lv-files", ...this.files), this.repeat);
    this.verdict = el("p", "lv-verdict");
    this.verdict.setAttribute("role", "status");
    this.badge = el("span", "lv-badge");
    this.note = el("p", "lv-question");
    const said = el("section", "lv-card lv-found", el("div", "lv-found-head", this.badge, this.verdict), this.note);
    this.three = el("section", "lv-card lv-three"); // what one sees, why, and what it means for a loop
    this.results = el("div", "lv-results", said, this.plot.node, this.three, rows);
    this.results.hidden = true;
    this.bar.hidden = true;
    const main = el("div", "lv-main", chosen, this.results);
    this.root.replaceChildren(this.frame.head, el("div", "lv-lab", side, main), this.frame.glossary.dialog);
  }

  /** The tasks there are; the address may name one. */
  async open() {
    for (let tries = 0; !this.tasks.length && tries < 30; tries++) {
      const answer = await this.frame.ask("tasks", {});
      if (answer?.kind === "tasks") this.tasks = answer.tasks;
      else await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    this.buttons = this.tasks.map((task) => {
      const button = press("lv-task", () => this.choose(task));
      button.dataset.task = task.name;
      return button;
    });
    this.list.replaceChildren();
    const names = [...new Set(this.tasks.map((task) => task.group))].filter((name) => name);
    this.groups = names.map((name) => Object.assign(el("details", "lv-task-group", el("summary")), { id: `lv-tasks-${name}` }));
    for (const [i, task] of this.tasks.entries()) (this.groups[names.indexOf(task.group)] ?? this.list).append(this.buttons[i]);
    this.list.append(...this.groups);
    // Explore sends the model that stands there, and what it wants measured; from anywhere else a link names none
    const sent = new URLSearchParams(document.referrer.startsWith(`${location.origin}/`) ? location.hash.slice(1) : "");
    if (sent.get("model")) this.model.value = sent.get("model");
    if (sent.get("precision")) this.precision.value = sent.get("precision");
    const asked = new URLSearchParams(location.search).get(QUERIES.task);
    const chosen = this.tasks.find((task) => task.name === asked) ?? this.tasks[0];
    if (sent.has("values")) this.form.filled[chosen.name] = JSON.parse(sent.get("values"));
    this.choose(chosen);
    if (sent.has("values")) {
      history.replaceState(null, "", location.pathname + location.search); // opened again, it measures nothing by itself
      this.measure();
    }
    this.follow();
  }

  /** @param {LabTask | undefined} task */
  choose(task) {
    if (!task) return;
    this.task = task;
    for (const group of this.groups) if (group.id === `lv-tasks-${task.group}`) group.open = true;
    this.form.choose(task);
    if (this.form.sized) this.form.more.after(this.go);
    else this.only.append(this.go);
    if (!this.running && this.run?.task !== task.name) {
      this.forget();
      this.clear();
      if (task.kept) this.record();
    }
    this.label();
  }

  /** What the visitor asks for now is another measurement; what is shown stays until that one has something to show. */
  forget() {
    this.run = null;
    this.rows = [];
    this.said = "";
    this.old = this.shown !== null;
    this.whose();
  }

  /** Nothing is shown; where a recorded measurement is on its way its place is kept. */
  clear() {
    this.shown = null;
    this.old = false;
    this.drawn = null;
    this.results.hidden = !this.task.kept;
    this.verdict.textContent = "";
    this.table.show([], [], {}, {});
  }

  /** The recorded measurement of the task that is chosen, until there is one of the visitor's. */
  async record() {
    const { task } = this;
    const answer = await this.frame.ask("look", { run: `${RECORDED}:${task.name}`, lang: this.frame.lang });
    if (this.task !== task || this.run || (this.running && this.shown)) return;
    if (answer?.kind === "snapshot") this.draw(answer, answer.rows);
    else this.results.hidden = true;
  }

  speak() {
    this.label();
    if (this.run) this.look();
    else if (this.shown?.run.startsWith(`${RECORDED}:`)) this.record();
    else if (this.shown) this.relook();
    if (this.tasks.length) this.follow();
  }

  label() {
    /** @type {(key: string, values?: Record<string, any>) => string} */
    const text = (key, values) => this.text(key, values);
    const { lang } = this.frame;
    this.listTitle.textContent = text("lab.tasks");
    this.teach.textContent = text("lab.teach");
    if (!this.tasks.length) this.list.textContent = text("lab.loading");
    for (const group of this.groups) group.firstElementChild.textContent = text(`lab.group.${group.id.replace("lv-tasks-", "")}`);
    this.model.label(text("model.label"));
    this.model.show({ info: text("model.info") });
    this.precision.label(text);
    this.halt.textContent = text("lab.stop");
    this.halt.title = text("lab.stop.hint");
    this.tableTitle.textContent = text("lab.table");
    this.table.label(text("lab.table"), text("table.scrolls"));
    this.repeat.textContent = this.task ? text("lab.repeat", { task: this.task.name }) : "";
    for (const button of this.files) button.textContent = `${text("lab.download")}: ${text(`compare.file.${button.value}`)}`;
    for (const button of this.buttons) {
      const { words, name } = this.tasks.find((task) => task.name === button.dataset.task);
      button.replaceChildren(el("b", "", words[lang].title ?? name), el("small", "", words[lang].question ?? ""));
      button.setAttribute("aria-pressed", String(this.task?.name === name));
    }
    if (this.task) {
      const words = this.task.words[lang];
      this.title.textContent = words.title ?? this.task.name;
      this.question.textContent = words.question ?? "";
      this.how.replaceChildren(el("b", "", `${text("lab.how")}: `), words.how ?? "");
      this.cost.replaceChildren(el("b", "", `${text("lab.cost")}: `), words.cost ?? "");
      // its formula is one click away: in the glossary
      this.intervals.hidden = !this.task.intervals;
      this.intervals.textContent = text("lab.intervals");
      this.manifest.textContent = text("lab.manifest");
      this.manifest.title = text("lab.repeat", { task: this.task.name });
      this.plot.label(words.title ?? this.task.name, words.question ?? "");
      const said = ["seen", "why", "looping"].filter((name) => words[name]);
      this.three.hidden = !said.length;
      this.three.replaceChildren(...said.map((name) => el("p", "", el("b", "", `${text(`lab.three.${name}`)} `), words[name])));
    }
    this.form.label();
    this.walk.label();
    // beside sizes, the parameters as they stand are the quieter choice
    this.go.className = this.form.sized ? "lv-halt lv-as-set" : "lv-go lv-as-set";
    this.go.textContent = text(this.form.sized ? "lab.run.as_set" : "lab.run");
    this.whose();
    this.show();
  }

  recolour() {
    this.plots.recolour();
  }

  /** The model is to be held otherwise. */
  reheld() {
    this.resting = null;
    this.follow();
  }

  /** Follow the model until it is there. */
  follow(wait = 0) {
    clearTimeout(this.following);
    this.following = setTimeout(async () => {
      const asked = { model: this.model.value, precision: this.precision.value, lang: this.frame.lang, look: this.resting === this.model.value };
      const answer = await this.frame.ask("model", asked);
      if (asked.model !== this.model.value || asked.precision !== this.precision.value || asked.lang !== this.frame.lang) return this.follow();
      if (answer?.kind === "model") {
        this.modelLine.textContent = answer.text;
        this.modelLine.dataset.state = this.root.dataset.model = answer.state;
        this.precision.show(answer.precision);
        this.notes.show(answer.notes);
        this.form.bring(answer);
        if (["ready", "failed"].includes(answer.state) || (asked.look && answer.state === "waiting")) return null;
      }
      return this.follow(900);
    }, wait);
  }

  // --- running -----------------------------------------------------------------------------------------------------

  /** Begin a measurement, in place of one that runs. */
  measure() {
    if (!this.task) return;
    if (this.running) this.stop();
    if (!this.form.worded) {
      this.say(this.text("lab.no_text"), true);
      this.form.fields.get("text").input.focus();
      return;
    }
    this.forget();
    this.ticket = ticket();
    this.n += 1;
    this.running = true;
    this.heard = performance.now();
    this.say(this.text("lab.waiting"));
    this.precision.offer();
    if (this.resting) this.follow();
    this.resting = null;
    this.frame.begin({ lang: this.frame.lang, ticket: this.ticket, n: this.n, model: this.model.value, precision: this.precision.value, task: this.task.name, values: this.form.values() });
    this.label();
  }

  stop() {
    this.frame.ask("stop", { ticket: this.ticket });
    if (this.root.dataset.model !== "ready") this.resting = this.model.value; // it is not wanted any more
    this.say(this.text("lab.stopping"));
  }

  /** @param {LabMessage} message */
  receive(message) {
    this.heard = performance.now();
    if ("ticket" in message && message.ticket !== this.ticket) return; // of a measurement that another has replaced
    if (message.kind === "status") {
      this.say(message.text, message.bad);
      if (message.over) this.over();
      if (!this.precision.take(message)) this.form.refuse(message.field, message.text);
    } else if (message.kind === "snapshot") this.take(message, message.rows);
    else if (message.kind === "news") this.news(message);
    this.mark();
  }

  /** @param {LabNews} message @returns {void} */
  news(message) {
    if (message.run !== this.run?.run || message.first > this.rows.length) return void this.look(message.run);
    this.take({ ...this.run, ...message, kind: "snapshot" }, [...this.rows.slice(0, message.first), ...message.rows]);
    return undefined;
  }

  /**
   * @param {LabSnapshot} message
   * @param {Row[]} rows
   */
  take(message, rows) {
    this.run = message;
    this.rows = rows;
    if (rows.length || message.end) this.draw(message, rows);
    if (message.end && this.running) this.over();
    if (message.done && !message.end && this.said !== this.text("lab.stopping")) this.said = "";
    if (message.end) this.said = "";
    if (message.reason) this.say(message.reason, true);
    this.show();
  }

  /**
   * A measurement in words, as a figure, as a table.
   * @param {LabSnapshot} message
   * @param {Row[]} rows
   */
  draw(message, rows) {
    const another = message.run !== this.shown?.run;
    const grown = another || rows.length !== this.table.body.childElementCount || message.columns !== this.shown?.columns;
    this.shown = message;
    this.old = false;
    this.results.hidden = !rows.length;
    this.plot.node.hidden = !message.figure;
    if (message.figure && message.figure !== this.drawn) {
      this.drawn = message.figure;
      message.figure.layout.height ??= 420;
      this.plot.take(message.figure);
    }
    this.walk.follow(message.walk ?? null, another);
    const words = { yes: this.text("lab.yes"), none: this.text("lab.none"), best: "" };
    /** @type {(row: Row, i: number) => Node} */
    const after = (row, i) => press("lv-quiet", () => this.openRow(i), this.text("compare.open"));
    if (grown) this.table.show(message.columns, rows, words, message.opens ? { after } : {});
    this.tableHint.textContent = message.done > rows.length ? this.text("lab.more", { shown: rows.length, done: message.done }) : "";
    this.whose();
  }

  /** What is shown comes to, and whose it is. */
  whose() {
    const { shown } = this;
    const recorded = Boolean(shown?.run.startsWith(`${RECORDED}:`));
    this.results.dataset.kind = shown ? (recorded ? RECORDED : this.old ? "old" : "own") : "";
    this.verdict.textContent = shown?.headline || this.text("lab.headline.waits");
    this.badge.hidden = !recorded && !this.old;
    this.badge.textContent = this.badge.hidden ? "" : this.text(recorded ? "lab.recorded" : "lab.old");
    const quick = this.task?.sizes[0]?.words[this.frame.lang] ?? this.text("lab.run");
    const whose = recorded ? this.text("lab.recorded.hint", { model: shown.model, quick }) : "";
    this.note.textContent = [shown?.held, whose].filter(Boolean).join(" ");
    this.root.dataset.shown = this.results.dataset.kind;
  }

  over() {
    this.running = false;
    this.label();
  }

  async look(run = this.run?.run) {
    if (!run || this.looking) return;
    this.looking = true;
    const answer = await this.frame.ask("look", { run, lang: this.frame.lang });
    this.looking = false;
    if (answer?.kind === "snapshot") this.receive(answer);
    else if (answer?.kind === "gone") {
      this.say(this.text("lab.gone"));
      if (this.running) this.over();
    }
  }

  /** The measurement before, in another language. */
  async relook() {
    const { shown } = this;
    const answer = await this.frame.ask("look", { run: shown.run, lang: this.frame.lang });
    if (answer?.kind !== "snapshot" || this.shown !== shown) return;
    this.draw(answer, answer.rows);
    this.old = true;
    this.whose();
  }

  watch() {
    if (this.running && this.run && performance.now() - this.heard > SILENCE_MS) {
      this.heard = performance.now();
      this.look();
    }
  }

  /** Open the model that a row speaks of in Explore. @param {number} row */
  async openRow(row) {
    const tab = window.open("", "_blank"); // at once: later the browser would not let us; the measurement stays
    const answer = await this.frame.ask("link", { run: this.shown?.run, row, lang: this.frame.lang });
    const word = answer?.kind === "link" ? answer.word : null;
    const url = word ? new URL(`${this.frame.config.pages.explore}?${QUERIES.link}=${word}`, document.baseURI).href : null;
    if (url && tab) tab.location.href = url;
    else if (url) location.href = url;
    else tab?.close();
    if (!url) this.say((answer?.kind === "link" && answer.text) || this.text("lab.gone"), true);
  }

  /** @param {FileKind} kind */
  async download(kind) {
    const answer = await this.frame.ask("download", { run: this.shown?.run, kind });
    if (answer?.kind === "file") save(answer);
    else this.say(this.text("lab.gone"), true);
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  /** @param {string} text */
  say(text, bad = false) {
    this.said = text;
    this.bad = bad;
    this.show();
  }

  show() {
    const { run } = this;
    let shown = "";
    if (run) {
      const { done, total, eta, seconds, end } = run;
      const values = { done, total, seconds: duration(seconds), eta: eta === null ? "" : duration(eta) };
      shown = this.text(end ? `lab.end.${end}` : eta === null ? "lab.progress.first" : "lab.progress", values);
      this.bar.value = run.share; // of the work: a row may take long
    }
    this.bar.hidden = !this.running || !run;
    this.status.textContent = [this.said, this.bad || !this.said ? shown : ""].filter(Boolean).join(" · ");
    this.status.classList.toggle("lv-bad", Boolean(this.said && this.bad));
    for (const button of [this.go, ...this.form.buttons]) button.disabled = !this.task;
    this.root.dataset.state = this.running ? (run ? "running" : "starting") : "idle";
    this.go.dataset.state = this.root.dataset.state;
    this.go.setAttribute("aria-busy", String(this.running));
    this.halt.disabled = !this.running;
    this.mark();
  }

  /** What tests and tools read. */
  mark() {
    const { dataset } = this.root;
    dataset.ready = this.task ? "1" : "0";
    dataset.running = this.running ? "1" : "0";
    dataset.rows = String(this.run?.done ?? 0);
    dataset.end = this.run?.end ?? "";
  }
}

/** @param {Parts<Measure>} parts */
export const mount = (parts) => start(parts, Page);
