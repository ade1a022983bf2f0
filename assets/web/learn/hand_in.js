// A class whose pupils hand in what they have answered: its name, and how it is done. The server's half: loopviz/app/learn/handed_in.py.

import { QUERIES, STORE, STORED, TICKET_HEADER } from "../core/contract.js";
import { kept } from "../core/dom.js";
import { classFolder, enterClass, GONE, namesClass } from "../widgets/class_folder.js";

/** @import { AnswersAsked, HandedIn, KeptList, LessonVisit } from "../core/contract.js" */

const MOST_HANDED = 200; // lessons of classes

export class HandIn {
  /** @type {string} to hand in with; "": the server has not said how yet */
  ticket = "";
  /** @type {string} of the class; "": none */
  name = "";

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.folder = classFolder();
  }

  /** In a class the server is asked how answers are handed in. */
  meet() {
    const { frame } = this.page;
    if (this.folder !== null) frame.begin(/** @type {any} */ ({ visit: true, lang: frame.lang }));
  }

  /** @param {LessonVisit} visit */
  async visit({ ticket, keeps }) {
    this.ticket = ticket;
    if (!keeps || this.name) return;
    const found = await this.ask("class", { folder: this.folder });
    if ("said" in found) {
      if (namesClass()) this.page.say(found.said, true);
      else if (found.status === GONE) enterClass(null);
      return;
    }
    this.name = /** @type {KeptList} */ (found.done).name;
    enterClass(this.folder);
    this.page.card?.label();
  }

  /**
   * What the server answers, or why it refuses.
   * @param {string} what
   * @param {object} body
   * @returns {Promise<{ done: any } | { said: string, status?: number }>}
   */
  async ask(what, body) {
    const { page } = this;
    const url = new URL(`${STORE}/${what}`, document.baseURI);
    url.search = String(new URLSearchParams({ [QUERIES.lang]: page.frame.lang }));
    const headers = { [TICKET_HEADER]: this.ticket, "content-type": "application/json" };
    try {
      const answer = await fetch(url, { method: "POST", body: JSON.stringify(body), headers });
      return answer.ok ? { done: await answer.json() } : { said: await answer.text(), status: answer.status };
    } catch {
      return { said: page.text("lesson.lost") };
    }
  }

  /** Hand in answers; what there is to say of it, and whether that is bad news. @param {AnswersAsked} answers @returns {Promise<{ said: string, bad: boolean }>} */
  async send(answers) {
    const secret = kept.get(STORED.owner, "");
    const found = await this.ask("learn/hand_in", { ...answers, folder: this.folder, ...(secret ? { secret } : {}) });
    if ("said" in found) return { said: found.said, bad: true };
    kept.set(STORED.owner, /** @type {HandedIn} */ (found.done).secret);
    const student = answers.student.trim(); // as the server has it
    this.remember(answers.lesson, (names) => [...names.filter((name) => name !== student), student]);
    return { said: this.page.text("live.stored.handed", { name: this.name }), bad: false };
  }

  /** Take back what was handed in of a lesson under a name; as `send`. @param {string} lesson @param {string} student @returns {Promise<{ said: string, bad: boolean }>} */
  async takeBack(lesson, student) {
    const secret = kept.get(STORED.owner, "");
    const found = await this.ask("learn/withdraw", { folder: this.folder, secret, lesson, student });
    const refused = "said" in found;
    // what the server has no more is taken back already: by another tab, or by the teacher
    if (!refused || found.status === GONE) this.remember(lesson, (names) => names.filter((name) => name !== student));
    return refused ? { said: found.said, bad: true } : { said: this.page.text("live.stored.withdrawn", { name: this.name }), bad: false };
  }

  /** Names under which this browser has handed in a lesson to this class, and has not taken it back. @param {string} lesson @returns {string[]} */
  handedAs(lesson) {
    const names = this.all()[`${this.folder}/${lesson}`];
    return Array.isArray(names) ? names.map(String) : [];
  }

  /** What this browser has handed in: names by class and lesson. @returns {Record<string, any>} */
  all() {
    const found = kept.get(STORED.handed, {});
    return typeof found === "object" && !Array.isArray(found) ? found : {};
  }

  /** @param {string} lesson @param {(names: string[]) => string[]} change */
  remember(lesson, change) {
    const { [`${this.folder}/${lesson}`]: _, ...others } = this.all();
    const names = change(this.handedAs(lesson));
    const all = [...Object.entries(others).slice(1 - MOST_HANDED), ...(names.length ? [[`${this.folder}/${lesson}`, names]] : [])];
    kept.set(STORED.handed, Object.fromEntries(all)); // the one written last stands last
  }
}
