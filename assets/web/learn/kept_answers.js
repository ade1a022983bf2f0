// What this browser keeps of the lessons that were begun: answers by lesson and step. Other tabs of the page write into the same
// store, so it is read again before anything is written to it.

import { OWN_LESSON, STORED } from "../core/contract.js";
import { kept } from "../core/dom.js";

const MOST_OWN = 40; // lessons of teachers' own: one that is being written is another one with every change

/** @import { Judged, LessonAnswer, Words } from "../core/contract.js" */
/** @typedef {Pick<LessonAnswer, "right" | "score" | "when"> & { guess: Words, measured: Words, raw: any }} Answer as it is kept: the guess itself too */
/** @typedef {{ version: number, answers: Record<string, Answer>, made_with: Record<string, string> }} Kept of a lesson that was begun */
/** @typedef {{ key: string, version: number }} Which lesson, and which version of it: answers to another one are none */

/** @param {unknown} found @returns {found is Record<string, any>} */
const isMapping = (found) => typeof found === "object" && found !== null && !Array.isArray(found);

export class KeptAnswers {
  /** @type {Record<string, any>} by key, as far as is known: where nothing may be stored, all there is */
  all = {};

  /** @param {() => void} changed another tab has written */
  constructor(changed) {
    this.read();
    addEventListener("storage", ({ key }) => {
      if (key !== STORED.lessons) return;
      this.read();
      changed();
    });
  }

  read() {
    const found = kept.get(STORED.lessons, this.all);
    this.all = isMapping(found) ? found : {};
  }

  /** What is kept of a lesson. @param {Which} which @returns {Kept} */
  of({ key, version }) {
    const found = Object.hasOwn(this.all, key) ? this.all[key] : null;
    const fits = isMapping(found) && found.version === version && isMapping(found.answers);
    return { version, answers: fits ? found.answers : {}, made_with: fits && isMapping(found.made_with) ? found.made_with : {} };
  }

  /** Write what is kept of a lesson anew. @param {Which} which @param {(kept: Kept) => void} change */
  write(which, change) {
    this.read();
    const found = this.of(which);
    change(found);
    delete this.all[which.key]; // the one written last stands last
    this.all[which.key] = found;
    const own = Object.keys(this.all).filter((key) => key.startsWith(`${OWN_LESSON}:`));
    for (const key of own.slice(0, -MOST_OWN)) delete this.all[key];
    kept.set(STORED.lessons, this.all);
  }

  /**
   * Keep an answer: the first to a step counts.
   * @param {Which} which
   * @param {string} step
   * @param {any} guess
   * @param {Judged} judged
   * @param {Record<string, string>} madeWith
   */
  answer(which, step, guess, judged, madeWith) {
    const { right, score, measured, guess: said } = judged;
    this.write(which, (found) => {
      Object.assign(found.made_with, madeWith);
      found.answers[step] ??= { guess: said, measured, right, score, when: new Date().toISOString(), raw: guess };
    });
  }

  /** A lesson is begun again. @param {Which} which */
  clear(which) {
    this.write(which, (found) => Object.assign(found, { answers: {}, made_with: {} }));
  }
}
