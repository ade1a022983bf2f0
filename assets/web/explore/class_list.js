// What lies in a class folder, for its teacher: runs that were saved and answers that were handed in, these as a table too. One of
// them, or the whole folder, is deleted here. Fetched where a teacher's link is opened.

import { ANSWER_FILES } from "../core/contract.js";
import { el, fill, keep, press } from "../core/dom.js";

const NEVER = "–";
const ABSENT = [404, 410]; // what the server answers of what somebody else has deleted meanwhile

/** @import { DeletedFolder, Done, HandedEntry, KeptEntry, KeptFile, KeptList } from "../core/contract.js" */

/**
 * A button that deletes for good: the first press asks, the second does it; who goes elsewhere between them is asked anew.
 * @param {string} label
 * @param {string} sure
 * @param {string} of what it deletes, for a screen reader; "": the label says it
 * @param {() => Promise<void>} act
 */
function deleter(label, sure, of, act) {
  let asked = false;
  const node = press("lv-quiet lv-class-delete", async () => {
    if (!asked) return say(true);
    node.disabled = true;
    await act();
  });
  /** @param {boolean} now */
  const say = (now) => {
    asked = now;
    node.textContent = now ? sure : label;
    node.setAttribute("aria-label", of ? `${node.textContent} ${of}` : node.textContent);
  };
  node.addEventListener("blur", () => say(false));
  say(false);
  return node;
}

export class ClassList {
  /**
   * @param {import("./stored.js").Stored} stored
   * @param {KeptList} found
   */
  constructor(stored, found) {
    this.stored = stored;
    this.found = found;
  }

  get words() {
    return this.stored.words;
  }

  /** @param {string} said what came of the last deletion; "": there was none */
  show(said = "", bad = false) {
    const { stored, words } = this;
    const { name, runs, answers } = this.found;
    const of = words[runs.length || answers.length ? "live.stored.class.of" : "live.stored.class.none"];
    const head = el("p", "lv-left", fill(of, { name, n: runs.length }));
    head.tabIndex = -1;
    const saved = runs.map((run) => stored.row(run, this.remover("run", run.id, run.title || NEVER)));
    const handed = answers.map((answer) => this.row(answer));
    stored.notice.say([
      ...(said ? [el("p", bad ? "lv-bad" : "", said)] : []),
      head,
      ...(saved.length ? [el("ul", "lv-stored-list", ...saved)] : []),
      ...(handed.length ? [el("p", "lv-left", fill(words["live.stored.class.handed"], { n: handed.length })), el("ul", "lv-stored-list", ...handed), this.file()] : []),
      this.whole(),
    ]);
    if (said) head.focus({ preventScroll: true }); // the button that was pressed is gone
  }

  /** @param {HandedEntry} answer */
  row({ id, student, title, right, answered, at }) {
    const { stored, words } = this;
    const about = [fill(words["live.stored.class.right"], { right, n: answered }), stored.date(at)].join(" · ");
    const of = [student, title || NEVER].filter(Boolean).join(": ");
    return el("li", "", student ? el("b", "", `${student}: `) : null, title || NEVER, " ", el("small", "", about), this.remover("answer", id, of));
  }

  /** All that the class has handed in, as one table. */
  file() {
    const { stored } = this;
    const file = press("lv-quiet lv-class-file", async () => {
      /** @type {KeptFile | null} */
      const made = await stored.ask("learn/handed", { folder: stored.folder, secret: stored.teacher, kind: ANSWER_FILES[0] });
      if (made) keep(new Blob([Uint8Array.from(atob(made.data), (letter) => letter.charCodeAt(0))]), made.name);
    });
    file.textContent = this.words["live.stored.class.file"];
    return file;
  }

  // --- deleted -----------------------------------------------------------------------------------------------------

  /**
   * A button that deletes one thing that lies in the folder.
   * @param {"run" | "answer"} what
   * @param {string} id
   * @param {string} of
   */
  remover(what, id, of) {
    const { stored, words } = this;
    return deleter(words["live.stored.class.delete"], words["live.stored.class.delete.sure"], of, async () => {
      /** @type {Done | null} */
      const done = await stored.ask(`class/${what}/delete`, { folder: stored.folder, secret: stored.teacher, id }, false);
      /** @type {<T extends { id: string }>(several: T[]) => T[]} */
      const left = (several) => (done || ABSENT.includes(stored.status) ? several.filter((one) => one.id !== id) : several);
      this.found = { ...this.found, runs: left(this.found.runs), answers: left(this.found.answers) };
      this.show(done ? words["live.stored.class.deleted"] : stored.said, !done);
    });
  }

  /** A button that deletes the folder with all that lies in it. */
  whole() {
    const { stored, words } = this;
    const { name, runs, answers } = this.found;
    const sure = fill(words["live.stored.class.delete.all.sure"], { name, n: runs.length, answers: answers.length });
    return deleter(words["live.stored.class.delete.all"], sure, "", async () => {
      /** @type {DeletedFolder | null} */
      const done = await stored.ask("class/delete", { folder: stored.folder, secret: stored.teacher }, false);
      if (!done) return this.show(stored.said, true);
      [stored.className, stored.folder, stored.teacher] = ["", null, null]; // what is saved from here on goes into none
      stored.notice.say([fill(words["live.stored.class.deleted.all"], { name, n: done.runs, answers: done.answers })]);
    });
  }
}
