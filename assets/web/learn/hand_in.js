// A class whose pupils hand in what they have answered: its name, and how it is done. The server's half: loopviz/app/learn/handed_in.py.

import { QUERIES, STORE, STORED, TICKET_HEADER } from "../core/contract.js";
import { kept } from "../core/dom.js";
import { classFolder, enterClass, GONE, namesClass } from "../widgets/class_folder.js";

/** @import { AnswersAsked, HandedIn, KeptList, LessonVisit } from "../core/contract.js" */

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
    return { said: this.page.text("live.stored.handed", { name: this.name }), bad: false };
  }
}
