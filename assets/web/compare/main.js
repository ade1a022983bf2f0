// The Compare page: configurations beside each other, their texts and curves as they come, a table and a Pareto plot.
// The other half is loopviz/app/compare/service.py; messages are stated in loopviz/app/contract/compare.py.

import { QUERIES, RECORDED, USUAL_PRESET } from "../core/contract.js";
import { el, press } from "../core/dom.js";
import { Frame, save, start, ticket } from "../core/page_head.js";
import { Field } from "../widgets/form.js";
import { Glossary } from "../widgets/glossary.js";
import { AskModel } from "../widgets/model_consent.js";
import { ModelNotes } from "../widgets/model_notes.js";
import { PrecisionChoice } from "../widgets/precision_choice.js";
import { followPrompt } from "../widgets/prompt_keys.js";
import { Card } from "./configuration_card.js";
import { Results } from "./results.js";

const SILENCE_MS = 5000; // then the server is asked whether something got lost

/** @import { Check, Compare, CompareConfig, CompareMessage, CompareNews, CompareQuestions, CompareSnapshot, Control, Values } from "../core/contract.js" */
/** @import { Parts } from "../core/page_globals.js" */
/** @import { Setup } from "./configuration_card.js" */
/** @import { FileKind } from "./results.js" */

export class Page {
  /** @type {Card[]} */
  cards = [];
  /** @type {Card | null} the one that the others are compared with */
  baseline = null;
  /** @type {Values} of everybody's controls */
  shared = {};
  /** @type {Map<string, Field<Control>>} everybody's, by control */
  sharedFields = new Map();
  /** @type {boolean} whether the model has a loop of its own */
  looped = true;
  /** @type {string} the model whose settings the cards hold */
  suits = "";
  /** @type {boolean} whether the model is the visitor's own choice */
  chosen = false;
  /** @type {boolean} whether Stop was pressed while it was on its way */
  resting = false;
  /** @type {number} of the latest start */
  n = 0;
  /** @type {string | null} of that one, unguessable */
  ticket = null;
  /** @type {string | null} the comparison shown */
  run = null;
  /** @type {boolean} whether the cards are those of the recorded comparison, which is shown */
  ofRecorded = false;
  /** @type {CompareSnapshot["end"]} why it ended */
  end = null;
  /** @type {boolean} whether one is made */
  running = false;
  /** @type {number} what has been heard of it */
  seq = 0;
  /** @type {number} when */
  heard = 0;
  /** @type {boolean} whether it is asked for anew */
  looking = false;
  /** @type {number | undefined} until what is set up is checked */
  checking = undefined;
  /** @type {string} what is said; "": how far it is */
  said = "";
  /** @type {boolean} whether that is bad news */
  bad = false;
  /** @type {boolean} whether settings were changed since the comparison began */
  stale = false;

  /**
   * @param {Parts<Compare>} parts
   * @param {CompareConfig} config
   */
  constructor(parts, config) {
    /** @type {Frame<CompareConfig, CompareQuestions, Compare>} */
    this.frame = new Frame(parts, config, this, new Glossary());
    this.root = parts.root;
    /** @type {Values} as the model brings them */
    this.base = Object.fromEntries(config.controls.map((control) => [control.name, control.value]));
    this.build(config);
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

  /** @param {CompareConfig} config */
  build(config) {
    this.prompt = new Field({ name: "prompt", kind: "long" }, () => this.edited());
    this.after = new Field({ name: "continuation", kind: "long" }, () => this.edited());
    this.go = press("lv-go", () => this.compare());
    this.halt = press("lv-halt", () => this.stop());
    this.status = el("span", "lv-status");
    this.status.setAttribute("role", "status");
    this.cost = el("span", "lv-cost");
    this.modelLine = el("span", "lv-model");
    this.asking = new AskModel(() => this.check(0));
    this.model = new Field({ name: "model", kind: "name" }, () => this.remodel());
    const names = el("datalist", "", ...config.models.map((called) => Object.assign(el("option"), { value: called })));
    names.id = "lv-models";
    this.names = names;
    this.model.input.setAttribute("list", names.id);
    this.model.value = config.models[0];
    this.precision = new PrecisionChoice(config.controls, () => this.reheld(), () => this.compare());
    this.notes = new ModelNotes();
    const form = el("div", "lv-form", this.model.node, names, this.precision.node);
    for (const control of config.controls.filter((one) => one.group === "sampling")) {
      const field = new Field(control, (value) => {
        this.shared[control.name] = value;
        this.edited();
      });
      field.value = this.shared[control.name] = control.value;
      this.sharedFields.set(control.name, field);
      form.append(field.node);
    }
    this.sharedTitle = el("summary");
    /** @type {[string, Setup][]} */
    const offered = [
      ["compare.plain", { plain: true, origin: "compare.plain" }],
      ["compare.own", { origin: "compare.own" }],
      ["compare.other.add", { model: config.other }],
      ["compare.sweep.add", { origin: "compare.sweep.name", sweep: config.limits.sweep }],
      ...config.presets.map((preset) => /** @type {[string, Setup]} */ ([`preset.${preset.name}.label`, { origin: `preset.${preset.name}.label`, changes: preset.values }])),
    ];
    this.adders = offered.map(([key, card]) => {
      const button = press("lv-preset-button", () => this.add(card));
      button.dataset.key = key;
      return button;
    });
    this.addTitle = el("span", "lv-add-title");
    this.sharedForm = el("details", "", this.sharedTitle, form);
    const asking = el(
      "section",
      "lv-card lv-asking",
      el("div", "lv-asked", this.prompt.node, this.after.node),
      el("div", "lv-card-row", el("div", "lv-buttons-row", this.go, this.halt), this.cost, this.status, this.precision.out, this.modelLine, this.notes.node),
      this.asking.node,
      this.sharedForm,
    );
    followPrompt(".lv-asking", () => this.compare());
    this.setups = el("div", "lv-setups");
    this.results = new Results(this.frame, { look: (change) => this.look(change), download: (kind) => this.download(kind) });
    const adding = el("div", "lv-adders", this.addTitle, ...this.adders);
    this.root.replaceChildren(this.frame.head, asking, this.results.node, adding, this.setups, this.results.grid, this.frame.glossary.dialog);
  }

  /** The first cards: those of a link, of the recorded comparison where it is of this model, or usual ones. */
  async open() {
    const { config } = this.frame;
    const { recorded } = config;
    const word = new URLSearchParams(location.search).get(QUERIES.link);
    const offer = config.offers[config.models[0]] ?? config.offers[""];
    this.prompt.value = offer.examples[0];
    this.after.value = offer.continuation;
    const own = { origin: "compare.own" };
    const slot = config.presets.find((preset) => preset.name === USUAL_PRESET);
    /** @type {Setup[]} */
    let cards = [{ plain: true, origin: "compare.plain" }, own, { origin: `preset.${USUAL_PRESET}.label`, changes: slot.values }];
    if (recorded && !word && recorded.model === config.models[0]) {
      [this.prompt.value, this.after.value] = [recorded.prompt, recorded.continuation];
      cards = recorded.cards.map(({ origin, plain, values, sweep }) => ({ origin, plain, changes: values, sweep }));
      this.ofRecorded = true;
    }
    const opened = word ? await this.frame.ask("opening", { word, lang: this.frame.lang }) : null;
    if (opened?.kind === "opening") {
      this.model.value = opened.values.model;
      this.precision.value = opened.values.precision;
      if (opened.prompt !== null) [this.prompt.value, this.after.value] = [opened.prompt, ""];
      for (const [key, field] of this.sharedFields) field.value = this.shared[key] = opened.values[key];
      const values = Object.fromEntries(config.controls.filter(({ group }) => config.groups.includes(group)).map(({ name }) => [name, opened.values[name]]));
      if (opened.beside === null) cards.splice(1, 2, { origin: "compare.current", held: { model: String(opened.values.model), values } }, own);
      else cards.splice(1, 2, { origin: "compare.taught", model: opened.beside, linked: true });
      if (opened.said.length) this.say(opened.said.join(" "), true);
    }
    this.cards = cards.map((card) => new Card(this, card));
    this.baseline = this.cards[0];
    this.setups.replaceChildren(...this.cards.map((card) => card.node));
    this.results.expect(Boolean(recorded) && !word);
    this.frame.label();
    this.label();
    this.check();
    if (recorded && !word) await this.look({}, RECORDED);
    this.mark();
  }

  /** Words in the page's language. */
  speak() {
    this.label();
    this.check();
    if (this.results.run) this.look({}, this.results.run);
  }

  label() {
    /** @type {(key: string, values?: Record<string, any>) => string} */
    const text = (key, values) => this.text(key, values);
    this.prompt.label(text("compare.prompt"));
    this.prompt.show({ info: text("compare.prompt.hint") });
    this.after.label(text("compare.continuation"));
    this.after.show({ info: text("compare.continuation.hint") });
    this.sharedTitle.textContent = text("compare.shared");
    this.model.label(text("model.label"));
    this.model.show({ info: text("model.info") });
    this.precision.label(text);
    for (const [key, field] of this.sharedFields) field.label(text(`${key}.label`), (choice) => text(`${key}.${choice}`));
    this.go.textContent = text("compare.run");
    this.halt.textContent = text("compare.stop");
    this.addTitle.textContent = text("compare.add");
    this.addTitle.title = text("compare.add.hint", this.frame.config.limits);
    for (const button of this.adders) {
      button.textContent = `+ ${this.called(button.dataset.key)}`;
      button.disabled = this.full;
    }
    this.results.label();
    for (const card of this.cards) card.label();
    this.showState();
  }

  /** What a card of this origin is called: a model that has no loop of its own takes the usual one. @param {string} origin */
  called(origin, most = this.frame.config.limits.sweep) {
    return this.text(origin === "compare.own" && !this.looped ? "compare.usual" : origin, { most });
  }

  recolour() {
    this.results.plots.recolour();
  }

  // --- configurations ----------------------------------------------------------------------------------------------

  get full() {
    return this.cards.length >= this.frame.config.limits.most;
  }

  /** The cards changed: what an earlier comparison found is not theirs any more. */
  changed() {
    if (this.running) {
      this.stop();
      this.ticket = null; // what still comes of it is not these cards'
      this.running = false;
    }
    this.setups.replaceChildren(...this.cards.map((card) => card.node));
    this.forget();
    this.label();
    this.check();
  }

  /** What is shown is not of what is set up: it stays, and says so, until there is something in its place. */
  forget() {
    this.run = null;
    this.ofRecorded = false;
    this.results.age();
    for (const card of this.cards) card.reset();
  }

  /** @param {Setup} made */
  add(made) {
    if (this.full) return;
    const card = new Card(this, made);
    this.cards.push(card);
    this.changed();
    card.node.scrollIntoView({ block: "nearest" });
  }

  /** @param {Card} card */
  drop(card) {
    this.cards = this.cards.filter((one) => one !== card);
    if (this.baseline === card) this.baseline = this.cards[0];
    this.changed();
  }

  /** @param {Card} card */
  rebase(card) {
    this.baseline = card;
    this.edited();
  }

  /** Settings of the cards that stay changed: what is shown is not of them any more, and a recorded comparison does not come back into them. */
  edited() {
    this.stale = true;
    this.ofRecorded = false;
    this.results.age();
    this.label();
    this.check();
  }

  baselineLength() {
    return this.cards.find((card) => card.result?.row?.baseline)?.result.row.new_tokens ?? -1;
  }

  /** Another model: its own prompt, unless the visitor wrote one. */
  remodel() {
    this.chosen = true;
    this.resting = false;
    this.precision.offer(); // of another model it is no way out
    const { offers } = this.frame.config;
    const offer = offers[this.model.value.trim()] ?? offers[""];
    const known = Object.values(offers);
    if (known.some(({ examples }) => examples.includes(this.prompt.value))) this.prompt.value = offer.examples[0];
    if (known.some(({ continuation }) => continuation === this.after.value)) this.after.value = offer.continuation;
    this.edited();
  }

  /** The models are to be held otherwise. */
  reheld() {
    this.resting = false;
    this.edited();
  }

  /** @returns {Check} */
  asked() {
    return {
      lang: this.frame.lang,
      model: this.model.value,
      precision: this.precision.value,
      linked: this.asking.linked(this.model.value, this.chosen),
      look: this.resting,
      suits: this.suits,
      shared: this.shared,
      cards: this.cards.map((card) => card.asked()),
      baseline: this.baseline.place,
      lengths: [this.prompt.value.length, this.after.value.length],
    };
  }

  /** Ask what applies and what is refused, soon; and again until the model is there. */
  check(wait = 150) {
    clearTimeout(this.checking);
    this.checking = setTimeout(async () => {
      const asked = this.asked();
      const answer = await this.frame.ask("check", asked);
      if (answer?.kind !== "checked" || JSON.stringify(asked) !== JSON.stringify(this.asked())) return this.check(answer ? 150 : 2000);
      this.modelLine.textContent = answer.model.text;
      this.modelLine.dataset.state = this.root.dataset.model = answer.model.state;
      this.asking.show(this.model.value, answer.model, this.frame.text("live.model.load"));
      this.precision.show(answer.model.precision);
      this.notes.show(answer.model.notes);
      for (const [key, look] of Object.entries(answer.shared)) this.sharedFields.get(key).show(look);
      if (answer.base && answer.model.name !== this.suits) {
        // the model brings its settings; what was set on a card and cannot be had with it has given way
        [this.base, this.looped, this.suits] = [answer.base, answer.looped, answer.model.name];
        this.cards.forEach((card, i) => card.suit(answer.cards[i].gave));
        this.label();
        return this.check(0);
      }
      this.cards.forEach((card, i) => card.checked(answer.cards[i]));
      this.cost.textContent = answer.cost ? this.text("compare.cost.all", { time: answer.cost }) : "";
      this.mark();
      const known = ["ready", "failed", "ask"];
      const over = (known.includes(answer.model.state) && answer.cards.every(({ state }) => known.includes(state))) || (asked.look && answer.model.state === "waiting");
      return over ? null : this.check(700);
    }, wait);
  }

  // --- running -----------------------------------------------------------------------------------------------------

  /** Begin a comparison, in place of one that runs. */
  compare() {
    if (this.running) this.stop();
    this.forget();
    this.asking.agree(this.model.value); // to run it is to agree
    for (const card of this.cards) card.linked = false;
    this.resting = false;
    this.ticket = ticket();
    this.n += 1;
    this.running = true;
    this.stale = false;
    this.precision.offer();
    this.heard = performance.now();
    this.say(this.text("compare.stage.waiting"));
    this.frame.begin({ ...this.asked(), prompt: this.prompt.value, continuation: this.after.value, ticket: this.ticket, n: this.n });
    this.label();
  }

  /** End one configuration, or all. @param {Card | null} card */
  stop(card = null) {
    this.frame.ask("stop", { ticket: this.ticket, place: card ? card.place : null });
    if (!card) this.resting = this.root.dataset.model !== "ready";
    for (const one of card ? [card] : this.cards) one.halt();
    if (!card) this.say(this.text("compare.stopping"));
  }

  /** @param {CompareMessage} message */
  receive(message) {
    this.heard = performance.now();
    if ("ticket" in message && message.ticket !== this.ticket) return; // of a comparison that another has replaced
    if (message.kind === "status") {
      this.say(message.text, message.bad);
      if (message.reasons) this.refuse(message.reasons);
      const shared = this.sharedFields.get(message.field);
      shared?.show({ info: message.text, bad: true });
      if (this.precision.take(message) || shared) this.sharedForm.open = true; // it is said there
      if (message.over) this.over();
    } else if (message.kind === "snapshot") this.snapshot(message);
    else if (message.kind === "news") this.news(message);
    this.mark();
  }

  over() {
    this.running = false;
    this.label();
  }

  /** @param {Record<string, string>} reasons by place */
  refuse(reasons) {
    for (const [place, reason] of Object.entries(reasons)) this.cards[Number(place)]?.take({ stage: "refused", reason, from: 0, pieces: [] });
  }

  /** @param {CompareSnapshot} message */
  snapshot(message) {
    this.run = message.run;
    this.seq = message.seq;
    this.refuse(message.refused);
    for (const [place, card] of Object.entries(message.cards)) {
      this.cards[Number(place)]?.text.replaceChildren();
      this.cards[Number(place)]?.take(card);
    }
    this.results.take(message, this.stale ? "old" : "own");
    this.said = "";
    this.finish(message.end);
    this.results.rows(this.found());
  }

  /** What the cards have found, by their places. */
  found() {
    return this.cards.filter((card) => card.result).map(({ place, result }) => ({ place, news: result }));
  }

  /** The recorded comparison, or one whose cards have changed since. @param {CompareSnapshot} message */
  retake(message) {
    const recorded = message.run === RECORDED;
    this.results.take(message, recorded ? RECORDED : "old");
    if (recorded && this.ofRecorded && !this.running) {
      for (const [place, news] of Object.entries(message.cards)) {
        this.cards[Number(place)]?.text.replaceChildren();
        this.cards[Number(place)]?.take(news);
      }
    }
    this.results.rows(Object.entries(message.cards).map(([place, news]) => ({ place: Number(place), news })));
    this.mark();
  }

  /** @param {CompareNews} message @returns {void} */
  news(message) {
    if (message.run !== this.run || message.first > this.seq) return void this.look({}, message.run);
    if (message.last < this.seq || (message.last === this.seq && !message.end)) return undefined; // a snapshot has it
    if (message.first < this.seq) return void this.look({}, message.run);
    this.seq = message.last;
    for (const [place, card] of Object.entries(message.cards)) this.cards[Number(place)]?.take(card);
    this.results.add(message);
    this.finish(message.end);
    if (message.pareto || message.end) this.results.rows(this.found());
    return undefined;
  }

  /** @param {CompareSnapshot["end"]} end */
  finish(end) {
    this.end = end;
    if (end && this.running) {
      this.said = "";
      this.over();
    } else this.showState();
  }

  /**
   * Everything of the comparison anew, in another language or by another quantity.
   * @param {{ view?: string, axes?: string[] }} change
   */
  async look(change, run = this.run ?? this.results.run) {
    if (!run || this.looking) return;
    this.looking = true;
    const axes = run === RECORDED ? { view: this.results.chosen?.view, axes: this.results.chosen?.axes } : {}; // nobody keeps them for us
    const answer = await this.frame.ask("look", { run, lang: this.frame.lang, ...axes, ...change });
    this.looking = false;
    const shown = run === RECORDED || run === this.results.run;
    if (answer?.kind === "snapshot" && run !== RECORDED && (run === this.run || (this.running && !shown))) this.receive(answer);
    else if (answer?.kind === "snapshot" && shown) {
      if (!this.run) this.retake(answer);
    } else if (run === RECORDED) this.results.expect(false); // the page is as good without it
    else if (answer?.kind === "gone" && (run === this.run || !this.running)) {
      this.say(this.text("compare.gone"));
      this.over();
    }
  }

  /** The server may have gone on without us: silence is looked into. */
  watch() {
    if (this.running && this.run && performance.now() - this.heard > SILENCE_MS) {
      this.heard = performance.now();
      this.look({});
    }
  }

  /** @param {FileKind} kind */
  async download(kind) {
    const answer = await this.frame.ask("download", { run: this.run ?? this.results.run, kind });
    if (answer?.kind === "file") save(answer);
    else this.say(this.text("compare.gone"), true);
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  /** @param {string} text */
  say(text, bad = false) {
    this.said = text;
    this.bad = bad;
    this.showState();
  }

  showState() {
    const rest = this.cards.filter((card) => card.result && card.result.stage !== "refused");
    const counts = { total: rest.length, done: rest.filter((card) => card.result.stage === "done").length };
    let shown = "";
    if (this.running && this.run) shown = this.text("compare.running", counts);
    else if (this.run && this.end) shown = this.text(`compare.${this.end === "done" ? "ended" : this.end}`, counts);
    this.status.textContent = this.said || shown;
    this.status.classList.toggle("lv-bad", Boolean(this.said) && Boolean(this.bad));
    this.root.dataset.state = this.running ? (this.run ? "running" : "starting") : "idle";
    this.go.dataset.state = this.root.dataset.state;
    this.go.setAttribute("aria-busy", String(this.running));
    this.halt.disabled = !this.running;
    for (const card of this.cards) card.show();
    this.mark();
  }

  /** What tests and tools read. */
  mark() {
    const { dataset } = this.root;
    dataset.ready = this.cards.length ? "1" : "0";
    dataset.running = this.running ? "1" : "0";
    dataset.run = this.run ?? "";
    dataset.end = this.run && this.end ? this.end : "";
    dataset.shown = this.results.kind;
    dataset.rows = String(this.cards.filter((card) => card.result?.row).length);
  }
}

/** @param {Parts<Compare>} parts */
export const mount = (parts) => start(parts, Page);
