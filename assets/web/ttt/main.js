// The TTT page: a model whose memory learns while it reads, watched word by word.
// The other half is loopviz/app/ttt/service.py; messages are stated in loopviz/app/contract/ttt.py.

import { el, press, shown } from "../core/dom.js";
import { Frame, start, ticket } from "../core/page_head.js";
import { Plots } from "../core/plot.js";
import { Field } from "../widgets/form.js";
import { Glossary } from "../widgets/glossary.js";
import { FileButtons } from "./file_buttons.js";
import { Picture } from "./picture.js";
import { RuleSlider } from "./rule_slider.js";
import { RunForm } from "./run_form.js";
import { WordStrip } from "./word_strip.js";

/** @import { BeginTTT, TTTConfig, TTTNews, TttMessage, TttQuestions, TTTSnapshot, TTTWord } from "../core/contract.js" */
/** @import { Parts } from "../core/page_globals.js" */

const SILENCE_MS = 8000; // then the server is asked whether something got lost
const MEAN = "mean";

export class Page {
  /** @type {TTTSnapshot | null} the run, as far as messages have brought it */
  run = null;
  /** @type {TTTWord[]} of it */
  words = [];
  /** @type {TTTNews[]} that came before the snapshot they go on from */
  early = [];
  /** @type {{ layer: number, head: number | null, token: number | null }} where one looks; `token` null: the newest */
  where = { layer: 0, head: null, token: null };
  /** @type {boolean} whether a run is made */
  running = false;
  /** @type {boolean} whether the server has answered: before that a run that is begun goes nowhere */
  met = false;
  /** @type {boolean} whether Run was pressed before */
  pressed = false;
  /** @type {boolean} whether the server does not keep the run any more */
  gone = false;
  /** @type {number} of the latest start */
  n = 0;
  /** @type {string | null} of that one, unguessable */
  ticket = null;
  /** @type {number} when something was heard of it */
  heard = 0;
  /** @type {boolean} whether the run is asked for as it looks from elsewhere */
  looking = false;
  /** @type {boolean} whether one looks elsewhere again meanwhile */
  again = false;
  /** @type {object} the newest wish for the control's attention */
  wish = {};
  /** @type {object} the newest wish for what forgetting would cost */
  losing = {};
  /** @type {{ forget: boolean } | null} how a run is to be changed of which nothing has come yet */
  change = null;
  /** @type {number | undefined} until the model is looked for again */
  following = undefined;

  /**
   * @param {Parts<BeginTTT>} parts
   * @param {TTTConfig} config
   */
  constructor(parts, config) {
    /** @type {Frame<TTTConfig, TttQuestions, BeginTTT>} */
    this.frame = new Frame(parts, config, this, new Glossary());
    this.root = parts.root;
    this.plots = new Plots(this.frame);
    this.build();
    this.frame.label();
    this.label();
    this.follow();
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
    this.form = new RunForm(this);
    this.strip = new WordStrip(this);
    this.files = new FileButtons(this);
    this.layer = new Field({ name: "layer", kind: "choice", choices: ["0"] }, (value) => this.go({ layer: Number(value) }));
    this.head = new Field({ name: "head", kind: "choice", choices: [MEAN] }, (value) => this.go({ head: value === MEAN ? null : Number(value) }));
    this.lose = press("lv-quiet", () => this.forgetting());
    this.loseHint = el("span", "lv-question");
    this.chooser = el("div", "lv-ttt-where", this.layer.node, this.head.node);
    const losing = el("div", "lv-ttt-lose", this.lose, this.loseHint);
    this.textCard = el("section", "lv-card lv-ttt-text", this.files.node, this.strip.node, this.chooser, losing);
    /** @type {Map<string, Picture>} */
    this.pictures = new Map(this.frame.config.panels.map((panel) => [panel.name, new Picture(panel, this)]));
    this.rules = new RuleSlider(this, this.pictures.get("rules"));
    this.textCard.append(this.rules.node);
    const grid = el("div", "lv-ttt-panels", ...[...this.pictures.values()].map(({ node }) => node));
    this.root.replaceChildren(this.frame.head, this.form.node, this.textCard, grid, this.frame.glossary.dialog);
  }

  label() {
    this.form.label();
    this.strip.label();
    this.files.label();
    this.layer.label(this.text("ttt.layer"));
    this.head.label(this.text("ttt.head"), (choice) => (choice === MEAN ? this.text("ttt.head.mean") : choice));
    for (const picture of this.pictures.values()) picture.label();
    this.rules.label();
    this.show();
  }

  speak() {
    this.label();
    this.follow();
    if (this.run) this.look();
    this.control();
    this.rules.again();
    const lost = this.pictures.get("forgetting");
    if (!lost.node.hidden) this.forgetting();
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
        this.meet();
        form.modelLine.textContent = answer.text;
        form.modelLine.dataset.state = this.root.dataset.model = answer.state;
        if (answer.state === "ready") this.files.ready();
        if (["ready", "failed"].includes(answer.state)) return null;
      }
      return this.follow(900);
    }, wait);
  }

  // --- running -----------------------------------------------------------------------------------------------------

  /** The server has answered: what is pressed from now on is heard, and what was pressed before is done. */
  meet() {
    if (this.met) return;
    this.met = true;
    this.files.meet();
    if (this.pressed) this.begin();
  }

  /** Whether a run has been begun and nothing of it has come: what is shown is of the one before. */
  get awaits() {
    return this.running && this.run?.ticket !== this.ticket;
  }

  /** Begin a run, in place of one that is made. */
  begin() {
    const { form, where } = this;
    this.pressed = !this.met;
    if (this.pressed) return this.say(this.text("ttt.waiting"));
    this.form.refuse();
    this.where = { ...where, token: null };
    this.ticket = ticket();
    this.n += 1;
    this.running = true;
    this.heard = performance.now();
    this.early = [];
    this.change = null;
    [this.wish, this.losing] = [{}, {}]; // answers on their way are of another run
    for (const name of ["attention", "forgetting"]) this.pictures.get(name).node.hidden = true;
    this.rules.hide();
    this.files.stored.notice.clear();
    this.say(this.text("ttt.waiting"));
    this.follow();
    this.frame.begin({
      lang: this.frame.lang,
      ticket: this.ticket,
      n: this.n,
      model: form.model.value,
      prompt: form.prompt.value,
      max_new_tokens: form.fresh.value ?? 0,
      scale: form.scale,
      layer: where.layer,
      head: where.head,
      pace: Number(form.pace.value),
    });
    this.show();
  }

  stop() {
    this.frame.ask("stop", { ticket: this.ticket });
    this.say(this.text("ttt.stopping"));
  }

  /** Change the run from the next word on. @param {{ forget: boolean }} how */
  async steer({ forget }) {
    this.form.label();
    if (!this.running) return;
    if (this.awaits) {
      this.change = { forget: forget || this.change?.forget === true };
      return;
    }
    const { scale } = this.form;
    const answer = await this.frame.ask("steer", { run: this.run.run, forget, scale, lang: this.frame.lang });
    if (answer?.kind === "ok") this.say(forget ? this.text("ttt.forget.asked") : this.text("ttt.scale.now", { scale }));
    else if (answer?.kind === "no") this.say(answer.text, true);
    else if (answer?.kind === "gone") this.lost();
  }

  /** @param {TttMessage} message */
  receive(message) {
    if (message.kind === "visit") {
      this.files.visit(message);
      return;
    }
    if (message.kind === "config" || message.ticket !== this.ticket) return; // of a run that another has replaced
    this.heard = performance.now();
    if (message.kind === "status") {
      if (message.over) this.running = false;
      this.say(message.text, message.bad);
      if (message.bad) this.form.refuse(message.field, message.text);
      this.show();
      if (message.over) this.control(); // what is shown is the run before, and stays
    } else if (message.kind === "snapshot") this.adopt(message);
    else this.add(message);
  }

  /** The whole run, as it is shown now. @param {TTTSnapshot} message */
  adopt(message) {
    if (message.run !== this.run?.run) this.strip.clear();
    this.gone = false;
    this.run = message;
    this.words = message.words;
    this.choices(this.layer, [...Array(message.layers).keys()].map(String), String(Math.min(this.where.layer, message.layers - 1)));
    const heads = [MEAN, ...[...Array(message.heads).keys()].map(String)];
    this.choices(this.head, heads, this.where.head === null || this.where.head >= message.heads ? MEAN : String(this.where.head));
    for (const [name, figure] of Object.entries(message.figures)) this.pictures.get(name).take(figure, message.summaries[name]);
    this.tell(message);
    if (this.change && message.ticket === this.ticket) {
      const { change } = this;
      this.change = null;
      this.steer(change);
    }
    const early = this.early.filter(({ run, epoch }) => run === message.run && epoch === message.epoch);
    this.early = [];
    for (const news of early) if (news.first >= this.words.length) this.add(news);
  }

  /** What has come since. @param {TTTNews} message */
  add(message) {
    const { run } = this;
    if (!run || message.run !== run.run || message.epoch > run.epoch) {
      this.early.push(message);
      if (!this.looking) this.look(message.run);
      return;
    }
    if (message.epoch < run.epoch) return; // what is shown now has it
    if (message.first !== this.words.length) {
      this.look();
      return;
    }
    this.words = [...this.words, ...message.words];
    this.run = { ...run, ...message, kind: "snapshot", figures: run.figures };
    for (const [name, ops] of Object.entries(message.ops)) this.pictures.get(name).fold(ops);
    for (const [name, said] of Object.entries(message.summaries)) this.pictures.get(name).summary.textContent = said;
    this.tell(message);
  }

  /** How far it is, or how it ended. @param {TTTSnapshot | TTTNews} message */
  tell(message) {
    const n = this.words.length;
    this.strip.fill();
    if (message.ticket !== this.ticket) return this.show(); // another one has been begun, and the line is about that
    if (message.end && this.running) {
      this.running = false;
      this.control();
    }
    if (message.reason) this.say(message.reason, true);
    else if (message.end) this.say(this.text("ttt.done", { n, end: this.text(`live.end.${message.end}`) }));
    else if (this.running) this.say(this.text("ttt.progress", { n, size: this.run.mini_batch }));
    return this.show();
  }

  /**
   * @param {Field<any>} field
   * @param {string[]} choices
   * @param {string} value
   */
  choices(field, choices, value) {
    const { input } = field;
    if (input.childElementCount !== choices.length) {
      input.replaceChildren(...choices.map((choice) => Object.assign(el("option"), { value: choice })));
      this.label();
    }
    input.value = value;
  }

  /** Look elsewhere. @param {Partial<Page["where"]>} to */
  go(to) {
    this.where = { ...this.where, ...to };
    this.strip.mark();
    this.show();
    this.look();
    this.control();
    if (!("token" in to)) this.rules.again(); // they are of the whole text
  }

  /** The run from where one looks; while that is asked, the newest wish waits. */
  async look(run = this.run?.run) {
    if (!run) return;
    if (this.looking) {
      this.again = true;
      return;
    }
    this.looking = true;
    const answer = await this.frame.ask("look", { run, ...this.where, lang: this.frame.lang });
    this.looking = false;
    if (answer?.kind === "snapshot" && (answer.run === this.run?.run || answer.ticket === this.ticket)) this.adopt(answer);
    else if (answer?.kind === "gone" && !this.awaits) this.lost();
    if (this.again) {
      this.again = false;
      this.look();
    }
  }

  /** The server keeps it no longer. */
  lost() {
    this.running = false;
    this.gone = true;
    this.say(this.text("ttt.gone"), true);
    this.show();
  }

  watch() {
    if (!this.running || performance.now() - this.heard < SILENCE_MS) return;
    this.heard = performance.now();
    if (this.run?.ticket === this.ticket) this.look();
    else this.say(this.text("ttt.silent"));
  }

  /** What the control looks at, beside the matrix: of a word that was chosen, or when the run has ended. */
  async control() {
    if (!this.run || this.gone || this.awaits || (this.running && this.where.token === null)) return;
    const wish = (this.wish = {});
    const { run } = this.run;
    const answer = await this.frame.ask("attention", { run, ...this.where, lang: this.frame.lang, ...this.files.visitor });
    if (wish !== this.wish || this.run.run !== run) return;
    const { note } = this.pictures.get("dual");
    note.hidden = answer?.kind !== "no";
    if (answer?.kind === "no") note.textContent = answer.text;
    if (answer?.kind === "attention") this.pictures.get("attention").take(answer.figure, answer.summary);
    else this.pictures.get("attention").node.hidden = true;
  }

  // --- forgetting ----------------------------------------------------------------------------------------------------

  /** The word after which it would be set back; null where there is none that others follow. */
  get forgets() {
    const last = this.words.length - 2;
    const token = this.where.token ?? Math.min(last, Math.floor(this.words.length / 2));
    return token >= 0 && token <= last ? token : null;
  }

  /** What the words after it cost, with what was read before and without. */
  async forgetting() {
    const token = this.forgets;
    if (!this.run || token === null) return;
    this.say(this.text("ttt.lose.reading"));
    const wish = (this.losing = {});
    const answer = await this.frame.ask("forgetting", { run: this.run.run, token, lang: this.frame.lang, ...this.files.visitor });
    if (wish !== this.losing) return;
    if (answer?.kind === "forgetting") {
      const picture = this.pictures.get("forgetting");
      picture.take(answer.figure, answer.summary);
      picture.node.scrollIntoView({ block: "nearest" });
      this.say(answer.summary);
    } else if (answer?.kind === "no") this.say(answer.text, true);
    else if (answer?.kind === "gone") this.lost();
    else this.say(this.text("ttt.lost"), true);
    this.mark();
  }

  // --- what is shown -------------------------------------------------------------------------------------------------

  /** @param {string} text */
  say(text, bad = false) {
    this.form.line.textContent = text;
    this.form.line.classList.toggle("lv-bad", bad);
  }

  /** How everything stands. */
  show() {
    this.form.show();
    this.files.show();
    this.rules.show();
    this.chooser.hidden = !this.run;
    const token = this.forgets;
    const undo = this.run?.changes.some(({ index, forget }) => forget && index === (token ?? -2) + 1);
    const word = token === null ? "" : shown(this.words[token][0].trim()) || "…";
    this.lose.hidden = this.loseHint.hidden = !this.run || token === null;
    this.lose.textContent = this.text(undo ? "ttt.lose.undo" : "ttt.lose", { word });
    this.lose.disabled = this.running || this.gone;
    this.loseHint.textContent = this.text("ttt.lose.hint");
    this.mark();
  }

  /** What tests and styles go by. */
  mark() {
    const { dataset } = this.root;
    dataset.state = this.running ? "running" : "idle";
    dataset.words = String(this.words.length);
    dataset.end = this.run?.end ?? "";
    dataset.epoch = String(this.run?.epoch ?? "");
    dataset.token = String(this.where.token ?? "");
    dataset.ready = "1";
  }
}

/** @param {Parts<BeginTTT>} parts */
export function mount(parts) {
  return start(parts, Page);
}
