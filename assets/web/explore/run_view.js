// What is shown of the run on screen: messages and answers bring it, in order and without gaps, and the visitor's wishes to look
// elsewhere are asked for. The parts that are told (`words`, `panels`, `player` ...) are the page's (page.js).

import { el } from "../core/dom.js";
import { applyOps } from "../core/messages.js";
import { ANEW, RECORDED, RunState } from "./run_state.js";

const SILENCE_MS = 3000; // then the server is asked whether something got lost

export class RunView extends RunState {
  /** @type {string | null} the visitor's latest run */
  own = null;
  /** @type {boolean} whether something else is wished for than was asked */
  wanted = false;
  /** @type {boolean} whether that is being asked for */
  looking = false;
  /** @type {number} when it was wished for */
  lookedAt = -Infinity;
  /** @type {number | null} tokens of the finished run that are wished for */
  place = null;
  /** @type {number} when a message came */
  lastMessage = 0;
  /** @type {number} when silence was looked into */
  lastAsked = 0;

  // --- what comes --------------------------------------------------------------------------------------------------

  frames(message) {
    if (this.asking) {
      this.connection.hold(message);
      return;
    }
    if (message.run !== this.run || message.first > this.seq || message.epoch > this.epoch) {
      this.connection.hold(message);
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
    this.applyStep(message);
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
      if (this.run !== null && this.run === this.own) this.starts.past.add(this.run);
      this.starts.past.delete(message.run);
      this.reset(message.run);
      this.linked.close();
      this.words.cut(0);
      this.say("");
      if (message.run !== RECORDED && !this.share.isFile(message.run)) this.own = message.run;
      if (!message.end && this.config) this.listen(message.run);
      this.tour.moved();
    }
    this.applySnapshot(message);
    this.describe(message);
    // what the visitor asked for meanwhile outranks what the server knew
    if (!this.wanted) this.focus = { ...message.focus };
    this.words.cut(this.dropTokens()); // the words of a run stay the same
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
    if (this.setPalette(palette)) this.words.recolour();
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
    const { starts, statusLine } = this;
    if (end && !this.end && !statusLine.bad && !starts.starting) statusLine.said = ""; // what was said while it ran
    this.end = end ?? null;
    if (this.end && !starts.starting) starts.halting = false;
    if (this.end) this.connection.close();
    statusLine.show();
    this.player.show();
    this.tour.show();
    this.share.saw();
  }

  addTokens(rows, next) {
    this.tokens.push(...rows);
    this.words.add(rows, next);
    this.statusLine.show();
  }

  answer(message, asked, name = "") {
    if (message.kind === "snapshot" && name === "resync") this.begun(message);
    else if (message.kind === "snapshot") this.snapshot(message);
    else if (message.kind === "current") this.finish(message.end);
    else if (message.kind === "failed") this.say(message.text, true);
    else if (message.kind === "gone") {
      this.connection.dropHeld();
      if (this.own === asked) this.own = null;
      this.share.forget(asked);
      if (asked === this.run) {
        this.lost = true;
        this.finish(this.end ?? "stopped");
      } else {
        this.starts.past.add(asked);
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
    const patience = SILENCE_MS * (1 + this.connection.offline);
    if (performance.now() - Math.max(this.lastMessage, this.lastAsked) < patience) return;
    this.lastAsked = performance.now();
    this.resync();
  }

  // --- what is wished for ------------------------------------------------------------------------------------------

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
    const elsewhere = this.setFocus(change);
    this.showSelection();
    if (!this.run || this.lost || (!elsewhere && place === null)) return;
    this.place = place ?? this.place;
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
}
