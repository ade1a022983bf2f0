// What a link holds, in the text's place, until its run has been made: a link never holds a result.

import { el, fill, press } from "../core/dom.js";

/** @import { Holds } from "../core/contract.js" */

const MOST = 60; // characters of a prompt in the heading

/** A prompt's beginning. @param {string} prompt */
function shortened(prompt) {
  const letters = [...prompt.trim().replace(/\s+/g, " ")];
  return letters.length > MOST ? `${letters.slice(0, MOST).join("").trimEnd()} …` : letters.join("");
}

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
    this.why = el("p", "lv-question");
    this.run = press("lv-go lv-link-run", () => page.start());
    this.recorded = press("lv-quiet lv-link-recorded", () => {
      this.close();
      page.showOpening();
    });
    this.node = el("div", "lv-linked", this.title, this.list, this.why, el("div", "lv-buttons-row", this.run, this.recorded));
    this.node.hidden = true;
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.why.textContent = texts["live.linked.why"];
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
    const begins = prompt && shortened(prompt);
    // "This link: layers 0-1 run 8 times, “Once there was a robot …”"; all of how it loops stands below
    this.title.textContent = begins && loop ? fill(this.texts["live.linked.of"], { loop: loop.split(" · ")[0], prompt: begins }) : this.texts["live.linked"];
    const rows = [["live.linked.prompt", prompt], ["live.linked.model", model], ["live.linked.loop", loop]].filter(([, said]) => said);
    this.list.replaceChildren(...rows.flatMap(([key, said]) => [el("dt", "", this.texts[key]), el("dd", "", said)]));
    this.recorded.hidden = !this.page.opening;
  }

  close() {
    this.node.hidden = true;
  }
}
