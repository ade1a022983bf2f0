// A run as a file: saved, opened; and the recorded run, which is shown until there is another.
// The server's half: loopviz/app/ttt/files.py and opened.py.

import { FILES, QUERIES, RECORDED, TICKET_HEADER } from "../core/contract.js";
import { el, keep, press } from "../core/dom.js";
import { StoredRun } from "./stored_run.js";

/** @import { BeginTTT, TTTSnapshot, TTTVisit } from "../core/contract.js" */

export class FileButtons {
  /** @type {TTTVisit | null} how files are opened, once that is known */
  known = null;
  /** @type {{ run: string, name: string } | null} the file that was opened */
  file = null;

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.badge = el("span", "lv-badge");
    this.hint = el("span", "lv-question");
    this.save = press("lv-quiet", () => this.fetch());
    this.choose = press("lv-quiet", () => this.input.click());
    this.input = el("input");
    Object.assign(this.input, { type: "file", accept: ".loopviz", hidden: true });
    this.input.addEventListener("change", () => {
      const [file] = this.input.files;
      if (file) this.open(file).finally(() => (this.input.value = "")); // the same one may be chosen again
    });
    this.stored = new StoredRun(this);
    const { button, notice } = this.stored;
    this.node = el("div", "lv-ttt-files", this.badge, this.hint, button, this.save, this.choose, this.input, notice.node);
  }

  label() {
    const { page } = this;
    this.save.textContent = page.text("ttt.save");
    this.save.title = page.text("ttt.save.hint");
    this.choose.textContent = page.text("ttt.open");
    this.choose.title = page.text("ttt.open.hint");
    this.stored.label();
  }

  /** How it stands: whose run is shown, and what can be done with it. */
  show() {
    const { page, file } = this;
    const run = page.run?.run;
    const kept = this.stored.badge();
    const kind = kept ? "stored" : run === RECORDED ? RECORDED : run && run === file?.run ? "opened" : "";
    this.badge.hidden = this.hint.hidden = !kind;
    this.node.dataset.kind = kind;
    if (kept) [this.badge.textContent, this.hint.textContent] = kept;
    else {
      const name = kind === "opened" ? ` · ${file.name}` : "";
      this.badge.textContent = kind && page.text(`ttt.${kind}`) + name;
      this.hint.textContent = kind && page.text(`ttt.${kind}.hint`, { model: page.run.model });
    }
    this.stored.show();
    this.save.disabled = !run || page.running || page.gone;
    this.choose.disabled = page.running || !this.known;
  }

  /** The server answers: how files are opened is asked, and the recorded run is shown unless the address names another. */
  async meet() {
    const { page } = this;
    page.frame.begin(/** @type {BeginTTT} */ ({ visit: true, lang: page.frame.lang }));
    if (this.stored.wanted === null) await this.recorded();
  }

  /** Show the recorded run if there is no other. */
  async recorded() {
    const { page } = this;
    const { lang } = page.frame;
    const answer = await page.frame.ask("look", { run: RECORDED, ...page.where, lang });
    if (answer?.kind === "snapshot" && !page.run && !page.running) this.take(answer);
  }

  /** Whose question it is, said with what a text is read again for. */
  get visitor() {
    return this.known ? { visitor: this.known.ticket } : {};
  }

  /** @param {TTTVisit} visit */
  async visit(visit) {
    const first = this.known === null;
    this.known = visit;
    this.label();
    this.show();
    if (first) this.stored.enter();
    if (first && this.stored.wanted !== null && !(await this.stored.open())) await this.recorded();
  }

  /** The model is there: what it says of a run that was not made here can be asked. */
  ready() {
    const { page } = this;
    if (page.run && !page.running && page.pictures.get("attention").node.hidden) page.control();
  }

  /**
   * Show a run that is not made here.
   * @param {TTTSnapshot} snapshot
   * @param {import("./main.js").Page["where"]} [where] one looks; else where one did, at its newest word
   */
  take(snapshot, where) {
    const { page } = this;
    page.ticket = snapshot.ticket;
    page.where = where ?? { ...page.where, token: null };
    for (const name of ["attention", "forgetting"]) page.pictures.get(name).node.hidden = true;
    page.rules.hide();
    page.adopt(snapshot);
    if (page.root.dataset.model === "ready") page.control();
  }

  /**
   * @param {string} path
   * @returns {URL}
   */
  address(path) {
    const url = new URL(`${FILES}/ttt/${path}`, document.baseURI);
    url.search = String(new URLSearchParams({ [QUERIES.lang]: this.page.frame.lang }));
    return url;
  }

  /** Keep the run on screen. */
  async fetch() {
    const { page } = this;
    page.say(page.text("ttt.file.saving"));
    try {
      const answer = await fetch(this.address(`${page.run.run}/trace`));
      if (!answer.ok) {
        page.say(await this.reason(answer), true);
        return;
      }
      const [, file] = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition"));
      keep(await answer.blob(), file);
      page.say(page.text("ttt.file.saved", { file }));
    } catch {
      page.say(page.text("ttt.lost"), true);
    }
  }

  /** Show a run from a file of the visitor's. @param {File} file */
  async open(file) {
    const { page } = this;
    const { ticket: header, largest } = this.known;
    page.say(page.text("ttt.file.reading", { file: file.name }));
    if (file.size > largest) {
      const sizes = [file.size, largest].map((bytes) => (bytes / 2 ** 20).toFixed(0));
      page.say(page.text("ttt.file.large", { file: file.name, size: sizes[0], limit: sizes[1] }), true);
      return;
    }
    const { ticket } = page;
    try {
      const request = { method: "POST", body: file, headers: { [TICKET_HEADER]: header, "content-type": "application/octet-stream" } };
      const answer = await fetch(this.address("open"), request);
      if (!answer.ok) {
        page.say(`${file.name}: ${await this.reason(answer)}`, true);
        return;
      }
      /** @type {TTTSnapshot} */
      const snapshot = await answer.json();
      if (page.ticket !== ticket) return; // a run was begun meanwhile
      this.file = { run: snapshot.run, name: file.name };
      this.take(snapshot);
    } catch {
      page.say(page.text("ttt.lost"), true);
    }
  }

  /** Why an answer is none, in the server's words; something in between may have answered in its own. @param {Response} answer */
  async reason(answer) {
    const plain = (answer.headers.get("content-type") ?? "").startsWith("text/plain");
    return (plain && (await answer.text()).slice(0, 600)) || this.page.text("ttt.lost");
  }
}
