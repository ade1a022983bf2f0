// The Anatomy page: a word of a run, a layer, a loop step, and what each stage of the layer computed.
// The other half is loopviz/app/anatomy/service.py; messages are stated in loopviz/app/contract/anatomy.py.

import { QUERIES, RECORDED, TAKEN } from "../core/contract.js";
import { el, shown } from "../core/dom.js";
import { Frame, start, ticket } from "../core/page_head.js";
import { Glossary } from "../widgets/glossary.js";
import { Article } from "./article.js";
import { Badge } from "./badge.js";
import { Drawing } from "./drawing.js";
import { Keys } from "./keys.js";
import { LayerData, Layers } from "./layer_data.js";
import { Parity } from "./parity.js";
import { Silence } from "./silence.js";
import { StageCard } from "./stage_card.js";
import { Way } from "./way.js";
import { Wants } from "./wanted_model.js";
import { Where } from "./where.js";
import { WordStrip } from "./word_strip.js";

/** @import { AnatomyConfig, AnatomyMessage, AnatomyQuestions, AnatomyRun, AnatomyToken, Dissect } from "../core/contract.js" */
/** @import { Parts } from "../core/page_globals.js" */
/** @typedef {{ token?: number, layer?: number, step?: number, stage?: string, beside?: number }} Place where one looks */

export class Page {
  /** @type {AnatomyRun | null} the run whose words are shown */
  run = null;
  /** @type {number} the word that is looked into */
  token = 0;
  /** @type {{ layer: number, step: number, stage: string, beside: number }} `beside`: a loop step; 0 for none */
  where = { layer: 0, step: 0, stage: "state", beside: 0 };
  /** @type {AnatomyToken | null} the word as it was read again */
  look = null;
  /** @type {Record<string, (number | null)[] | null> | null} by stage, what two loop steps have in common */
  changes = null;
  /** @type {boolean} whether a word is read */
  running = false;
  /** @type {number | undefined} until it is begun */
  later = undefined;
  /** @type {number} of the latest start */
  n = 0;
  /** @type {string | null} of that one, unguessable */
  ticket = null;
  /** @type {string} the model that reads, where the visitor named another than the run's */
  named = "";
  /** @type {object} the newest wish for a picture */
  wish = {};
  /** @type {LayerData | null} what is shown of the layer */
  found = null;
  /** @type {LayerData | null} ... and of the loop step beside it */
  other = null;
  /** @type {boolean} whether the run that was brought is not kept any more */
  gone = false;

  /**
   * @param {Parts<Dissect>} parts
   * @param {AnatomyConfig} config
   */
  constructor(parts, config) {
    /** @type {Frame<AnatomyConfig, AnatomyQuestions, Dissect>} */
    this.frame = new Frame(parts, config, this, new Glossary());
    this.root = parts.root;
    this.way = new Way(config);
    this.layers = new Layers(this);
    this.silence = new Silence(this, this);
    this.build();
    this.asked = this.fromAddress();
    this.where = { ...this.where, ...this.asked };
    this.frame.label();
    this.label();
    this.open();
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
    this.which = el("p", "lv-anatomy-run");
    this.about = el("span", "lv-question");
    this.line = el("p", "lv-status");
    this.line.setAttribute("role", "status");
    this.strip = new WordStrip(this);
    this.chooser = new Where(this);
    this.badge = new Badge(this);
    this.wants = new Wants(this);
    this.drawing = new Drawing(this);
    this.card = new StageCard(this);
    this.article = new Article(this);
    this.parity = new Parity(this);
    this.keyHint = el("p", "lv-question lv-anatomy-keys");
    this.keys = new Keys(this);
    const top = el("section", "lv-card lv-anatomy-top", this.which, this.about, this.strip.node, this.chooser.node, this.badge.node, this.line, this.wants.node);
    const side = el("div", "lv-anatomy-side", this.drawing.node, this.keyHint);
    const body = el("div", "lv-anatomy", side, this.card.node);
    this.root.replaceChildren(this.frame.head, top, body, this.article.node, this.parity.node, this.frame.glossary.dialog);
  }

  /** What the address says of where to look. @returns {Place} */
  fromAddress() {
    const search = new URLSearchParams(location.search);
    /** @type {Place} */
    const found = {};
    for (const key of /** @type {const} */ (["token", "layer", "step", "beside"])) {
      const value = search.get(QUERIES[key]);
      if (value !== null && /^\d{1,6}$/.test(value)) found[key] = Number(value);
    }
    const stage = search.get(QUERIES.stage);
    if (this.way.knows(stage)) found.stage = stage;
    return found;
  }

  /** The address says where one looks: a reload, or a link, comes back to it. */
  intoAddress() {
    const address = new URL(location.href);
    const { layer, step, stage, beside } = this.where;
    for (const [key, value] of Object.entries({ token: this.token, layer, step, stage, beside })) {
      if (value || key !== "beside") address.searchParams.set(QUERIES[/** @type {"token"} */ (key)], String(value));
      else address.searchParams.delete(QUERIES.beside);
    }
    history.replaceState(history.state, "", address);
  }

  /** The run that was brought from Explore, or the recorded one. */
  async open() {
    const taken = new URLSearchParams(location.hash.slice(1)).get(TAKEN);
    this.say(this.text("anatomy.waiting"));
    let found = await this.frame.ask("show", { run: taken, lang: this.frame.lang });
    this.gone = found?.kind === "gone";
    if (this.gone) found = await this.frame.ask("show", { run: null, lang: this.frame.lang });
    if (found?.kind !== "run") return this.say(this.text("anatomy.lost"), true);
    this.run = found;
    this.token = this.gone ? found.telling : (this.asked.token ?? found.telling);
    this.strip.fill();
    this.label();
    await this.wants.first();
    return undefined;
  }

  // --- words -----------------------------------------------------------------------------------------------------

  async speak() {
    this.label();
    if (!this.run) return;
    const { lang } = this.frame;
    const found = await this.frame.ask("show", { run: this.run.run, lang });
    if (lang !== this.frame.lang) return; // another was chosen meanwhile
    if (found?.kind === "run") this.run = found;
    this.label();
    this.parity.need();
    if (!this.running && this.look) this.show(); // what is said of the place is in the language of before
  }

  label() {
    const { run } = this;
    this.strip.label();
    this.chooser.label();
    this.drawing.label();
    this.card.label();
    this.article.label();
    this.parity.label();
    this.wants.label();
    this.keyHint.textContent = this.text("anatomy.keys");
    if (run) {
      const called = { model: run.called };
      this.which.textContent = this.text(run.run === RECORDED ? "anatomy.run.recorded" : "anatomy.run.own", called);
      if (this.gone) this.which.textContent = this.text("anatomy.run.gone");
      this.which.classList.toggle("lv-bad", Boolean(this.gone));
      this.about.textContent = run.about;
    }
    this.strip.mark();
    this.badge.show();
    this.redraw();
  }

  recolour() {
    this.redraw();
  }

  // --- where one looks -------------------------------------------------------------------------------------------

  /** Look elsewhere. @param {Place} to @param {number} [wait] milliseconds before another word is begun */
  go(to, wait = 0) {
    const unread = this.running ? this.silence.long : !this.found; // then the same word once more, as the page says
    if (to.token !== undefined && (to.token !== this.token || unread)) {
      this.token = to.token;
      this.strip.mark();
      this.begin(wait);
    }
    this.where = { ...this.where, ...to };
    this.settle();
    this.show();
  }

  /** The next stage, or the one before; whether there is one. @param {number} way */
  walk(way) {
    const next = this.stages[this.stages.indexOf(this.way.at(this.where.stage)) + way];
    if (next) this.go({ stage: next.name });
    return Boolean(next);
  }

  /** What is walked through: of the layer that is shown; of a plain Llama until one is. */
  get stages() {
    return this.way.stages;
  }

  /** Loop steps in which a layer ran for this word; [0] where it does not loop. @param {number} layer */
  stepsOf(layer) {
    return (this.look?.runs ?? []).filter(([index]) => index === layer).map(([, , step]) => step);
  }

  /** Layer and loop steps are such as the word ran: of what an address, or another word, had, the nearest. */
  settle() {
    const { look, run, where } = this;
    if (!look || !run) return;
    where.layer = Math.min(Math.max(0, where.layer), run.layers - 1);
    const steps = this.stepsOf(where.layer);
    if (steps.length && !steps.includes(where.step)) where.step = Math.min(Math.max(where.step, steps[0]), steps[steps.length - 1]);
    if (where.beside && (!steps.includes(where.beside) || where.beside === where.step)) where.beside = 0;
  }

  /** Another layer; whether there is one. @param {number} way */
  layerBy(way) {
    const layer = this.where.layer + way;
    const there = Boolean(this.run) && layer >= 0 && layer < this.run.layers;
    if (there) this.go({ layer });
    return there;
  }

  /** Another loop step; whether there is one. @param {number} way */
  stepBy(way) {
    const steps = this.stepsOf(this.where.layer);
    const next = steps[steps.indexOf(this.where.step) + way];
    if (next !== undefined) this.go({ step: next });
    return next !== undefined;
  }

  /** The picture of where one looks; what is not here yet is awaited, what was shown stays meanwhile. */
  async show() {
    const { where, look } = this;
    const wish = (this.wish = {});
    this.chooser.show();
    this.mark();
    if (!look) return this.redraw();
    if (!this.stepsOf(where.layer).length) {
      this.found = this.other = this.changes = null;
      if (!this.running) this.say(this.text("anatomy.left_out", { layer: where.layer }), true);
      return this.redraw();
    }
    const beside = where.beside ? this.layers.get(where.layer, where.beside) : null;
    const [found, other, changes] = await Promise.all([this.layers.get(where.layer, where.step), beside, where.beside ? this.common() : null]);
    if (wish !== this.wish) return undefined;
    const refused = [found, other].find((answer) => typeof answer === "string");
    if (this.running && refused) return undefined; // of the word before: another is on its way
    if (!this.running) this.say(refused ?? "", Boolean(refused));
    this.found = found instanceof LayerData ? found : null;
    if (this.found) where.stage = this.way.take(this.found.stages, where.stage);
    this.other = other instanceof LayerData ? other : null;
    this.changes = this.other ? changes : null;
    this.intoAddress();
    this.redraw();
    this.prefetch();
    return undefined;
  }

  /** What the two loop steps have in common, by stage. */
  async common() {
    const { layer, step, beside } = this.where;
    const answer = await this.frame.ask("beside", { look: this.look.look, layer, step, other: beside, lang: this.frame.lang });
    return answer?.kind === "beside" ? answer.stages : null;
  }

  /** Where the keys lead next is asked for already. */
  prefetch() {
    const { layer, step } = this.where;
    const steps = this.stepsOf(layer);
    const place = steps.indexOf(step);
    for (const near of [steps[place + 1], steps[place - 1]]) if (near !== undefined) this.layers.get(layer, near);
    for (const near of [layer + 1, layer - 1]) {
      const own = this.stepsOf(near);
      if (own.length) this.layers.get(near, own.includes(step) ? step : Math.min(Math.max(step, own[0]), own[own.length - 1]));
    }
  }

  redraw() {
    const stage = this.way.at(this.where.stage);
    this.chooser.show();
    this.drawing.show(stage, this.changes);
    this.card.show(stage, this.found, this.other);
    this.mark();
  }

  /** The word that the run chose next after the one that is shown. */
  nextWord() {
    return this.run.tokens[this.look.token + 1]?.[0] ?? this.run.next;
  }

  // --- reading ---------------------------------------------------------------------------------------------------

  /** Have the word read again; what is shown of the word before stays until then, but is not said to be the run's. */
  begin(wait = 0) {
    if (!this.run) return;
    clearTimeout(this.later);
    this.running = true;
    this.ticket = null;
    this.silence.hear();
    this.wish = {}; // what was asked of the word before says nothing any more
    this.badge.show();
    this.say(this.text("anatomy.waiting"));
    const send = () => (this.ticket = this.start({ agreed: this.wants.agreed, ...(this.named ? { model: this.named } : {}) }));
    if (wait) this.later = setTimeout(send, wait);
    else send();
    this.mark();
  }

  /**
   * Nothing was heard of it for a while: a long text takes its time; the word can be chosen once more, unless the run is gone.
   * @param {string} kind
   * @param {boolean} again
   */
  quiet(kind, again) {
    if (kind === "gone") this.lost(this.text("anatomy.gone"));
    else if (!again) this.say(`${this.line.textContent} ${this.text("anatomy.silent")}`);
  }

  /** It does not come any more. @param {string} words */
  lost(words) {
    this.running = false;
    this.ticket = null;
    this.say(words, true);
    this.refused("");
  }

  /** Begin something on the server; the ticket by which messages are about it. @param {Pick<Dissect, "model" | "agreed" | "check">} what */
  start(what) {
    const ours = ticket();
    this.n += 1;
    this.frame.begin({ lang: this.frame.lang, ticket: ours, n: this.n, run: this.run.run, token: this.token, ...what });
    return ours;
  }

  /** @param {AnatomyMessage} message */
  receive(message) {
    if (message.kind === "config" || this.parity.receive(message)) return undefined;
    if (message.kind === "parity" || message.ticket !== this.ticket) return undefined; // of what another has replaced
    this.silence.hear();
    if (message.kind === "status") {
      const unread = message.over && (message.bad || this.running);
      if (message.over) this.running = false;
      this.say(message.text, message.bad);
      if (unread) this.refused(message.field ?? "");
      return this.mark();
    }
    this.running = false;
    this.look = message;
    this.layers.clear();
    this.found = this.other = this.changes = null;
    this.wants.hide();
    this.parity.need();
    this.settle();
    this.badge.show();
    this.show();
    return undefined;
  }

  /** It is not read: what was read before is not of this word. @param {string} field */
  refused(field) {
    this.wish = {};
    this.look = this.found = this.other = this.changes = null;
    this.badge.show();
    if (field === "model") this.wants.name();
    this.redraw();
  }

  // --- what is shown -----------------------------------------------------------------------------------------------

  /** @param {string} text */
  say(text, bad = false) {
    this.line.textContent = text;
    this.line.classList.toggle("lv-bad", bad);
  }

  /** What tests and styles go by. */
  mark() {
    const { dataset } = this.root;
    dataset.state = this.running ? "running" : "idle";
    dataset.token = String(this.token);
    dataset.layer = String(this.where.layer);
    dataset.step = String(this.where.step);
    dataset.stage = this.where.stage;
    dataset.beside = String(this.where.beside);
    const { found, look } = this;
    dataset.model = look ? "ready" : this.running ? "loading" : "waiting";
    dataset.shown = found && look ? `${look.token} ${found.layer} ${found.step}` : "";
    dataset.drawn = String(dataset.shown === `${this.token} ${this.where.layer} ${this.where.step}`);
    dataset.ready = "1";
    const token = look?.token ?? this.token; // a word that is on its way is not what is shown
    this.card.node.setAttribute("aria-label", `${this.text("anatomy.word", { token, total: this.run?.tokens.length ?? 0, text: shown(this.run?.tokens[token]?.[0] ?? "") })}, ${this.text(this.where.step ? "anatomy.at" : "anatomy.at.once", this.where)}`);
  }
}

/** @param {Parts<Dissect>} parts */
export function mount(parts) {
  return start(parts, Page);
}
