// The live part of the page: text and panels of one run, kept up to date from messages (see loopviz/app/explore/run.py).
// Text from a visitor or a model reaches the page through textContent only.

import { el, fill, name, press, sleep } from "../core/dom.js";
import { Screen } from "../core/draw_scheduler.js";
import { applyOps, unwire } from "../core/messages.js";
import { Tabs } from "../core/open_tabs.js";
import { loadPlotly } from "../core/plotly.js";
import { Glossary } from "../widgets/glossary.js";
import { ModelLine } from "../widgets/model_status.js";
import { followPrompt } from "../widgets/prompt_keys.js";
import { Again } from "./continue_run.js";
import { nameFields } from "./control_names.js";
import { stage, unstage } from "./first_paint.js";
import { Keys } from "./keyboard.js";
import { Linked } from "./opened_link.js";
import { Panel } from "./panel.js";
import { Shelf } from "./panel_switches.js";
import { Player } from "./replay.js";
import { Buttons } from "./run_buttons.js";
import { TextView } from "./run_text.js";
import { Narrow } from "./settings_sheet.js";
import { Share } from "./share.js";
import { Ways } from "./to_compare.js";
import { Tour } from "./tour.js";

const SILENCE_MS = 3000; // then the server is asked whether something got lost
const ANEW = { token: null, step: null, pins: [], block: 0 }; // of a focus: what belonged to the run before
const WORDED_MS = 120; // until Gradio has drawn what the beginning of a visit sets
const UNSETTLED_MS = 2500; // without any word from the server
const REFUSED_LOOKS = 30; // animation frames until Gradio has drawn a refusal and opened its group
const RECORDED = "recorded"; // the id of the stored run (loopviz.app.explore.first_run.RUN)

class Page {
  constructor(root) {
    this.root = root;
    this.server = null; // until Gradio is there: see connect
    this.tell = null;
    this.connected = new Promise((resolve) => (this.connecting = resolve));
    this.focus = { token: null, block: 0, step: null, metric: "cosine", lang: "en", pins: [] };
    this.panels = new Map();
    this.config = null;
    this.Plotly = null;
    this.held = []; // messages that wait for an answer
    this.asking = false;
    this.turn = Promise.resolve();
    this.lastMessage = 0;
    this.lookedAt = -Infinity;
    this.offline = 0;
    this.line = null;
    this.own = null; // the visitor's latest run
    this.opening = false; // whether there is a recorded run
    this.n = 0; // of the latest start; what belongs to an earlier one is no news
    this.starting = false; // whether that one has nothing to show yet
    this.halting = false; // whether it is to end, and has not ended yet
    this.past = new Set(); // runs that a later start has replaced
    this.reset(null);
    this.build();
  }

  reset(run) {
    Object.assign(this, { run, epoch: -1, seq: 0, total: 0, end: null, tokens: [], lost: false });
    Object.assign(this, { alternatives: null, palette: [], promptTokens: 0 });
  }

  get onRecorded() {
    return this.run === RECORDED;
  }

  // --- building --------------------------------------------------------------------------------------------------

  build() {
    this.tabs = new Tabs(() => this.line?.close()); // Gradio brings the rest
    this.share = new Share(this);
    this.ways = new Ways(this);
    this.player = new Player(this);
    this.words = new TextView(this);
    this.text = this.words.region;
    this.shelf = new Shelf(this);
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
    this.statusLine = el("span", "lv-status");
    this.statusLine.setAttribute("role", "status");
    this.way = press("lv-quiet lv-out", () => this.again.act(this.way.act)); // out of what was refused
    this.way.hidden = true;
    this.badge = el("span", "lv-badge");
    this.badge.hidden = true;
    this.about = el("span", "lv-about");
    this.grid = el("div", "lv-grid");
    const card = el(
      "section",
      "lv-card",
      this.heading,
      this.tour.offer,
      el("div", "lv-bar", el("div", "lv-of", this.badge, this.about), el("div", "lv-ends", this.model.node, this.model.notes, this.keys.open)),
      this.model.asking.node,
      this.linked.node,
      this.words.idle,
      this.text,
      this.player.node,
      this.share.notice.node,
      el("div", "lv-row", this.statusLine, this.way, this.words.legend),
      this.words.held,
    );
    this.root.replaceChildren(card, this.shelf.node, this.grid, this.keys.dialog, this.glossary.dialog);
    setInterval(() => this.watch(), 1000);
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
    this.mark();
  }

  /** Gradio is there: questions can be asked, runs begun. */
  connect({ server, tell }) {
    Object.assign(this, { server, tell });
    document.querySelector("#lv-formulas")?.setAttribute("aria-hidden", "true"); // copies of them are in the panels
    document.querySelector("#lv-learn .lv-learn")?.replaceChildren(this.tour.button, this.glossary.button);
    this.narrow.connect();
    this.nameHead();
    this.buttons.found();
    followPrompt("#ctl-prompt", () => this.start());
    this.connecting();
    this.glossary.follow();
    this.player.show();
    if (this.config) this.model.watch();
  }

  /** Gradio's button for the look has a sign for a label. */
  nameHead() {
    const look = document.querySelector("#lv-dark");
    const settings = document.querySelector("#lv-settings");
    if (look && this.texts) name(look, this.texts["page.dark"]);
    if (settings && this.texts && !this.named) nameFields(settings, () => this.texts);
    this.named ||= Boolean(settings && this.texts);
  }

  theme() {
    return document.body.classList.contains("dark") ? "dark" : "light";
  }

  /** The page's words, panels and templates; sent at the start and when the language changes. */
  configure(config) {
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
    for (const part of [this.words, this.player, this.keys, this.narrow, this.linked]) part.configure(this.texts);
    this.heading.textContent = this.texts["live.region"];
    this.nameHead();
    for (const part of [this.shelf, this.glossary, this.tour]) part.configure(config);
    this.share.configure(this.texts, config.lang);
    if (this.plotless) this.say(this.texts["live.noplot"], true);
    if (this.run && this.focus.lang !== config.lang) this.look({ lang: config.lang });
    this.focus.lang = config.lang;
    this.showStatus();
    this.model.watch();
    this.mark();
  }

  /** What the page opens with: its words and the recorded run, fetched before anything else was there. */
  open(opening) {
    if (!opening) return;
    this.opening = true;
    if (!this.config) this.configure(opening.config);
    this.stored = opening;
    if (this.share.word === null) this.showOpening(); // a link says what is to be seen
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

  /** Gradio's own KaTeX typesets the formulas, in a place nobody sees; here they get a copy. */
  adoptFormulas() {
    for (const [name, panel] of this.panels) {
      const place = panel.detailsBody.querySelector("[data-formula]");
      const made = document.querySelector(`#lv-formula-${this.config.lang}-${name} .katex`);
      if (place && made && !place.querySelector(".katex")) place.replaceChildren(made.cloneNode(true));
    }
    const left = [...this.panels.values()].some((p) => p.detailsBody.querySelector("[data-formula]:not(:has(.katex))"));
    clearTimeout(this.formulaTimer);
    if (left && (this.formulaTries = (this.formulaTries ?? 0) + 1) < 60) {
      this.formulaTimer = setTimeout(() => this.adoptFormulas(), 500);
    }
  }

  // --- messages --------------------------------------------------------------------------------------------------

  receive(message) {
    this.lastMessage = performance.now();
    if (message.visit) this.share.visit(message.visit);
    if (message.kind === "config") this.configure(message);
    else if (message.kind === "link") this.ways.took(message) || this.share.linked(message);
    else if (message.kind === "status") this.status(message);
    else if (message.kind === "snapshot") this.begun(message);
    else if (message.kind === "frames" && !this.past.has(message.run)) this.frames(message);
    this.mark();
  }

  // --- starting --------------------------------------------------------------------------------------------------

  /** Ask for a run of what the controls show. It takes the place of the one that is being made, or waits to be. */
  start() {
    if (!this.tell) return;
    this.player.pause();
    this.model.agree();
    this.n += 1;
    this.starting = true;
    this.halting = false;
    this.bad = false;
    this.linked.close();
    this.say(this.texts["live.state.starting"]);
    this.mark();
    this.tell.start({ n: this.n, wishes: this.wishes() });
  }

  /** Stop was pressed: up to which start. It is being stopped until the server says that it has ended. */
  stopping() {
    this.model.rest();
    if (this.starting || (this.run && !this.end)) {
      this.halting = true;
      this.say(this.texts["live.state.stopping"]);
    }
    this.mark();
    return this.n;
  }

  /** Whether a message is of an earlier start than the latest. */
  stale({ n }) {
    return n !== undefined && n < this.n;
  }

  status(message) {
    if (this.stale(message)) return;
    if (message.over) this.starting = this.halting = false;
    else if (this.halting) return; // where it waits is no news any more
    if (message.suit) this.tell.loaded(); // the controls show what the run was begun with
    this.say(message.text, message.bad, message.full);
    this.offerWay(message.act);
  }

  /** A button beside what is said; none when there is nothing to offer. */
  offerWay(act) {
    this.way.act = act;
    this.way.hidden = !act;
    this.way.textContent = act?.label ?? "";
  }

  /** The server has a run for us; one that a later start has replaced meanwhile is not shown. */
  begun(message) {
    if (this.stale(message) && message.run !== this.run) {
      this.past.add(message.run);
      return;
    }
    if (message.n === this.n) this.starting = false;
    this.snapshot(message);
  }

  /** The run was refused: what is wrong is beside a control, which may be far away. */
  showRefused(looks = REFUSED_LOOKS) {
    if (!looks) return;
    requestAnimationFrame(() => {
      const refused = document.querySelector("#lv-page .lv-refused");
      if (refused && !refused.checkVisibility()) this.narrow.show(true); // in the settings' sheet; or its group is opening
      if (!refused?.checkVisibility()) return this.showRefused(looks - 1);
      const [box, frame] = [refused, refused.closest("#lv-settings") ?? document.documentElement].map((node) => node.getBoundingClientRect());
      const seen = box.top >= Math.max(0, frame.top) && box.bottom <= Math.min(innerHeight, frame.bottom);
      if (!seen) refused.scrollIntoView({ block: "center" });
    });
  }

  lineOf(run) {
    return new URL(`${this.root.dataset.line}/${run}`, document.baseURI).href;
  }

  /** Gradio's Stop goes through its queue; this tells the run at once. */
  halt() {
    this.stopping();
    if (this.run && !this.end) fetch(this.lineOf(this.run), { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }).catch(() => null);
  }

  /** Listen to a run's own line; where there is none, Gradio brings the frames too. None beside other pages of ours. */
  listen(run) {
    this.line?.close();
    if (!this.tabs.alone) return;
    const line = new EventSource(this.lineOf(run));
    line.onmessage = (event) => {
      if (run === this.run) this.receive(JSON.parse(event.data));
    };
    line.onerror = () => line.close(); // the run is over, or something is in the way: no second try
    this.line = line;
  }

  frames(message) {
    if (this.asking) {
      this.held.push(message);
      return;
    }
    if (message.run !== this.run || message.first > this.seq || message.epoch > this.epoch) {
      this.held.push(message);
      this.resync(message.run);
      return;
    }
    if (message.first < this.seq || message.epoch < this.epoch) {
      // a snapshot overtook it; it can only still bring the news that the run has ended
      if (message.last > this.seq) this.resync(message.run);
      else if (message.last === this.seq && message.end) this.finish(message.end);
      return;
    }
    this.step(message);
    this.finish(message.end);
  }

  /** Go from `first` to `last` tokens by edits; false when these are not the next. */
  step(message) {
    if (message.first !== this.seq) return false;
    for (const [name, ops] of Object.entries(message.ops)) {
      const panel = this.panels.get(name);
      if (panel?.figure) applyOps(panel.figure, ops);
    }
    this.seq = message.last;
    this.total = Math.max(this.total, this.seq);
    if (message.about) this.describe(message);
    this.addTokens(message.tokens, message.next);
    for (const [name, panel] of this.panels) {
      if (!panel.figure || message.last === message.first) continue;
      if (message.ops[name]) panel.touch(this.seq);
      else panel.keep(this.seq);
    }
    this.summaries(message.summaries);
    this.player.show();
    this.screen.wake();
    this.mark();
    return true;
  }

  snapshot(message) {
    if (message.run === this.run && message.epoch < this.epoch) return;
    const fresh = message.run !== this.run;
    if (fresh) {
      if (this.run !== null && this.run === this.own) this.past.add(this.run);
      this.past.delete(message.run);
      this.reset(message.run);
      this.linked.close();
      this.words.cut(0);
      this.say("");
      if (message.run !== RECORDED && !this.share.isFile(message.run)) this.own = message.run;
      if (!message.end && this.config) this.listen(message.run);
      this.tour.moved();
    }
    const { epoch, seq, total, alternatives, prompt_tokens: promptTokens } = message;
    Object.assign(this, { epoch, seq, total, alternatives, promptTokens });
    this.describe(message);
    // what the visitor asked for meanwhile outranks what the server knew
    if (!this.wanted) this.focus = { ...message.focus };
    this.tokens.length = Math.min(this.tokens.length, seq); // the words of a run stay the same
    this.words.cut(this.tokens.length);
    this.addTokens(message.tokens.slice(this.tokens.length), message.next);
    if (fresh && message.end) this.text.scrollTop = 0; // a text that is there is read from its beginning
    for (const [name, panel] of this.panels) {
      const figure = message.figures[name];
      if (!panel.on) continue;
      if (figure) panel.take(figure, this.seq);
      else if (panel.needs.some((extra) => !message.extras.includes(extra))) panel.lack();
    }
    this.share.show();
    this.summaries(message.summaries);
    this.finish(message.end);
    this.showSelection();
    this.screen.wake();
    if (this.config && message.focus.lang !== this.config.lang) this.look({ lang: this.config.lang });
  }

  /** What is said of the run's settings, and the colours of its loops; both may change while it is made. */
  describe({ model, about, palette, brings }) {
    this.about.replaceChildren(el("b", "", model), ` · ${about}`);
    if (JSON.stringify(palette) !== JSON.stringify(this.palette)) {
      this.palette = palette;
      this.words.recolour();
    }
    this.words.showLegend();
    if (this.config && this.shelf.bring(brings ?? [])) this.redraw();
  }

  summaries(summaries) {
    for (const [name, text] of Object.entries(summaries ?? {})) {
      const panel = this.panels.get(name);
      if (panel) panel.summary.textContent = text;
    }
  }

  finish(end) {
    if (end && !this.end && !this.bad && !this.starting) this.said = ""; // what was said while it ran
    this.end = end ?? null;
    if (this.end && !this.starting) this.halting = false;
    if (this.end) this.line?.close();
    this.showStatus();
    this.player.show();
    this.tour.show();
    this.share.saw();
  }

  // --- questions -------------------------------------------------------------------------------------------------

  /** Ask the server something; one question after the other, and messages wait for the answer. Null when none came. */
  ask(name, question) {
    const asked = this.turn.then(() => this.askNow(name, question()));
    this.turn = asked.catch(() => null);
    return asked;
  }

  async askNow(name, question) {
    await this.connected;
    this.asking = true;
    let answer = null;
    try {
      answer = JSON.parse(await this.server[name](JSON.stringify(question)));
      if (this.offline > 2) this.say("");
      this.offline = 0;
      this.answer(answer, question.run, name);
    } catch {
      this.offline += 1;
      if (this.offline > 2 || this.end) this.say(this.texts["live.offline"], true);
    }
    this.asking = false;
    const held = this.held.splice(0);
    for (const message of held) this.receive(message);
    return answer;
  }

  answer(message, asked, name = "") {
    if (message.kind === "snapshot" && name === "resync") this.begun(message);
    else if (message.kind === "snapshot") this.snapshot(message);
    else if (message.kind === "current") this.finish(message.end);
    else if (message.kind === "failed") this.say(message.text, true);
    else if (message.kind === "gone") {
      this.held = [];
      if (this.own === asked) this.own = null;
      this.share.forget(asked);
      if (asked === this.run) {
        this.lost = true;
        this.finish(this.end ?? "stopped");
      } else {
        this.past.add(asked);
        this.player.show();
      }
      // a run that has been replaced is not missed
      if (asked === this.run || name !== "resync") this.say(this.texts["live.gone"]);
    }
    this.mark();
  }

  resync(run = this.run) {
    if (this.asking || !run) return null;
    return this.ask("resync", () => {
      const same = run === this.run;
      return { run, epoch: same ? this.epoch : -1, seq: same ? this.seq : -1 };
    });
  }

  /** The server may have gone on without us (hidden tab, lost connection): silence is looked into. */
  watch() {
    if (!this.run || this.end || this.asking) return;
    const patience = SILENCE_MS * (1 + this.offline);
    if (performance.now() - Math.max(this.lastMessage, this.lastAsked ?? 0) < patience) return;
    this.lastAsked = performance.now();
    this.resync();
  }

  /** What is being looked at, for a question. */
  view() {
    return { run: this.run, epoch: this.epoch, focus: this.focus, panels: this.shelf.on() };
  }

  /** What is wished for the next run: the panels that are on, and the view without the old run's words. */
  wishes() {
    return JSON.stringify({ panels: this.shelf.on(), focus: { ...this.focus, ...ANEW } });
  }

  /** Look elsewhere: another token, step, metric or language. The latest wish is asked for when the last is answered. */
  async look(change, place = null) {
    const before = JSON.stringify(this.focus);
    this.focus = { ...this.focus, ...change };
    this.showSelection();
    if (!this.run || this.lost || (JSON.stringify(this.focus) === before && place === null)) return;
    this.place = place ?? this.place ?? null;
    this.lookedAt = performance.now();
    this.wanted = true;
    if (this.looking) return;
    this.looking = true;
    while (this.wanted) {
      await this.ask("focus", () => {
        this.wanted = false;
        const shown = this.place ?? (this.end && this.seq < this.total ? this.seq : null);
        this.place = null;
        return { ...this.view(), shown };
      });
    }
    this.looking = false;
    this.screen.wake(); // which waited for the answer
  }

  /** Draw everything anew: panels were switched. */
  redraw() {
    return this.look({}, this.end ? this.seq : this.total);
  }

  /** Of a finished run, show what there was after `place` tokens. */
  async moveTo(place) {
    if (place === this.seq || !this.end) return;
    // to move is to follow: a word held would stand still, or not be there yet
    if (this.focus.token !== null) await this.look({ token: null, step: null }, place);
    else {
      const steps = await this.fetchSteps(this.seq, place);
      for (const step of steps ?? []) this.step(step);
    }
  }

  /** The edits that lead on from `from` tokens: one for each token, or one to `to`; null when a snapshot came instead. */
  async fetchSteps(from, to = null) {
    const { run, epoch } = this;
    const answer = await this.ask("advance", () => ({ ...this.view(), from, to, split: to === null }));
    if (answer?.kind !== "steps" || answer.run !== this.run || answer.epoch !== this.epoch) return null;
    if (run !== this.run || epoch !== this.epoch) return null;
    const last = answer.steps[answer.steps.length - 1];
    if (last) last.summaries = answer.summaries;
    return answer.steps;
  }

  /** Go to another finished run: to all of it and none of its words, unless something else is asked for. */
  async showRun(run, focus = { ...this.focus, ...ANEW }, shown = null) {
    this.player.pause();
    await this.ask("focus", () => ({ ...this.view(), run, epoch: 0, focus, shown }));
  }

  showRecorded() {
    return this.showRun(RECORDED);
  }

  showOwn() {
    return this.showRun(this.own);
  }

  // --- text ------------------------------------------------------------------------------------------------------

  addTokens(rows, next) {
    this.tokens.push(...rows);
    this.words.add(rows, next);
    this.showStatus();
  }

  generated() {
    return this.tokens.length - this.tokens.filter((row) => row[3]).length;
  }

  /** The token shown: the one held, or the newest. */
  current() {
    return this.focus.token ?? this.tokens.length - 1;
  }

  stepToken(way) {
    const at = this.current() + way;
    if (at >= this.tokens.length && this.seq < this.total) this.player.go(this.seq + 1);
    else this.look({ token: Math.min(Math.max(at, 0), this.tokens.length - 1), step: null });
  }

  stepLoop(way) {
    const steps = this.tokens[this.current()]?.[1][this.focus.block] ?? 0;
    if (!steps) return;
    const from = this.focus.step ?? (way > 0 ? 0 : steps + 1);
    this.look({ step: Math.min(Math.max(from + way, 1), steps) });
  }

  /** Pin a token, or let go of it; without one, the token shown. */
  pin(token = this.current()) {
    const { pins } = this.focus;
    if (token < 0) return;
    if (pins.includes(token)) this.look({ pins: pins.filter((pin) => pin !== token) });
    else if (this.words.roomForPin()) this.look({ pins: [...pins, token].sort((a, b) => a - b) });
  }

  showSelection() {
    this.words.showHeld();
    this.root.dataset.focus = this.focus.token ?? "";
  }

  // --- status ----------------------------------------------------------------------------------------------------

  say(text, bad = false, full = false) {
    this.said = text;
    this.full = full; // whether there was no place to wait in
    this.bad = Boolean(bad);
    this.offerWay();
    this.statusLine.classList.toggle("lv-bad", this.bad);
    this.showStatus();
    this.buttons?.show(this.root.dataset.state ?? "idle"); // the same words stand beside Run while a start waits
  }

  showStatus() {
    if (!this.texts) return;
    this.statusLine.textContent = this.said || this.counts();
  }

  /** Tokens a second by the run's own clock, as loopviz.trace.pace.Pace; null before a token followed the prompt. */
  rate() {
    const { tokens } = this;
    const generated = this.generated();
    const [began, until] = [tokens[tokens.length - generated - 1]?.[5], tokens[tokens.length - 1]?.[5]];
    return generated && began != null && until > began ? (1000 * generated) / (until - began) : null;
  }

  /** Tokens, tokens a second of a run made here, loops a token; and why a run of the visitor's ended. */
  counts() {
    const n = this.tokens.length;
    if (!this.run || !n) return "";
    const loops = this.tokens.reduce((sum, row) => sum + row[1].reduce((a, b) => a + b, 0), 0) / n;
    const values = { n, loops: loops.toFixed(2).replace(/\.?0+$/, "") };
    if (this.onRecorded || this.share.isFile(this.run) || this.seq < this.total) return fill(this.texts["live.counts"], values);
    values.rate = this.rate()?.toFixed(1) ?? "–";
    const end = this.end ? `${this.texts[`live.end.${this.end}`] ?? this.end} · ` : "";
    return end + fill(this.texts["live.running"], values);
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
    data.state = this.halting ? "stopping" : this.starting ? "starting" : this.run && !this.end ? "running" : "idle";
    this.buttons?.show(data.state);
    data.playing = this.player?.playing ? "1" : "0";
    const drawn = [...this.panels.values()].filter((panel) => panel.figure);
    data.drawn = String(drawn.length ? Math.min(...drawn.map((panel) => (panel.dirtySince === null ? panel.drawn : -1))) : -1);
  }
}

let page = null; // the one of this document
let early = null; // what stands in for Gradio's layout

/** Called from the document's head: shows what the page opens with while Gradio is still on its way. */
export async function open() {
  const opening = await window.loopvizOpening;
  if (!opening || page) {
    window.loopvizLater();
    return;
  }
  const root = el("div", "lv");
  Object.assign(root.dataset, window.loopvizPlaces);
  early = stage(root, opening.config.texts);
  page = root.page = new Page(root);
  page.open(opening);
}

/** Called by the component's js_on_load: Gradio's layout is there. */
export function mount({ element, server, props, watch, tell }) {
  const place = element.querySelector(".lv-place");
  if (page) {
    // once the visit's language, settings and words are in Gradio's parts: until then these change their sizes
    const settled = page.share.visited.then(() => sleep(WORDED_MS));
    Promise.race([settled, sleep(UNSETTLED_MS)]).then(() => unstage(early, page.root, place));
  } else {
    place.className = "lv";
    page = place.page = new Page(place);
    Promise.resolve(window.loopvizOpening ?? fetchOpening(place.dataset)).then((opening) => (opening ? page.open(opening) : page.config || take()));
  }
  page.connect({ server, tell });
  const take = (wanted = () => true) => {
    if (typeof props.value !== "string" || !props.value) return;
    let message;
    try {
      message = unwire(props.value);
    } catch (error) {
      console.error("unreadable message", error);
      return;
    }
    if (wanted(message)) page.receive(message);
  };
  // the first value is in the server's first language: what the page opened with is in the visitor's
  watch("value", () => take());
  take((message) => message.visit); // the visit may have begun before this script was there
  return page;
}

/** The recorded run, where the head has not asked for it. */
function fetchOpening({ opening }) {
  const urls = JSON.parse(opening);
  const lang = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  return urls[lang] ? fetch(new URL(urls[lang], document.baseURI)).then((answer) => answer.json()).catch(() => null) : null;
}
