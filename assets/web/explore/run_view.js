// What is shown of the run on screen: messages and answers bring it, in order and without gaps, and the visitor's wishes to look
// elsewhere are asked for. The parts that are told (`words`, `panels`, `player` ...) are the page's (page.js).

import { RECORDED } from "../core/contract.js";
import { el } from "../core/dom.js";
import { applyOps } from "../core/messages.js";
import { ANEW, RunState } from "./run_state.js";

/** @import { ExploreSnapshot, Focus, Frames, Step, TokenRow } from "../core/contract.js" */
/** @import { Answer } from "../core/server.js" */
/** @typedef {Step & Partial<Frames>} Edits a step of a replay, or what a run has brought */

const SILENCE_MS = 3000; // then the server is asked whether something got lost

export class RunView extends RunState {
  /** @type {string | null} the visitor's latest run */
  own = null;
  /** @type {boolean} whether something else is wished for than was asked */
  wanted = false;
  /** @type {boolean} whether that is being asked for */
  looking = false;
  /** @type {string | null} the run on show as the latest question was made: they are answered one by one */
  askedOn = null;
  /** @type {number} when it was wished for */
  lookedAt = -Infinity;
  /** @type {number | null} tokens of the finished run that are wished for */
  place = null;
  /** @type {number} when a message came */
  lastMessage = 0;
  /** @type {number} when silence was looked into */
  lastAsked = 0;

  /** @returns {import("./page.js").Page} itself: its other parts, and who is asked, are the page's */
  get page() {
    return /** @type {any} */ (this);
  }

  // --- what comes --------------------------------------------------------------------------------------------------

  /** @param {Frames} message */
  frames(message) {
    const { connection } = this.page;
    if (connection.asking) {
      connection.hold(message);
      return;
    }
    if (message.run !== this.run || message.first > this.seq || message.epoch > this.epoch) {
      connection.hold(message);
      this.resync(message.run);
      return;
    }
    if (message.first < this.seq || message.epoch < this.epoch) {
      // a snapshot overtook it; it can only still bring the news that the run has ended
      if (message.last > this.seq) this.resync(message.run);
      else if (message.last === this.seq && message.end) this.finish(message.end, message.telling);
      return;
    }
    this.step(message);
    this.finish(message.end, message.telling);
  }

  /** Go from `first` to `last` tokens by edits; false when these are not the next. @param {Edits} message */
  step(message) {
    const { page } = this;
    if (message.first !== this.seq) return false;
    for (const [name, ops] of Object.entries(message.ops)) {
      const panel = page.panels.get(name);
      if (panel?.figure) applyOps(panel.figure, ops);
    }
    this.applyStep(message);
    if (message.about) this.describe(message);
    this.addTokens(message.tokens, message.next);
    page.hero.fold(message);
    for (const [name, panel] of page.panels) {
      if (!panel.figure || message.last === message.first) continue;
      if (message.ops[name]) panel.touch(this.seq);
      else panel.keep(this.seq);
    }
    this.summaries(message.summaries);
    page.player.show();
    page.screen.wake();
    page.mark();
    return true;
  }

  /** @param {ExploreSnapshot} message */
  snapshot(message) {
    const { page } = this;
    if (message.run === this.run && message.epoch < this.epoch) return;
    const fresh = message.run !== this.run;
    if (fresh) {
      if (this.run !== null && this.run === this.own) page.starts.past.add(this.run);
      page.starts.past.delete(message.run);
      this.reset(message.run);
      page.linked.close();
      page.words.cut(0);
      page.say("");
      if (message.run !== RECORDED && !page.share.isFile(message.run)) this.own = message.run;
      if (!message.end && page.config) page.listen(message.run);
      page.tour.moved();
    }
    this.applySnapshot(message);
    // what the visitor asked for meanwhile outranks what the server knew; to describe it may ask for panels that it brings
    if (!this.wanted) this.focus = { ...message.focus };
    this.describe(message);
    page.words.cut(this.dropTokens()); // the words of a run stay the same
    this.addTokens(message.tokens.slice(this.tokens.length), message.next);
    if (fresh && message.end) page.words.toBeginning(); // a text that is there is read from its beginning
    page.hero.take(message);
    for (const [name, panel] of page.panels) {
      const figure = message.figures[name];
      if (!panel.on) continue;
      if (figure) panel.take(figure, this.seq);
      else if (panel.needs.some((extra) => !message.extras.includes(extra))) panel.lack();
    }
    page.share.show();
    this.summaries(message.summaries);
    this.finish(message.end, message.telling);
    page.showSelection();
    page.screen.wake();
    if (page.config && message.focus.lang !== page.config.lang) this.look({ lang: page.config.lang });
    // panels that stand there since it was asked for: who left a tour's or a presentation's
    else if (fresh && !this.wanted && [...page.panels.values()].some((panel) => panel.lacksFigure(message.extras))) this.redraw();
  }

  /**
   * What is said of the run's settings, and the colours of its loops; both may change while it is made.
   * @param {Pick<Frames, "model" | "about" | "palette" | "brings">} message
   */
  describe({ model, about, palette, brings }) {
    const { page } = this;
    page.about.replaceChildren(el("b", "", model), ` · ${about}`);
    page.about.title = `${model} · ${about}`;
    if (this.setPalette(palette)) page.words.recolour();
    page.words.showLegend();
    if (page.config && page.shelf.bring(brings ?? [])) this.redraw();
  }

  /** @param {Record<string, string> | undefined} summaries */
  summaries(summaries) {
    for (const [name, text] of Object.entries(summaries ?? {})) {
      const panel = this.page.panels.get(name);
      if (panel) panel.summary.textContent = text;
    }
  }

  /**
   * @param {ExploreSnapshot["end"]} end
   * @param {number | null} [telling] of a run that has just ended: the word to look at, unless the visitor looks at one
   */
  finish(end, telling = null) {
    const ends = Boolean(end) && !this.end;
    const { connection, player, share, starts, statusLine, tour } = this.page;
    if (end && !this.end && !statusLine.bad && !starts.starting) statusLine.said = ""; // what was said while it ran
    this.end = end ?? null;
    if (this.end && !starts.starting) starts.halting = false;
    if (this.end) connection.close();
    statusLine.show();
    player.show();
    tour.show();
    share.saw();
    // where another start takes its place, an answer about this run would come after that one's first message
    const looks = ends && telling !== null && !starts.starting && !tour.on;
    if (looks && this.focus.token === null && this.seq === this.total) this.look({ token: telling, step: null });
    else this.page.hero.tell();
  }

  /**
   * @param {TokenRow[]} rows
   * @param {string | null} next
   */
  addTokens(rows, next) {
    this.tokens.push(...rows);
    this.page.words.add(rows, next);
    this.page.statusLine.show();
  }

  /**
   * @param {Answer} message
   * @param {string | null} asked the run that was asked for
   * @param {string} name of the question
   */
  answer(message, asked, name = "") {
    const { page } = this;
    if (!("kind" in message)) return; // where a model is: who asked sees to that
    if (message.kind === "snapshot" && name === "resync") page.begun(message);
    else if (message.kind === "snapshot") {
      // another run came while this one, then on show, was asked about: the answer would take the page back to it
      if (message.run === this.run || message.run !== this.askedOn) this.snapshot(message);
    } else if (message.kind === "current") this.finish(message.end);
    else if (message.kind === "failed") page.say(message.text, true);
    else if (message.kind === "gone") {
      page.connection.dropHeld();
      if (this.own === asked) this.own = null;
      page.share.forget(asked);
      if (asked === this.run) {
        this.lost = true;
        this.finish(this.end ?? "stopped");
      } else {
        page.starts.past.add(asked);
        page.player.show();
      }
      // a run that has been replaced is not missed
      if (asked === this.run || name !== "resync") page.say(page.texts["live.gone"]);
    }
    page.mark();
  }

  resync(run = this.run) {
    if (this.page.connection.asking || !run) return null;
    return this.page.ask("resync", () => {
      const same = run === this.run;
      return { run, epoch: same ? this.epoch : -1, seq: same ? this.seq : -1 };
    });
  }

  /** The server may have gone on without us (hidden tab, lost connection): silence is looked into. */
  watch() {
    if (!this.run || this.end || this.page.connection.asking) return;
    const patience = SILENCE_MS * (1 + this.page.connection.offline);
    if (performance.now() - Math.max(this.lastMessage, this.lastAsked) < patience) return;
    this.lastAsked = performance.now();
    this.resync();
  }

  // --- what is wished for ------------------------------------------------------------------------------------------

  /** What is being looked at, for a question. */
  view() {
    this.askedOn = this.run;
    return { run: this.run, epoch: this.epoch, focus: this.focus, panels: this.page.shelf.on() };
  }

  /** What is wished for the next run: the panels that are drawn and those that are on, and the view without the old run's words. */
  wishes() {
    const { shelf } = this.page;
    return JSON.stringify({ panels: shelf.on(), on: shelf.chosen(), focus: { ...this.focus, ...ANEW } });
  }

  /**
   * Look elsewhere: another token, step, metric or language. The latest wish is asked for when the last is answered.
   * @param {Focus} change
   * @param {number | null} place
   */
  async look(change, place = null) {
    const elsewhere = this.setFocus(change);
    this.page.showSelection();
    if (!this.run || this.lost || (!elsewhere && place === null)) return;
    this.place = place ?? this.place;
    this.lookedAt = performance.now();
    this.wanted = true;
    if (this.looking) return;
    this.looking = true;
    while (this.wanted) {
      await this.page.ask("focus", () => {
        this.wanted = false;
        const shown = this.place ?? (this.end && this.seq < this.total ? this.seq : null);
        this.place = null;
        return { ...this.view(), shown };
      });
    }
    this.looking = false;
    this.page.screen.wake(); // which waited for the answer
  }

  /** Draw everything anew: panels were switched. */
  redraw() {
    return this.look({}, this.end ? this.seq : this.total);
  }

  /** Of a finished run, show what there was after `place` tokens. @param {number} place */
  async moveTo(place) {
    if (place === this.seq || !this.end) return;
    // to move is to follow: a word held would stand still, or not be there yet
    if (this.focus.token !== null) await this.look({ token: null, step: null }, place);
    else {
      const steps = await this.fetchSteps(this.seq, place);
      for (const step of steps ?? []) this.step(step);
    }
  }

  /**
   * The edits that lead on from `from` tokens: one for each token, or one to `to`; null when a snapshot came instead.
   * @param {number} from
   * @param {number | null} to
   * @returns {Promise<Edits[] | null>}
   */
  async fetchSteps(from, to = null) {
    const { run, epoch } = this;
    const answer = await this.page.ask("advance", () => ({ ...this.view(), from, to, split: to === null }));
    if (answer?.kind !== "steps" || answer.run !== this.run || answer.epoch !== this.epoch) return null;
    if (run !== this.run || epoch !== this.epoch) return null;
    const steps = /** @type {Edits[]} */ (answer.steps);
    if (steps.length) steps[steps.length - 1].summaries = answer.summaries;
    return steps;
  }

  /**
   * Go to another finished run: to all of it and none of its words, unless something else is asked for.
   * @param {string | null} run
   * @param {Focus} focus
   * @param {number | null} shown
   */
  async showRun(run, focus = { ...this.focus, ...ANEW }, shown = null) {
    this.page.player.pause();
    await this.page.ask("focus", () => ({ ...this.view(), run, epoch: 0, focus, shown }));
  }

  showRecorded() {
    const token = this.page.stored?.snapshot.focus.token ?? null; // as the page opened with it
    return this.showRun(RECORDED, { ...this.focus, ...ANEW, token });
  }

  showOwn() {
    return this.showRun(this.own);
  }

  /** @param {number} way */
  stepToken(way) {
    const at = this.current() + way;
    if (at >= this.tokens.length && this.seq < this.total) this.page.player.go(this.seq + 1);
    else this.look({ token: Math.min(Math.max(at, 0), this.tokens.length - 1), step: null });
  }

  /** @param {number} way */
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
    else if (this.page.words.roomForPin()) this.look({ pins: [...pins, token].sort((a, b) => a - b) });
  }
}
