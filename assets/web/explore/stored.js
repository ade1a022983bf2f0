// Runs that the server keeps: saved under a link, opened by it with nothing run, deleted by who saved them; the server's gallery, and
// class folders. The server's half: loopviz/app/explore/stored.py. The secret by which a visitor deletes stays in this browser.

import { PAGES, QUERIES, STORE, STORED, TEACHER, TICKET_HEADER } from "../core/contract.js";
import { copied, el, fill, kept, press } from "../core/dom.js";
import { askStudent, classFolder, enterClass, GONE, namesClass, teacherSecret } from "../widgets/class_folder.js";
import { dated, linkField } from "../widgets/link_field.js";

const NEVER = "–";

/** @import { Done, KeptEntry, KeptList, KeptRun, MadeFolder, OpenedRun, Visit } from "../core/contract.js" */

export class Stored {
  /** @type {{ id: string, title: string, until: number | null, run: string } | null} the one on screen, once it is opened */
  shown = null;
  /** @type {number} days that a run is kept; 0: none is */
  days = 0;
  /** @type {boolean} whether this visitor may make class folders */
  folders = false;
  /** @type {string} the name of the class that the address names; "": none */
  className = "";
  /** @type {KeptEntry[]} */
  gallery = [];
  /** @type {boolean} */
  asked = false;

  /** @param {import("./share.js").Share} share */
  constructor(share) {
    this.share = share;
    const query = new URLSearchParams(location.search);
    this.wanted = query.get(QUERIES.run);
    this.status = 0; // of the last answer; 0: none came
    this.said = ""; // why the last one was a refusal
    this.folder = classFolder();
    this.teacher = teacherSecret();
    this.chosen = press("lv-quiet lv-gallery", () => this.list(this.words["live.stored.gallery.told"], this.gallery));
    this.chosen.hidden = true;
  }

  get words() {
    return this.share.texts;
  }

  get notice() {
    return this.share.notice;
  }

  /** The words are there: what the address asks for is done once Gradio knows the visitor. */
  configure() {
    this.chosen.textContent = this.words["live.stored.gallery"];
    this.chosen.title = this.words["live.stored.gallery.hint"];
    if (this.asked) return;
    this.asked = true;
    if (this.wanted !== null) this.notice.say([this.words["live.stored.opening"]]);
    this.share.visited.then(() => this.begin());
  }

  /** @param {Visit} visit */
  visit({ keeps, folders }) {
    this.days = keeps;
    this.folders = folders;
  }

  async begin() {
    if (this.wanted !== null) await this.open(this.wanted);
    if (this.folder !== null) await this.enter();
    if (!this.days) return;
    /** @type {KeptList | null} */
    const found = await this.ask("gallery", null, false);
    this.gallery = found?.runs ?? [];
    this.chosen.hidden = !this.gallery.length;
  }

  /** The words of the menu's entries. */
  label() {
    const { menu, page } = this.share;
    const { words, days, className } = this;
    menu.items.get("keep").hidden = !days;
    menu.items.get("class").hidden = !this.folders;
    const hint = fill(words[className ? "live.stored.class.hint" : "live.stored.save.hint"], { days, name: className });
    menu.label("keep", words["live.stored.save"], hint, page.run && page.end ? null : words["live.share.running"]);
    menu.label("class", words["live.stored.class"], words["live.stored.class.new"]);
  }

  /**
   * Ask the server; null when it refuses, which is told.
   * @param {string} what
   * @param {object | null} body
   * @param {boolean} told
   * @returns {Promise<any>}
   */
  async ask(what, body, told = true) {
    const { page, lang, ticket } = this.share;
    const url = new URL(`${STORE}/${what}`, new URL(".", new URL(page.root.dataset.share, document.baseURI)));
    url.search = String(new URLSearchParams({ [QUERIES.lang]: lang }));
    const headers = { [TICKET_HEADER]: ticket, "content-type": "application/json" };
    try {
      const answer = await fetch(url, body ? { method: "POST", body: JSON.stringify(body), headers } : {});
      this.status = answer.status;
      if (answer.ok) return await answer.json();
      this.said = await this.share.reason(answer);
    } catch {
      this.status = 0;
      this.said = this.words["live.share.failed"];
    }
    if (told) this.notice.say([this.said], true);
    return null;
  }

  // --- saving ----------------------------------------------------------------------------------------------------

  /** Keep the run on screen; into a class folder once its visitor has said how they are called. */
  async save() {
    await this.share.visited;
    if (!this.className) return this.keep({});
    const go = fill(this.words["live.stored.into"], { name: this.className });
    const asked = askStudent(this.words["live.stored.student"], go, (student) => this.keep({ folder: this.folder, student }));
    this.notice.say(asked);
    asked[1].focus();
  }

  /** @param {{ folder?: string, student?: string }} more */
  async keep(more) {
    const { share, words } = this;
    this.notice.say([words["live.stored.saving"]]);
    const secret = kept.get(STORED.owner, "");
    /** @type {KeptRun | null} */
    const saved = await this.ask("save", { run: share.page.run, view: share.view(), ...more, ...(secret ? { secret } : {}) });
    if (!saved) return;
    kept.set(STORED.owner, saved.secret);
    const until = this.date(saved.until);
    const [said, field] = [el("p"), linkField(this.link({ [QUERIES.run]: saved.id }), words["live.stored.address"])];
    this.notice.say([said, field, this.remover(saved.id)]);
    const done = await copied(field.value, field);
    said.textContent = fill(words[done ? "live.stored.saved" : "live.stored.select"], { until });
  }

  /** A button that deletes a run of this visitor's. @param {string} id */
  remover(id) {
    const remove = press("lv-quiet lv-stored-delete", async () => {
      /** @type {Done | null} */
      const done = await this.ask("delete", { id, secret: kept.get(STORED.owner, "") });
      if (done) this.notice.say([this.words["live.stored.deleted"]]);
    });
    remove.textContent = this.words["live.stored.delete"];
    return remove;
  }

  // --- opening ---------------------------------------------------------------------------------------------------

  /** Show a stored run as it was saved. @param {string} id */
  async open(id) {
    const { page } = this.share;
    /** @type {OpenedRun | null} */
    const secret = kept.get(STORED.owner, "");
    const found = await this.ask("open", { id, ...(secret ? { secret } : {}) });
    if (!found) {
      page.showOpening();
      return;
    }
    if (page.run !== null && !page.onRecorded && page.run === page.own) return; // the visitor was quicker
    this.shown = { id: found.id, title: found.title, until: found.until, run: found.snapshot.run };
    this.share.file = { run: found.snapshot.run, name: found.title };
    page.shelf.follow(found.panels, found.group);
    page.player.pause();
    page.snapshot(found.snapshot);
    page.mark();
    if (found.mine) this.notice.say([`${this.words["live.stored.yours"]} ${this.until(found.until)}`, this.remover(id)]);
    else this.notice.clear();
    if (page.shelf.on().some((panel) => !(panel in found.snapshot.figures))) page.redraw();
  }

  /** The words of the badge of a run that is shown; null when it is no stored one. @param {string} run @returns {[string, string] | null} */
  badge(run) {
    const { shown, words } = this;
    if (shown?.run !== run) return null;
    return [words["live.stored.badge"], `${shown.title}\n${words["live.stored.badge.hint"]}\n${this.until(shown.until)}`.trimEnd()];
  }

  // --- lists -----------------------------------------------------------------------------------------------------

  /**
   * Stored runs, each a link.
   * @param {string} title
   * @param {KeptEntry[]} runs
   */
  list(title, runs) {
    this.notice.say([el("p", "lv-left", title), el("ul", "lv-stored-list", ...runs.map((run) => this.row(run)))]);
  }

  /**
   * A stored run in a list.
   * @param {KeptEntry} run
   * @param {Node | null} more what can be done with it there
   */
  row({ id, title, model, of_ttt: learns, tokens, student, created }, more = null) {
    const asked = new URLSearchParams(location.search).get(QUERIES.lang);
    const spoken = asked ? { [QUERIES.lang]: asked } : null; // who goes on from here goes on in this language
    const link = el("a", "", title || NEVER);
    link.href = this.link({ [QUERIES.run]: id, ...spoken }, learns ? PAGES.ttt : "");
    const about = [model, fill(this.words["live.stored.tokens"], { n: tokens }), this.date(created)].join(" · ");
    return el("li", "", student ? el("b", "", `${student}: `) : null, link, el("small", "", about), more);
  }

  // --- class folders ---------------------------------------------------------------------------------------------

  /** The address names a class folder: its pupils are told where they are, its teacher what lies in it. */
  async enter() {
    const { folder, teacher, words } = this;
    /** @type {KeptList | null} */
    const found = await this.ask("class", { folder, ...(teacher ? { secret: teacher } : {}) }, namesClass());
    if (!found) {
      if (!namesClass() && this.status === GONE) enterClass(null); // its time is over
      return;
    }
    this.className = found.name;
    if (teacher) {
      const { ClassList } = await import("./class_list.js");
      new ClassList(this, found).show();
    } else {
      enterClass(folder);
      if (namesClass()) this.notice.say([fill(words["live.stored.class.here"], { name: found.name })]);
    }
  }

  /** Make a class folder: its name is asked, then its two links are shown. */
  newClass() {
    const { words } = this;
    const name = el("input", "lv-link");
    Object.assign(name, { maxLength: 80 });
    name.setAttribute("aria-label", words["live.stored.class.name"]);
    const make = press("lv-go", async () => {
      /** @type {MadeFolder | null} */
      const made = await this.ask("class/new", { name: name.value });
      if (!made) return;
      const address = this.link({ [QUERIES.class]: made.folder });
      const [pupils, teacher] = [fill(words["live.stored.class.pupils"], { name: made.name }), words["live.stored.class.teacher"]];
      this.notice.say([pupils, linkField(address, pupils), teacher, linkField(`${address}#${TEACHER}=${made.secret}`, teacher)]);
    });
    make.textContent = words["live.stored.class.make"];
    this.notice.say([words["live.stored.class.name"], name, make]);
    name.focus();
  }

  // --- small things ------------------------------------------------------------------------------------------------

  /**
   * An address of this page, or of one beside it.
   * @param {Record<string, string>} query
   */
  link(query, beside = "") {
    const url = new URL(beside, location.href);
    Object.assign(url, { search: String(new URLSearchParams(query)), hash: "" });
    return url.href;
  }

  /** Until when a run is kept, in words; none of one in the gallery. @param {number | null} at */
  until(at) {
    return at === null ? "" : fill(this.words["live.stored.yours.until"], { until: this.date(at) });
  }

  /** @param {number} at */
  date(at) {
    return dated(at, this.share.lang);
  }
}
