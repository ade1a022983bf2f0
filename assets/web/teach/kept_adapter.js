// What was kept of a teaching: what it is worth, how it is opened, the file.

import { QUERIES } from "../core/contract.js";
import { el, keep, press, scrollable } from "../core/dom.js";

/** @import { TeachKept } from "../core/contract.js" */

const MIB = 2 ** 20;

export class KeptAdapter {
  /** @type {TeachKept | null} */
  kept = null;

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2");
    this.said = el("p", "lv-verdict");
    this.how = el("p", "lv-question");
    this.command = el("code", "lv-teach-command");
    this.save = press("lv-go", () => this.fetch());
    this.beside = Object.assign(el("a", "lv-quiet"), { target: "_blank" }); // who leaves this page leaves what was kept
    const ways = el("div", "lv-buttons-row", this.save, this.beside);
    this.node = el("section", "lv-card lv-teach-kept", this.title, this.said, this.how, this.command, ways);
    this.node.hidden = true;
  }

  /** @param {TeachKept | null} kept */
  show(kept) {
    const { page } = this;
    const first = kept !== null && this.kept === null;
    this.kept = kept;
    this.node.hidden = kept === null;
    if (kept === null) return;
    const size = kept.bytes < MIB ? `${(kept.bytes / 1024).toFixed(0)} KiB` : `${(kept.bytes / MIB).toFixed(1)} MiB`;
    this.title.textContent = page.text("teach.kept");
    this.said.textContent = `${kept.said} ${page.text("teach.kept.loops", { loops: kept.loops })}`;
    this.how.textContent = page.text("teach.kept.open");
    this.command.textContent = kept.command;
    scrollable(this.command, page.text("teach.kept.open"));
    this.save.textContent = page.text("teach.save", { name: kept.name, size });
    this.beside.hidden = kept.link === null;
    this.beside.href = `${page.frame.config.pages.compare}?${QUERIES.link}=${kept.link}`;
    this.beside.textContent = page.text("teach.kept.beside");
    this.beside.title = page.text("teach.kept.beside.hint");
    if (first) this.node.scrollIntoView({ block: "nearest" });
  }

  /** The file, for the visitor to keep. */
  async fetch() {
    const { page } = this;
    const { kept } = this;
    try {
      const url = new URL(page.frame.config.file.replace("{run}", page.run.run), document.baseURI);
      url.search = String(new URLSearchParams({ [QUERIES.lang]: page.frame.lang }));
      const answer = await fetch(url);
      if (answer.ok) keep(await answer.blob(), kept.name);
      else page.say(answer.status === 404 ? page.text("teach.gone") : page.text("teach.lost"), true);
    } catch {
      page.say(page.text("teach.lost"), true);
    }
  }
}
