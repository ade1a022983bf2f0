// A run that the server keeps: saved under a link, opened by it with nothing run, deleted by who saved it.
// The server's half: loopviz/app/ttt/stored.py. The secret by which a visitor deletes stays in this browser, the same for all pages.

import { QUERIES, STORE, STORED, TICKET_HEADER } from "../core/contract.js";
import { copied, el, kept, name, press } from "../core/dom.js";
import { dated, linkField } from "../widgets/link_field.js";
import { askStudent, classFolder, enterClass, GONE, namesClass } from "../widgets/class_folder.js";
import { Notice } from "../widgets/menu.js";

/** @import { Done, KeptList, KeptRun, OpenedTTT } from "../core/contract.js" */

export class StoredRun {
  /** @type {{ title: string, until: number | null, run: string } | null} the one that was opened */
  shown = null;
  /** @type {string} of the class whose folder this tab is in; "": none */
  className = "";

  /** @param {import("./file_buttons.js").FileButtons} files */
  constructor(files) {
    this.files = files;
    this.page = files.page;
    this.status = 0; // of the last answer; 0: none came
    this.wanted = new URLSearchParams(location.search).get(QUERIES.run);
    this.button = press("lv-quiet", () => this.save());
    this.button.hidden = true;
    this.notice = new Notice();
  }

  label() {
    const { page } = this;
    const days = this.files.known?.keeps ?? 0;
    this.button.textContent = page.text("live.stored.save");
    this.button.title = page.text("live.stored.save.hint", { days });
    name(this.notice.close, page.text("live.share.close"));
  }

  /** How it stands. */
  show() {
    const { page } = this;
    this.button.hidden = !this.files.known?.keeps;
    this.button.disabled = !page.run || page.running || page.gone;
  }

  /** What is told of the run on screen, where it is one that was kept; else null. @returns {[string, string] | null} */
  badge() {
    const { page, shown } = this;
    if (!shown || shown.run !== page.run?.run) return null;
    const hint = `${page.text("live.stored.badge.hint")} ${this.until(shown.until)}`.trimEnd();
    return [`${page.text("live.stored.badge")} · ${shown.title}`, hint];
  }

  /** Until when it is kept; none of one in the gallery. @param {number | null} at */
  until(at) {
    const { page } = this;
    return at === null ? "" : page.text("live.stored.yours.until", { until: dated(at, page.frame.lang) });
  }

  /**
   * Ask the server; null when it refuses, which is told.
   * @param {string} what
   * @param {object} body
   * @param {boolean} told
   * @returns {Promise<any>}
   */
  async ask(what, body, told = true) {
    const { page, files } = this;
    const url = new URL(`${STORE}/${what}`, document.baseURI);
    url.search = String(new URLSearchParams({ [QUERIES.lang]: page.frame.lang }));
    const headers = { [TICKET_HEADER]: files.known.ticket, "content-type": "application/json" };
    try {
      const answer = await fetch(url, { method: "POST", body: JSON.stringify(body), headers });
      this.status = answer.status;
      if (answer.ok) return await answer.json();
      if (told) this.notice.say([await files.reason(answer)], true);
    } catch {
      this.status = 0;
      if (told) this.notice.say([page.text("ttt.lost")], true);
    }
    return null;
  }

  /** The secret of this browser's runs, if it has one. */
  get own() {
    const secret = kept.get(STORED.owner, "");
    return secret ? { secret } : {};
  }

  /** The class whose folder this tab is in is asked for its name, once the server is there. */
  async enter() {
    const folder = classFolder();
    if (folder === null || this.className || !this.files.known?.keeps) return;
    /** @type {KeptList | null} */
    const found = await this.ask("class", { folder }, namesClass());
    if (found) this.className = found.name;
    if (found) enterClass(folder);
    else if (this.status === GONE) enterClass(null); // its time is over
  }

  /** Keep the run on screen; into a class folder once its visitor has said how they are called. */
  save() {
    const { page, className } = this;
    if (!className) return this.keep();
    const go = page.text("live.stored.into", { name: className });
    const asked = askStudent(page.text("live.stored.student"), go, (student) => this.keep({ folder: classFolder(), student }));
    this.notice.say(asked);
    asked[1].focus();
    return undefined;
  }

  /** ... as it is looked at. @param {{ folder?: string, student?: string }} more */
  async keep(more = {}) {
    const { page } = this;
    this.notice.say([page.text("live.stored.saving")]);
    /** @type {KeptRun | null} */
    const saved = await this.ask("ttt/save", { run: page.run.run, view: JSON.stringify(page.where), ...more, ...this.own });
    if (!saved) return;
    kept.set(STORED.owner, saved.secret);
    const url = new URL(location.href);
    Object.assign(url, { search: String(new URLSearchParams({ [QUERIES.run]: saved.id })), hash: "" });
    const [said, field] = [el("p"), linkField(url.href, page.text("live.stored.address"))];
    this.notice.say([said, field, this.remover(saved.id)]);
    const done = await copied(field.value, field);
    said.textContent = page.text(done ? "live.stored.saved" : "live.stored.select", { until: dated(saved.until, page.frame.lang) });
  }

  /** A button that deletes a run of this visitor's. @param {string} id */
  remover(id) {
    const remove = press("lv-quiet lv-stored-delete", async () => {
      /** @type {Done | null} */
      const done = await this.ask("delete", { id, secret: kept.get(STORED.owner, "") });
      if (done) this.notice.say([this.page.text("live.stored.deleted")]);
    });
    remove.textContent = this.page.text("live.stored.delete");
    return remove;
  }

  /** Show the run that the address names, as it was saved; whether there is one to show, or the visitor was quicker. */
  async open() {
    const { page, wanted } = this;
    this.notice.say([page.text("live.stored.opening")]);
    /** @type {OpenedTTT | null} */
    const found = await this.ask("ttt/open", { id: wanted, ...this.own });
    if (!found) return false;
    this.notice.clear();
    if (page.run || page.running) return true;
    this.shown = { title: found.title, until: found.until, run: found.snapshot.run };
    this.files.take(found.snapshot, found.place);
    if (found.mine) this.notice.say([`${page.text("live.stored.yours")} ${this.until(found.until)}`, this.remover(wanted)]);
    return true;
  }
}
