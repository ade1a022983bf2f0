// The run on screen: all that the page knows of it, in one list, and the ways to change it. Nothing here draws or asks.

import { RECORDED } from "../core/contract.js";

/** Of a focus: what belonged to the run before. @type {Focus} */
export const ANEW = { token: null, step: null, pins: [], block: 0, threshold: null };

/** @import { Alternatives, ExploreSnapshot, Focus, Step, TokenRow } from "../core/contract.js" */

export class RunState {
  /** @type {string | null} its id; null: there is none yet */
  run = null;
  /** @type {number} which figures: the server makes them anew whenever the visitor looks elsewhere */
  epoch = -1;
  /** @type {number} tokens shown */
  seq = 0;
  /** @type {number} tokens there are */
  total = 0;
  /** @type {ExploreSnapshot["end"]} why it ended; null while it is made */
  end = null;
  /** @type {boolean} whether the server has it no more */
  lost = false;
  /** @type {TokenRow[]} those shown */
  tokens = [];
  /** @type {Alternatives | null} what might have come after the token held */
  alternatives = null;
  /** @type {(string | null)[]} the colour of one loop, of two ... */
  palette = [];
  /** @type {number} tokens of its prompt */
  promptTokens = 0;
  /** @type {Focus} where the visitor looks; without a token held: at the newest */
  focus = { token: null, block: 0, step: null, metric: "cosine", lang: "en", pins: [] };

  /** Another run takes its place; where the visitor looks stays. @param {string} run */
  reset(run) {
    this.run = run;
    this.epoch = -1;
    this.seq = this.total = this.promptTokens = 0;
    this.end = this.alternatives = null;
    this.tokens = [];
    this.palette = [];
    this.lost = false;
  }

  /**
   * A message says how much of it is shown, anew. The words of a run stay the same: `dropTokens` lets go of the rest.
   * @param {ExploreSnapshot} message
   */
  applySnapshot({ epoch, seq, total, alternatives, prompt_tokens: promptTokens }) {
    Object.assign(this, { epoch, seq, total, alternatives, promptTokens });
  }

  /** Edits have led on to `last` tokens. @param {Step} step */
  applyStep({ last }) {
    this.seq = last;
    this.total = Math.max(this.total, last);
  }

  /** Keep the rows of what is shown; returns how many these are. */
  dropTokens() {
    this.tokens.length = Math.min(this.tokens.length, this.seq);
    return this.tokens.length;
  }

  /** Look elsewhere; whether that is anywhere else. @param {Focus} change */
  setFocus(change) {
    const before = JSON.stringify(this.focus);
    this.focus = { ...this.focus, ...change };
    return JSON.stringify(this.focus) !== before;
  }

  /** The colours of its loops; whether they are others. @param {(string | null)[]} palette */
  setPalette(palette) {
    if (JSON.stringify(palette) === JSON.stringify(this.palette)) return false;
    this.palette = palette;
    return true;
  }

  get onRecorded() {
    return this.run === RECORDED;
  }

  /** Tokens shown that the model wrote. */
  generated() {
    return this.tokens.length - this.tokens.filter((row) => row[3]).length;
  }

  /** The token shown: the one held, or the newest. */
  current() {
    return this.focus.token ?? this.tokens.length - 1;
  }

  /** Loops a token, on average over those shown. */
  loopsPerToken() {
    return this.tokens.reduce((sum, row) => sum + row[1].reduce((a, b) => a + b, 0), 0) / this.tokens.length;
  }

  /** Runs that shared a pass that read a word it wrote, on average, as loopviz.trace.pace.Sharing; null where it is not known. */
  runsPerPass() {
    const known = this.tokens.flatMap((row) => (row[3] || row[6] == null ? [] : [row[6]]));
    return known.length ? known.reduce((sum, runs) => sum + runs, 0) / known.length : null;
  }

  /** Tokens a second by the run's own clock, as loopviz.trace.pace.Pace; null before a token followed the prompt. */
  rate() {
    const { tokens } = this;
    const generated = this.generated();
    const [began, until] = [tokens[tokens.length - generated - 1]?.[5], tokens[tokens.length - 1]?.[5]];
    return generated && began != null && until > began ? (1000 * generated) / (until - began) : null;
  }
}
