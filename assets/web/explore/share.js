// Links to what is set up, and files: a run saved or opened, a report, a panel's picture or data.
// The server's half: loopviz/app/explore/files.py and links.py.

import { PANEL_FILES, QUERIES, TICKET_HEADER } from "../core/contract.js";
import { copied, el, fill, keep, name, press, sleep } from "../core/dom.js";
import { linkField } from "../widgets/link_field.js";
import { Menu, Notice } from "../widgets/menu.js";
import { picture, slug } from "./panel_image.js";
import { Stored } from "./stored.js";

const PATIENCE_MS = 10_000; // for the word of a link
const PICTURES = ["png", "svg"];
const WORDED_MS = 120; // until Gradio has drawn what the beginning of a visit sets

/** @import { ExploreSnapshot, Focus, LinkMade, OpenedLink, Visit } from "../core/contract.js" */
/** @import { Panel } from "./panel.js" */
/** @typedef {{ notice: Notice, menu: Menu, panel: Panel }} Export a panel's menu, and where it says what came of it */

export class Share {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;
  /** @type {string | undefined} of the words */
  lang = undefined;
  /** @type {{ run: string, name: string } | null} the file that was opened */
  file = null;
  /** @type {Pick<Focus, "token" | "step" | "pins"> | null} the view of a link, until there is a run of the visitor's to look at so */
  awaited = null;
  /** @type {number} of the latest link that was wished for */
  wish = 0;
  /** @type {number | undefined} until that takes too long */
  late = undefined;
  /** @type {Promise<void>} until the link of the address has been read */
  read = Promise.resolve();
  /** @type {string | undefined} the language in which the link of the address was told of */
  followed = undefined;
  /** @type {HTMLElement | undefined} what is told of it */
  telling = undefined;
  /** @type {number} bytes of a file, at most */
  largest = 0;
  /** @type {string} to open files with */
  ticket = "";
  /** @type {Export[]} a panel each */
  exports = [];

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.word = new URLSearchParams(location.search).get(QUERIES.link);
    /** @type {() => void} */
    this.visiting = null;
    /** @type {Promise<void>} */
    this.visited = new Promise((resolve) => (this.visiting = resolve));
    this.settled = this.visited.then(() => sleep(WORDED_MS)); // the controls show what a link has set
    this.opened = this.word === null; // whether they do
    this.settled.then(() => (this.opened = true));
    this.menu = new Menu("lv-quiet lv-share", [
      { key: "link", act: () => this.copy() },
      { key: "keep", act: () => this.stored.save() },
      { key: "save", act: () => this.fetch("trace", "live.share.save", this.notice) },
      { key: "report", act: () => this.fetch("report", "live.share.report", this.notice) },
      { key: "python", act: () => this.python() },
      { key: "notebook", act: () => this.fetch("notebook", "live.share.notebook", this.notice) },
      { key: "open", act: () => this.input.click() },
      { key: "class", act: () => this.stored.newClass() },
    ]);
    this.menu.opening = () => this.label();
    this.input = el("input");
    Object.assign(this.input, { type: "file", accept: ".loopviz", hidden: true });
    this.input.addEventListener("change", () => {
      const [file] = this.input.files;
      if (file) this.open(file).finally(() => (this.input.value = "")); // the same one may be chosen again
    });
    this.menu.node.append(this.input);
    page.root.addEventListener("dragover", (event) => event.preventDefault());
    page.root.addEventListener("drop", (event) => this.dropped(event));
    this.back = press("lv-quiet lv-show-file", () => page.showRun(this.file.run));
    this.notice = new Notice();
    this.stored = new Stored(this);
  }

  /**
   * @param {Record<string, string>} texts
   * @param {string} lang
   */
  configure(texts, lang) {
    Object.assign(this, { texts, lang });
    this.menu.button.textContent = texts["live.share"];
    for (const { notice, menu, panel } of this.exports) {
      name(notice.close, texts["live.share.close"]);
      name(menu.button, fill(texts["live.export.of"], { panel: panel.words.name }), texts["live.export"]);
    }
    name(this.notice.close, texts["live.share.close"]);
    this.label();
    this.show();
    this.stored.configure();
    if (this.word !== null) this.read = this.follow();
  }

  /** The words of the menu, as the run on screen has them. */
  label() {
    const { page, texts } = this;
    const off = page.run && page.end ? null : texts["live.share.running"];
    for (const key of ["link", "save", "report", "python", "notebook", "open"]) {
      const free = key === "link" || (key === "open" && !page.run);
      this.menu.label(key, texts[`live.share.${key}`], texts[`live.share.${key}.hint`], free ? null : off);
    }
    this.stored.label();
  }

  /** Which run is on screen, and the way back to the opened file. */
  show() {
    const { page, texts } = this;
    if (!texts) return;
    const shown = this.file !== null && page.run === this.file.run;
    const kept = shown && this.stored.badge(page.run);
    page.badge.hidden = !shown && !page.onRecorded;
    if (kept) [page.badge.textContent, page.badge.title] = kept;
    else {
      page.badge.textContent = shown ? `${texts["live.share.opened"]} · ${this.file.name}` : texts["live.recorded"];
      page.badge.title = shown ? `${this.file.name}\n${texts["live.share.opened.hint"]}` : texts["live.recorded.hint"];
    }
    this.back.textContent = texts[this.file && this.stored.badge(this.file.run) ? "live.stored.badge" : "live.share.show"];
    this.back.hidden = this.file === null || shown || !page.end;
    if (this.file) this.back.title = this.file.name;
  }

  /** @param {string} run */
  isFile(run) {
    return this.file?.run === run;
  }

  /** The server keeps this run no longer. @param {string} run */
  forget(run) {
    if (this.isFile(run)) this.file = null;
    this.show();
  }

  /** Gradio knows the visitor: files can be opened. @param {Visit} visit */
  visit(visit) {
    this.largest = visit.largest;
    this.ticket = visit.ticket;
    this.stored.visit(visit);
    this.visiting();
  }

  /**
   * @param {string} path
   * @param {Record<string, string>} query
   */
  address(path, query) {
    const url = new URL(`${this.page.root.dataset.share}/${path}`, document.baseURI);
    url.search = String(new URLSearchParams({ [QUERIES.lang]: this.lang, ...query }));
    return url;
  }

  view() {
    const { focus, shelf } = this.page;
    return JSON.stringify({ panels: shelf.on(), on: shelf.chosen(), focus: { ...focus, ...this.awaited } });
  }

  // --- links -----------------------------------------------------------------------------------------------------

  async copy() {
    const { page, texts } = this;
    this.notice.say([texts["live.share.making"]]);
    const wish = ++this.wish;
    this.late = setTimeout(() => wish === this.wish && this.notice.say([texts["live.share.failed"]], true), PATIENCE_MS);
    await page.connected;
    // a view that still waits for its run was not made on the recorded one
    const run = this.awaited && page.onRecorded && page.focus.token === null ? null : page.run;
    page.tell.link({ n: wish, run, view: this.view() });
  }

  /** The server's word for what is set up. @param {LinkMade} message */
  async linked({ n, word, told }) {
    if (n !== this.wish) return; // of an earlier wish
    clearTimeout(this.late);
    if (word === null) {
      this.notice.say(told, true);
      return;
    }
    const url = new URL(location.href);
    Object.assign(url, { search: `?${QUERIES.link}=${word}`, hash: "" });
    const field = linkField(url.href, this.texts["live.share.address"]);
    const said = el("p");
    const left = told.length ? [el("p", "lv-left", this.texts["live.share.left"]), ...told] : [];
    this.notice.say([said, field, ...left]);
    const done = await copied(url.href, field);
    said.textContent = this.texts[done ? "live.share.copied" : "live.share.select"];
  }

  /** The page was opened with a link: look as it asks, and say what of it could not be done. */
  async follow() {
    const { word, lang } = this;
    if (this.followed === lang) return;
    const first = this.followed === undefined;
    this.followed = lang;
    /** @type {OpenedLink | null} */
    let found = null;
    try {
      const answer = await fetch(this.address("link", { [QUERIES.link]: word }));
      if (answer.ok) found = await answer.json();
    } catch {
      found = null;
    }
    if (found === null) {
      this.notice.say([this.texts["live.share.failed"]], true);
      this.page.showOpening();
    } else {
      if (first) this.apply(found);
      if (found.told.length && (first || this.telling?.isConnected)) {
        this.telling = el("p", "lv-left", this.texts["live.share.told"]);
        this.notice.say([this.telling, ...found.told], true);
      }
    }
  }

  /** @param {OpenedLink} link */
  apply({ panels, group, focus, snapshot, holds }) {
    const { page } = this;
    page.shelf.follow(panels, group);
    if (!snapshot && holds && page.run === null) page.linked.open(holds);
    else if (!snapshot) page.showOpening();
    const { token, step, pins, lang, ...view } = focus;
    if (snapshot) {
      if (page.run !== null && !page.onRecorded) return; // the visitor was quicker
      page.snapshot(snapshot);
      // an answer is on its way that knows nothing of the link, or it leaves to this browser which group is open
      if (page.looking || page.shelf.on().some((panel) => !(panel in snapshot.figures))) page.redraw();
      return;
    }
    this.awaited = { token, step, pins };
    page.focus = { ...page.focus, ...view };
    if (page.onRecorded) page.redraw();
  }

  /** A run of the visitor's has come so far: what a link selected is held as soon as it is there. */
  saw() {
    const { page, awaited } = this;
    if (awaited === null || page.run === null || page.run !== page.own) return;
    const last = Math.max(awaited.token ?? -1, ...awaited.pins);
    if (last < 0 || page.focus.token !== null || page.seq > last) {
      this.awaited = null;
      if (last >= 0 && page.focus.token === null) page.look(awaited);
    } else if (page.end) {
      this.awaited = null;
      this.notice.say([this.texts["live.share.beyond"]]);
    }
  }

  // --- files -----------------------------------------------------------------------------------------------------

  /**
   * Ask the server for a file of the run on screen, and keep it.
   * @param {string} path
   * @param {string} what the key of its name
   * @param {Notice} notice
   */
  async fetch(path, what, notice) {
    const { page, texts } = this;
    notice.say([fill(texts["live.share.preparing"], { name: texts[what] })]);
    try {
      const answer = await fetch(this.address(`${page.run}/${path}`, { view: this.view() }));
      if (!answer.ok) {
        notice.say([await this.reason(answer)], true);
        return;
      }
      const [, file] = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition"));
      keep(await answer.blob(), file);
      notice.pass(fill(texts["live.share.saved"], { file }));
    } catch {
      notice.say([texts["live.share.failed"]], true);
    }
  }

  /** The run on screen as Python, into the clipboard, and to be seen. */
  async python() {
    const { page, texts } = this;
    this.notice.say([fill(texts["live.share.preparing"], { name: texts["live.share.python"] })]);
    try {
      const answer = await fetch(this.address(`${page.run}/python`, {}));
      if (!answer.ok) {
        this.notice.say([await this.reason(answer)], true);
        return;
      }
      const field = el("textarea", "lv-link lv-python");
      Object.assign(field, { readOnly: true, value: await answer.text(), rows: 8, spellcheck: false });
      field.setAttribute("aria-label", texts["live.share.python.label"]);
      const said = el("p");
      this.notice.say([said, field]);
      const done = await copied(field.value, field);
      said.textContent = texts[done ? "live.share.python.copied" : "live.share.python.select"];
    } catch {
      this.notice.say([texts["live.share.failed"]], true);
    }
  }

  /** Why an answer is none, in the server's words; something in between may have answered in its own. @param {Response} answer */
  async reason(answer) {
    const plain = (answer.headers.get("content-type") ?? "").startsWith("text/plain");
    const said = plain ? (await answer.text()).slice(0, 600) : "";
    return said || this.texts["live.share.failed"];
  }

  /** A file let go of over the page; elsewhere the browser would leave the page for it. @param {DragEvent} event */
  dropped(event) {
    const [file] = event.dataTransfer?.files ?? [];
    if (!file || !this.texts) return;
    event.preventDefault();
    if (this.page.run && !this.page.end) this.notice.say([this.texts["live.share.running"]], true);
    else this.open(file);
  }

  /** Show a run from a file of the visitor's. @param {File} file */
  async open(file) {
    const { page, texts } = this;
    /** @param {number} bytes */
    const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(0);
    this.notice.say([fill(texts["live.share.reading"], { file: file.name })]);
    await this.visited;
    if (file.size > this.largest) {
      const sizes = { file: file.name, size: megabytes(file.size), limit: megabytes(this.largest) };
      this.notice.say([fill(texts["live.share.large"], sizes)], true);
      return;
    }
    try {
      const request = { method: "POST", body: file, headers: { [TICKET_HEADER]: this.ticket, "content-type": "application/octet-stream" } };
      const answer = await fetch(this.address("open", { view: this.view() }), request);
      if (!answer.ok) {
        this.notice.say([`${file.name}: ${await this.reason(answer)}`], true);
        return;
      }
      /** @type {ExploreSnapshot} */
      const snapshot = await answer.json();
      this.file = { run: snapshot.run, name: file.name };
      page.player.pause();
      page.snapshot(snapshot);
      page.mark();
      this.notice.clear();
    } catch {
      this.notice.say([texts["live.share.failed"]], true);
    }
  }

  // --- a panel's export --------------------------------------------------------------------------------------------

  /** The menu of a panel, and where it says what came of it. @param {Panel} panel */
  exporter(panel) {
    const notice = new Notice();
    /** @param {string} kind */
    const data = (kind) => ({ key: kind, act: () => this.fetch(`panel/${panel.name}/${kind}`, `live.export.${kind}`, notice) });
    /** @param {string} kind */
    const drawn = (kind) => ({ key: kind, act: () => this.draw(panel, kind, notice) });
    const menu = new Menu("lv-icon lv-export", [...PICTURES.map(drawn), ...PANEL_FILES.map(data)], true);
    menu.button.textContent = "⤓";
    menu.opening = () => this.labelExport(panel, menu);
    const made = { notice, menu, panel };
    this.exports.push(made);
    return made;
  }

  /**
   * @param {Panel} panel
   * @param {Menu} menu
   */
  labelExport(panel, menu) {
    const { page, texts } = this;
    const empty = panel.figure ? null : texts["live.export.nothing"];
    for (const kind of PICTURES) menu.label(kind, texts[`live.export.${kind}`], texts["live.export.picture"], empty);
    const off = empty ?? (page.end ? null : texts["live.share.running"]);
    for (const kind of PANEL_FILES) menu.label(kind, texts[`live.export.${kind}`], texts["live.export.data"], off);
  }

  /**
   * @param {Panel} panel
   * @param {string} kind
   * @param {Notice} notice
   */
  async draw(panel, kind, notice) {
    const { page, texts } = this;
    try {
      const model = page.about.querySelector("b")?.textContent ?? "";
      const at = page.current();
      const file = [slug(model) || "run", panel.name, ...(at < 0 ? [] : [`token-${at}`])].join("-");
      /** @type {[string, string]} */
      const lines = [panel.words.title, page.about.textContent];
      keep(await picture(panel, kind, lines), `${file}.${kind}`);
      notice.pass(fill(texts["live.share.saved"], { file: `${file}.${kind}` }));
    } catch (error) {
      console.error(`picture of ${panel.name}`, error);
      notice.say([fill(texts["live.export.undrawn"], { reason: /** @type {Error} */ (error).message })], true);
    }
  }
}
