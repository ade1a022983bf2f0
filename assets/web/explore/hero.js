// What stands above the panels: the text, the ring that its word goes round, the strip of the word's guesses, the sliders, and a
// paragraph. Their data come with the run's own messages, edited as the panels' figures are.

import { el } from "../core/dom.js";
import { applyOps } from "../core/messages.js";
import { ExplainWord } from "./explain_word.js";
import { GuessStrip } from "./guess_strip.js";
import { LoopDials } from "./loop_dials.js";
import { LoopRing } from "./loop_ring.js";

/** @import { ExploreSnapshot, Explained, Hero as Word, Stack, Step } from "../core/contract.js" */

const REPLAY_SHARE = 0.92; // of a word's time in a replay in which it goes round

export class Hero {
  /** @type {Word | null} what the word shown thought; null: no word yet */
  word = null;
  /** @type {Stack | null} */
  stack = null;
  /** @type {Explained | null} the latest paragraph */
  explained = null;
  /** @type {number} the tokens that were there when the paragraph was written: it speaks of the others too */
  saidAt = 0;
  /** @type {string} the word that is asked about, or was */
  asked = "";
  /** @type {string} the word that is on show */
  showing = "";

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.strip = new GuessStrip(page);
    this.ring = new LoopRing(page, { at: (step) => this.strip.at(step) });
    this.explain = new ExplainWord(page);
    this.dials = new LoopDials(page);
    this.node = el("div", "lv-hero");
  }

  /** @param {...HTMLElement} text what belongs to the text */
  layOut(...text) {
    this.node.replaceChildren(el("div", "lv-hero-text", ...text), this.strip.node, this.explain.node, this.ring.node, this.dials.node);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    for (const part of [this.strip, this.ring, this.explain, this.dials]) part.configure(texts);
    this.show();
  }

  /** All of it, anew. @param {ExploreSnapshot} message */
  take({ hero, stack, explained }) {
    const chosen = this.showing !== `${this.page.run} ${hero.token}`;
    this.word = hero;
    this.stack = stack;
    this.explained = explained;
    this.saidAt = this.page.seq;
    this.show();
    // a word that is looked at goes round, once
    if (chosen && hero.token !== null && this.page.focus.token !== null) this.ring.play();
  }

  /** Edits of a message: the next word; or other colours of the loops. @param {Partial<Pick<Step, "hero">> & { about?: unknown }} message */
  fold({ hero, about }) {
    if (!this.word || (!hero?.length && !about)) return;
    if (hero?.length) applyOps(this.word, hero);
    this.show();
    if (!hero?.length) return;
    const { player } = this.page;
    if (player.playing) this.ring.play(player.wordMs * REPLAY_SHARE);
  }

  /** The word on show, at rest. */
  show() {
    const { page, word, stack } = this;
    const row = word?.token == null ? undefined : page.tokens[word.token];
    this.node.classList.toggle("lv-hero-empty", !row);
    this.showing = row ? `${page.run} ${word.token}` : "";
    if (row && page.texts) {
      const block = page.focus.block ?? 0;
      this.strip.show(word, row[0], row[1][block] ?? 0);
      this.ring.show({ stack, loops: row[1], block, hero: word, word: row[0], next: word.next });
    }
    this.tell();
  }

  /** The paragraph of the word on show; where it has stopped and none is there, it is asked for. */
  tell() {
    const { page, explained, word } = this;
    const fits = explained && word && explained.token === word.token && explained.block === page.focus.block;
    this.explain.show(fits ? explained : null);
    const fresh = !page.end || this.saidAt === page.seq; // of an ended run it speaks of all words that are shown
    const { playing, moving } = page.player;
    const still = page.end && !playing && !moving && !page.looking && word?.token != null;
    const about = `${this.showing} ${page.focus.block} ${page.focus.lang} ${page.seq}`;
    if ((fits && fresh) || !still || about === this.asked || !page.server) return;
    this.asked = about;
    this.ask();
  }

  async ask() {
    const { page } = this;
    let at = page.seq;
    const answer = await page.ask("explain", () => {
      at = page.seq;
      return { run: page.run, focus: page.focus, shown: page.end ? page.seq : null };
    });
    if (answer?.kind !== "told" || answer.run !== page.run || !answer.explained) return;
    this.explained = answer.explained;
    this.saidAt = at;
    this.tell();
  }

  /** The visitor looks elsewhere: what is known of it already is shown at once. */
  point() {
    const { page, word } = this;
    if (!word || !page.texts) return;
    const waits = page.focus.token !== null && page.focus.token !== word.token;
    this.node.classList.toggle("lv-hero-waits", waits);
    if (waits) this.ring.stop();
    else {
      this.ring.stop();
      this.ring.rest();
      this.strip.select();
    }
  }
}
