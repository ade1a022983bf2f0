// The Explore page: its parts, and what each message, answer and wish of the visitor does to them. The run that is shown, and
// where the visitor looks, is its state (run_state.js, run_view.js). Text from a visitor or a model reaches the page through textContent only.

import { CLASSES, ELEMENTS } from "../core/contract.js";
import { el, name, worded } from "../core/dom.js";
import { Screen } from "../core/draw_scheduler.js";
import { Tabs } from "../core/open_tabs.js";
import { loadPlotly } from "../core/plotly.js";
import { Server } from "../core/server.js";
import { ServerAway } from "../core/server_away.js";
import { Glossary } from "../widgets/glossary.js";
import { ModelLine } from "../widgets/model_status.js";
import { followPrompt } from "../widgets/prompt_keys.js";
import { Playground } from "./arrow_playground.js";
import { CheckModel } from "./check_model.js";
import { Again } from "./continue_run.js";
import { Drops } from "./drops.js";
import { FollowBar } from "./follow_bar.js";
import { form } from "./form_state.js";
import { nameFields, whenBuilt } from "./gradio_parts.js";
import { Hero } from "./hero.js";
import { Keys } from "./keyboard.js";
import { keepsForm } from "./kept_form.js";
import { Linked } from "./opened_link.js";
import { followOwnLink } from "./own_links.js";
import { Panel } from "./panel.js";
import { Shelf } from "./panel_switches.js";
import { Present } from "./present.js";
import { Player } from "./replay.js";
import { Buttons } from "./run_buttons.js";
import { RunStarts } from "./run_starts.js";
import { TextView } from "./run_text.js";
import { RunView } from "./run_view.js";
import { Narrow } from "./settings_sheet.js";
import { Share } from "./share.js";
import { StatusLine } from "./status_line.js";
import { ToAnatomy } from "./to_anatomy.js";
import { Ways } from "./to_compare.js";
import { Tour } from "./tour.js";

const KEEPING_MS = 500; // that keeping the form may take, before the page is loaded anew without it

/** @import { ExploreConfig, ExploreMessage, ExploreQuestions, ExploreSnapshot, ExploreStatus, Opening } from "../core/contract.js" */
/** @import { Functions, Plotly, Tell } from "../core/page_globals.js" */
/** @import { Answer } from "../core/server.js" */

export class Page extends RunView {
  /** @type {ExploreConfig | null} words, panels, templates; null before the page has any */
  config = null;
  /** @type {Record<string, string> | undefined} the words of `config` */
  texts = undefined;
  /** @type {Opening | null} what the page opened with */
  stored = null;
  /** @type {boolean} whether there is a recorded run */
  opening = false;
  /** @type {Tell | null} Gradio's events; null until Gradio is there */
  tell = null;
  /** @type {Map<string, Panel>} by name */
  panels = new Map();
  /** @type {Plotly | null} the Plotly that panels begin with */
  Plotly = null;
  /** @type {boolean} whether it could not be had */
  plotless = false;
  /** @type {boolean} whether Gradio's fields have their names */
  named = false;
  /** @type {import("./form_state.js").FormState} what is known of the form of settings */
  form = form;

  /** @param {HTMLElement} root */
  constructor(root) {
    super();
    this.root = root;
    form.page = this;
    this.connection = new Server(root.dataset.line, this);
    this.starts = new RunStarts(this);
    this.build();
  }

  // What stands elsewhere, and other parts of the page ask it for.

  /** What may be asked; null until Gradio is there. */
  get server() {
    return this.connection.functions;
  }

  get connected() {
    return this.connection.connected;
  }

  get asking() {
    return this.connection.asking;
  }

  get line() {
    return this.connection.line;
  }

  /** The number of the latest start. */
  get n() {
    return this.starts.n;
  }

  get said() {
    return this.statusLine.said;
  }

  get full() {
    return this.statusLine.full;
  }

  // --- building --------------------------------------------------------------------------------------------------

  build() {
    this.tabs = new Tabs(() => this.connection.close()); // Gradio brings the rest
    this.share = new Share(this);
    this.ways = new Ways(this);
    this.toAnatomy = new ToAnatomy(this);
    this.player = new Player(this);
    this.words = new TextView(this);
    this.text = this.words.region;
    this.hero = new Hero(this);
    this.drops = new Drops();
    this.shelf = new Shelf(this);
    this.present = new Present(this); // before the keys: while it is on, some mean other things
    this.keys = new Keys(this);
    this.screen = new Screen(this);
    this.glossary = new Glossary();
    this.tour = new Tour(this);
    this.model = new ModelLine(this);
    this.again = new Again(this);
    this.narrow = new Narrow(this);
    this.heading = el("h2", "lv-sr");
    this.buttons = new Buttons(this);
    this.linked = new Linked(this);
    this.arrows = new Playground(this);
    this.statusLine = new StatusLine(this);
    this.checkModel = new CheckModel(this);
    this.badge = el("span", "lv-badge");
    this.badge.hidden = true;
    this.about = el("span", "lv-about");
    this.grid = el("div", "lv-grid");
    this.bar = new FollowBar(this);
    this.away = new ServerAway((key) => this.texts?.[key] ?? "", {
      away: () => this.cut(),
      back: () => this.goOn(),
      changed: () => this.old(),
      leave: () => this.keep(),
    });
    this.layOut();
    setInterval(() => this.watch(), 1000);
    this.loadPlotly();
    this.mark();
  }

  layOut() {
    const { model, words, player } = this;
    this.hero.layOut(words.idle, this.text, words.legend, player.node);
    const card = el(
      "section",
      "lv-card",
      this.heading,
      el("div", "lv-bar", el("div", "lv-of", this.badge, this.about), el("div", "lv-ends", model.node, model.notes.node, this.present.open, this.keys.open)),
      model.asking.node,
      this.linked.node,
      this.hero.node,
      this.share.notice.node,
      el("div", "lv-row", player.actions, el("div", "lv-said", this.statusLine.node, this.statusLine.way)),
      words.held,
      this.tour.offer,
    );
    this.root.replaceChildren(this.bar.node, this.arrows.node, card, this.shelf.node, this.grid, this.keys.dialog, this.glossary.dialog);
  }

  loadPlotly() {
    loadPlotly(this.root).then(
      (Plotly) => {
        this.Plotly = Plotly;
        this.mark();
        this.screen.wake();
      },
      () => {
        this.plotless = true;
        window.loopvizLater?.();
        if (this.config) this.say(this.texts["live.noplot"], true);
      },
    );
  }

  /** Gradio is there: questions can be asked, runs begun. @param {{ server: Functions, tell: Tell }} gradio */
  connect({ server, tell }) {
    this.tell = tell;
    whenBuilt(`#${ELEMENTS.learn} .${CLASSES.learn}`, (place) => place.replaceChildren(this.tour.button, this.glossary.button));
    whenBuilt(`#${ELEMENTS.buttons}`, () => whenBuilt(`#${ELEMENTS.settings}`, () => this.narrow.connect()));
    this.drops.connect();
    whenBuilt(`#${ELEMENTS.dark}`, () => this.nameHead());
    whenBuilt(`#${ELEMENTS.settings}`, () => this.nameHead());
    this.buttons.found();
    followPrompt(`#${ELEMENTS.prompt}`, () => this.start());
    this.connection.connect(server);
    this.glossary.follow();
    this.player.show();
    if (this.config) this.model.watch();
    if (keepsForm()) this.share.settled.then(() => tell.restore()); // once a link has set what it sets
    followOwnLink(this);
  }

  /**
   * Show the panel that holds the instrument against known answers, and run the model that has them.
   * @param {DOMStringMap} which panel and model
   * @param {boolean} [run] whether it is run, or only offered (the panel has a button)
   */
  check({ panel, model }, run = true) {
    if (!this.config || !this.panels.has(panel)) return;
    this.shelf.lend([panel]); // what the visitor switched stays remembered
    this.redraw();
    if (run) this.again.act({ label: "", model });
    this.panels.get(panel).node.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  /** Gradio's button for the look has a sign for a label. */
  nameHead() {
    const look = document.getElementById(ELEMENTS.dark);
    const settings = document.getElementById(ELEMENTS.settings);
    if (look && this.texts) name(look, this.texts["page.dark"]);
    if (settings && this.texts && !this.named) nameFields(settings, () => this.texts);
    this.named ||= Boolean(settings && this.texts);
    this.checkModel.show(this.texts);
  }

  theme() {
    return document.body.classList.contains("dark") ? "dark" : "light";
  }

  /** The page's words, panels and templates; sent at the start and when the language changes. @param {ExploreConfig} sent */
  configure(sent) {
    const config = { ...sent, texts: worded(sent.texts) };
    this.config = config;
    this.texts = config.texts;
    document.documentElement.lang = config.lang;
    for (const entry of config.panels) {
      let panel = this.panels.get(entry.name);
      if (!panel) {
        panel = new Panel(entry.name, this);
        this.panels.set(entry.name, panel);
        this.grid.append(panel.node);
        this.screen.observer.observe(panel.node);
      }
      panel.label(entry, this.texts);
    }
    for (const part of [this.words, this.hero, this.player, this.present, this.keys, this.narrow, this.linked, this.arrows, this.bar]) part.configure(this.texts);
    this.heading.textContent = this.texts["live.region"];
    this.nameHead();
    for (const part of [this.shelf, this.glossary, this.tour]) part.configure(config);
    this.share.configure(this.texts, config.lang);
    if (this.plotless) this.say(this.texts["live.noplot"], true);
    if (this.run && this.focus.lang !== config.lang) this.look({ lang: config.lang });
    this.focus.lang = config.lang;
    this.statusLine.show();
    this.away.show();
    this.model.watch();
    this.mark();
  }

  /** What the page opens with: its words and the recorded run, fetched before anything else was there. @param {Opening | null} opening */
  open(opening) {
    if (!opening) return;
    this.opening = true;
    if (!this.config) this.configure(opening.config);
    this.stored = opening;
    if (this.share.word === null && this.share.stored.wanted === null) this.showOpening(); // a link says what is to be seen
  }

  /** Show the recorded run, as it came with the page. */
  showOpening() {
    const opening = this.stored;
    if (this.run || !opening) return; // somebody was quicker than the network
    this.snapshot(opening.snapshot);
    const usual = new Set(Object.keys(opening.snapshot.figures));
    const wanted = this.shelf.on();
    if (wanted.length !== usual.size || wanted.some((panel) => !usual.has(panel))) this.redraw();
  }

  // --- messages --------------------------------------------------------------------------------------------------

  /** @param {ExploreMessage} message */
  receive(message) {
    this.lastMessage = performance.now();
    if ("visit" in message) {
      if (message.kind === "config") this.form.visit(message.visit);
      this.share.visit(message.visit);
    }
    if (message.kind === "config") this.configure(message);
    else if (message.kind === "link") this.ways.took(message) || this.share.linked(message);
    else if (message.kind === "brought") this.form.take(message);
    else if (message.kind === "status") this.status(message);
    else if (message.kind === "snapshot") this.begun(message);
    else if (message.kind === "frames" && !this.starts.past.has(message.run)) this.frames(message);
    this.mark();
  }

  // --- starting --------------------------------------------------------------------------------------------------

  /** Ask for a run of what the controls show. */
  start() {
    this.starts.start();
  }

  /** @param {ExploreStatus} message */
  status(message) {
    if (!this.starts.heard(message)) return;
    if (message.over) this.form.refuse(message.beside ? message : null);
    if (message.suit) this.tell.loaded(); // the controls show what the run was begun with
    this.say(message.text, message.bad, message.full);
    this.statusLine.offer(message.act);
  }

  /** The server has a run for us. @param {ExploreSnapshot} message */
  begun(message) {
    if (this.starts.begun(message)) this.snapshot(message);
  }

  /** Nothing that was asked for is wanted any more: up to which start. */
  stopping() {
    return this.starts.stop();
  }

  /** Stop was pressed: the run is told at once, and the server up to which start. */
  halt() {
    this.tell?.halt({ n: this.stopping() });
    if (this.run && !this.end) this.connection.stop(this.run);
  }

  /** Listen to a run's own line; where there is none, Gradio brings the frames too. None beside other pages of ours. @param {string} run */
  listen(run) {
    this.connection.close();
    if (this.tabs.alone) this.connection.listen(run, () => run === this.run);
  }

  // --- questions -------------------------------------------------------------------------------------------------

  /**
   * Ask the server something; one question after the other, and messages wait for the answer. Null when none came.
   * @template {keyof ExploreQuestions} Q
   * @param {Q} name
   * @param {() => ExploreQuestions[Q]["asked"]} question
   */
  ask(name, question) {
    return this.connection.ask(name, question);
  }

  /**
   * @param {Answer} answer
   * @param {{ run?: string | null }} question
   * @param {keyof ExploreQuestions} name
   */
  answered(answer, question, name) {
    this.answer(answer, question.run, name);
  }

  /** The server went away: what is being made is over as it is, and a start that has nothing to show yet waits for it. */
  cut() {
    if (this.run && !this.end) {
      this.finish("stopped");
      this.say(this.texts["page.server.cut"], true);
    }
    if (this.starts.starting) this.say(this.texts["page.server.waits"]);
    this.mark();
  }

  /** ... and is back: it knows nothing of this page any more. */
  goOn() {
    if (!this.tell) return;
    this.tell.visit();
    this.model.watch();
    if (this.starts.starting) this.start();
  }

  /** ... or another version is back, which knows no run of this page: nothing waits for it. What stands in the form is kept. */
  old(asked = this.starts.starting) {
    this.starts.drop();
    if (asked && this.texts) this.say(this.texts["page.server.old"], true);
    this.keep();
    this.mark();
  }

  /** Have this tab remember what stands in the form; settles when it does. */
  keep() {
    return new Promise((resolve) => {
      this.form.kept = () => resolve(undefined);
      setTimeout(resolve, KEEPING_MS);
      this.tell?.keep();
    });
  }

  /** The server answers again. */
  reached() {
    this.say("");
  }

  /** No answer came, `again` and again. @param {boolean} again */
  unreached(again) {
    if ((again || this.end) && this.away.state === "here") this.say(this.texts["live.offline"], true);
  }

  showSelection() {
    this.words.showHeld();
    this.hero.point();
    this.arrows.follow();
    this.bar.show();
    this.root.dataset.focus = String(this.focus.token ?? "");
  }

  // --- status ----------------------------------------------------------------------------------------------------

  /** @param {string} text */
  say(text, bad = false, full = false) {
    this.statusLine.say(text, bad, full);
    this.buttons?.show(this.root.dataset.state ?? "idle"); // the same words stand beside Run while a start waits
  }

  /** What tests and tools read. */
  mark() {
    const data = this.root.dataset;
    data.ready = this.config && this.Plotly ? "1" : "0";
    data.run = this.run ?? "";
    data.t = String(this.seq);
    data.total = String(this.total);
    data.end = this.end ?? "";
    data.n = String(this.n);
    data.state = this.starts.state;
    this.buttons?.show(data.state);
    data.playing = this.player?.playing ? "1" : "0";
    this.bar?.show();
    const drawn = [...this.panels.values()].filter((panel) => panel.figure);
    this.arrows.follow();
    data.drawn = String(drawn.length ? Math.min(...drawn.map((panel) => (panel.dirtySince === null ? panel.drawn : -1))) : -1);
  }
}
