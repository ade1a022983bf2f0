// What a link holds, in the text's place, until its run has been made: a link never holds a result.

import { el, press } from "../core/dom.js";

/** @import { Holds } from "../core/contract.js" */

export class Linked {
  /** @type {Record<string, string> | undefined} */
  texts = undefined;
  /** @type {Holds | undefined} what the link holds */
  holds = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h3");
    this.list = el("dl");
    this.run = press("lv-go lv-link-run", () => page.start());
    this.recorded = press("lv-quiet lv-link-recorded", () => {
      this.close();
      page.showOpening();
    });
    this.node = el("div", "lv-linked", this.title, this.list, el("div", "lv-buttons-row", this.run, this.recorded));
    this.node.hidden = true;
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.title.textContent = texts["live.linked"];
    this.run.textContent = texts["live.linked.run"];
    this.recorded.textContent = texts["live.linked.recorded"];
    this.show();
  }

  /** @param {Holds} holds */
  open(holds) {
    this.holds = holds;
    this.node.hidden = false;
    this.page.words.idle.hidden = true;
    this.show();
  }

  show() {
    if (!this.texts || !this.holds) return;
    const { prompt, model, loop } = this.holds;
    const rows = [["live.linked.prompt", prompt], ["live.linked.model", model], ["live.linked.loop", loop]].filter(([, said]) => said);
    this.list.replaceChildren(...rows.flatMap(([key, said]) => [el("dt", "", this.texts[key]), el("dd", "", said)]));
    this.recorded.hidden = !this.page.opening;
  }

  close() {
    this.node.hidden = true;
  }
}
