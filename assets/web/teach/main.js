// The Teach page: a LoRA with which a model loops, watched while it learns.
// The other half is loopviz/app/teach/service.py; messages are stated in loopviz/app/contract/teach.py.

import { el, press, scrollable } from "../core/dom.js";
import { Frame, start, ticket } from "../core/page_head.js";
import { Plot, Plots } from "../core/plot.js";
import { Glossary } from "../widgets/glossary.js";
import { KeptAdapter } from "./kept_adapter.js";
import { TeachForm } from "./teach_form.js";

/** @import { BeginTeach, TeachConfig, TeachMessage, TeachQuestions, TeachSnapshot } from "../core/contract.js" */
/** @import { Parts } from "../core/page_globals.js" */

const SILENCE_MS = 8000; // then the server is asked whether something got lost
const PICTURES = ["loss", "by_loops", "curves"];

/** @param {number} seconds */
function duration(seconds) {
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export class Page {
  /** @type {TeachSnapshot | null} the teaching, as it was last told */
  run = null;
  /** @type {boolean} whether one is made, or kept */
  running = false;
  /** @type {number} of the latest start */
  n = 0;
  /** @type {string | null} of that one, unguessable */
  ticket = null;
  /** @type {string | null} the teaching that is to be kept */
  wanted = null;
  /** @type {string} why it was not, until something else is asked for */
  refusal = "";
  /** @type {number} when something was heard of it */
  heard = 0;
  /** @type {number | undefined} until the model is looked for again */
  following = undefined;

  /**
   * @param {Parts<BeginTeach>} parts
   * @param {TeachConfig} config
   */
  constructor(parts, config) {
    /** @type {Frame<TeachConfig, TeachQuestions, BeginTeach>} */
    this.frame = new Frame(parts, config, this, new Glossary());
    this.root = parts.root;
    this.plots = new Plots(this.frame);
    this.build();
    this.frame.label();
    this.label();
    if (config.teaches) this.follow();
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

  build() {
    const { config } = this.frame;
    this.form = new TeachForm(this);
    this.kept = new KeptAdapter(this);
    this.notice = el("p", "lv-teach-notice");
    this.notice.hidden = config.teaches && config.able;
    this.form.node.hidden = !config.teaches;
    this.go = press("lv-go", () => this.begin());
    this.rest = press("lv-halt", () => this.pause());
    this.halt = press("lv-halt", () => this.stop());
    this.keep = press("lv-halt", () => this.keeping());
    this.line = el("p", "lv-status");
    this.line.setAttribute("role", "status");
    this.bar = el("progress", "lv-progress");
    this.buttons = el("div", "lv-buttons-row", this.go, this.rest, this.halt, this.keep);
    this.buttons.hidden = !config.teaches;
    const asking = el("section", "lv-card lv-asking", this.notice, this.form.node, this.buttons, this.line, this.bar);
    /** @type {Map<string, { plot: Plot, summary: HTMLElement }>} */
    this.pictures = new Map(PICTURES.map((name) => [name, { plot: new Plot(name, this.plots), summary: el("p", "lv-sr") }]));
    for (const [, { plot, summary }] of this.pictures) plot.node.append(summary);
    this.facts = el("p", "lv-question");
    this.commandTitle = el("summary");
    this.command = el("code", "lv-teach-command");
    this.same = el("details", "", this.commandTitle, this.command);
    this.told = el("section", "lv-card lv-teach-told", this.facts, this.same);
    const grid = el("div", "lv-teach-panels", ...[...this.pictures.values()].map(({ plot }) => plot.node));
    this.results = el("div", "lv-results", this.kept.node, grid, this.told);
    this.results.hidden = true;
    this.root.replaceChildren(this.frame.head, el("div", "lv-teach", asking, this.results), this.frame.glossary.dialog);
  }

  label() {
    const { teaches, install } = this.frame.config;
    this.notice.textContent = this.text(teaches ? "teach.unable" : "teach.elsewhere", { install });
    this.form.label();
    this.go.textContent = this.text("teach.run");
    this.halt.textContent = this.text("teach.stop");
    this.halt.title = this.text("teach.stop.hint");
    this.keep.textContent = this.text("teach.keep");
    this.keep.title = this.text("teach.keep.hint");
    this.commandTitle.textContent = this.text("teach.command");
    for (const [name, { plot }] of this.pictures) plot.label(this.text(`teach.${name}`), this.text(`teach.${name}.question`));
    this.show();
  }

  speak() {
    this.label();
    if (this.frame.config.teaches) this.follow();
    this.refusal = ""; // what was said in the other language
    if (this.run) this.look();
    else if (!this.running) this.say("");
  }

  recolour() {
    this.plots.recolour();
  }

  /** Follow the model until it is there. */
  follow(wait = 0) {
    clearTimeout(this.following);
    this.following = setTimeout(async () => {
      const { form } = this;
      const asked = { model: form.model.value, lang: this.frame.lang, look: false };
      const answer = await this.frame.ask("model", asked);
      if (asked.model !== form.model.value || asked.lang !== this.frame.lang) return this.follow();
      if (answer?.kind === "model") {
        form.modelLine.textContent = answer.text;
        form.modelLine.dataset.state = this.root.dataset.model = answer.state;
        form.bring(answer);
        if (["ready", "failed"].includes(answer.state)) return null;
      }
      return this.follow(900);
    }, wait);
  }

  // --- teaching ----------------------------------------------------------------------------------------------------

  /** @param {Partial<BeginTeach>} asked */
  start(asked) {
    this.ticket = ticket();
    this.n += 1;
    this.running = true;
    this.refusal = "";
    this.heard = performance.now();
    this.say(this.text("teach.waiting"));
    this.frame.begin({ lang: this.frame.lang, ticket: this.ticket, n: this.n, ...asked });
    this.show();
  }

  /** Begin, in place of one that is made. */
  begin() {
    const { form } = this;
    form.refuse();
    this.wanted = null;
    this.start({ model: form.model.value, prompt: form.prompt.value, text: form.text.value, values: form.values() });
  }

  /** End it, measure it, have it packed. */
  keeping() {
    this.wanted = this.run.run; // where there is no place for it just now, it can be asked for again
    this.start({ keep: this.wanted });
  }

  stop() {
    this.frame.ask("stop", { ticket: this.ticket });
    this.say(this.text("teach.stopping"));
  }

  /** Rest, or go on. */
  async pause() {
    const on = this.run.phase !== "paused";
    const answer = await this.frame.ask("pause", { run: this.run.run, on });
    if (answer?.kind === "gone") this.lost();
    else if (answer && on) this.say(this.text("teach.pausing"));
  }

  /** @param {TeachMessage} message */
  receive(message) {
    if (message.kind === "config" || message.ticket !== this.ticket) return; // of one that another has replaced
    this.heard = performance.now();
    if (message.kind === "status") {
      if (message.over) this.running = false;
      this.say(message.text, message.bad);
      if (message.bad) this.form.refuse(message.field, message.text);
      if (message.over && this.wanted) this.unkept(message.bad ? message.text : "");
      this.show();
    } else this.take(message);
  }

  /** It was not kept: what is made of it goes on, or has ended meanwhile. @param {string} why */
  unkept(why) {
    this.refusal = why;
    this.wanted = null;
    this.ticket = this.run.ticket;
    this.running = this.run.phase !== "over";
    this.look();
  }

  /** All there is of it. @param {TeachSnapshot} message */
  take(message) {
    this.run = message;
    if (message.phase === "over") this.running = false;
    this.results.hidden = false;
    for (const [name, { plot, summary }] of this.pictures) {
      const figure = message.figures[name];
      summary.textContent = message.summaries[name];
      if (JSON.stringify(figure) !== JSON.stringify(plot.figure)) plot.take(figure);
    }
    this.kept.show(message.kept);
    const said = message.reason || this.progress(message);
    this.say(this.refusal ? `${this.refusal} · ${said}` : said, Boolean(this.refusal || message.reason));
    this.show();
  }

  /** How far it is, or how it ended. @param {TeachSnapshot} message */
  progress({ phase, step, steps, seconds, eta, end }) {
    const values = { step, steps, seconds: duration(seconds), eta: eta === null ? "" : duration(eta) };
    if (phase === "over") return this.text(step ? `teach.end.${end}` : "teach.end.unlearned", values);
    return this.text(phase === "training" && !step ? "teach.phase.first" : `teach.phase.${phase}`, values);
  }

  async look() {
    const { run } = this;
    const answer = await this.frame.ask("look", { run: run.run, lang: this.frame.lang });
    if (answer?.kind === "snapshot" && this.run?.run === answer.run) this.take(answer);
    else if (answer?.kind === "gone") this.lost();
  }

  /** The server keeps it no longer. */
  lost() {
    this.running = false;
    this.say(this.text("teach.gone"), true);
    this.show();
  }

  watch() {
    if (!this.running || performance.now() - this.heard < SILENCE_MS) return;
    this.heard = performance.now();
    if (this.run?.ticket === this.ticket) this.look();
    else this.say(this.text("teach.silent"));
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  /** @param {string} text */
  say(text, bad = false) {
    this.line.textContent = text;
    this.line.classList.toggle("lv-bad", bad);
  }

  show() {
    const { run, running } = this;
    const { able } = this.frame.config;
    const mine = run !== null && (run.ticket === this.ticket || run.run === this.wanted); // what is shown is of the latest start
    const phase = mine ? run.phase : "";
    const paused = phase === "paused";
    this.go.disabled = !able;
    this.halt.disabled = !running;
    this.rest.disabled = !running || !["training", "paused", "line"].includes(phase);
    this.rest.textContent = this.text(paused ? "teach.on" : "teach.pause");
    this.rest.title = this.text(paused ? "teach.on.hint" : "teach.pause.hint");
    this.keep.disabled = !mine || !run.step || (running && this.wanted !== null) || phase === "keeping" || run.kept !== null;
    this.bar.hidden = !running || !mine || phase === "keeping";
    if (run) {
      this.bar.value = run.step / run.steps;
      const { model, trained, seed, tokens, command } = run;
      const values = { model, seed, trained: trained.toLocaleString("en"), tokens: tokens.toLocaleString("en") };
      this.facts.textContent = this.text("teach.facts", values);
      this.command.textContent = command;
      scrollable(this.command, this.text("teach.command"));
    }
    const { dataset } = this.root;
    dataset.state = running ? "running" : "idle";
    dataset.phase = phase;
    dataset.step = String(run?.step ?? 0);
    dataset.end = run?.end ?? "";
    dataset.kept = run?.kept ? "1" : "0";
    dataset.ready = "1";
  }
}

/** @param {Parts<BeginTeach>} parts */
export const mount = (parts) => start(parts, Page);
