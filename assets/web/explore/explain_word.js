// A paragraph about one word, as the server has made it by rules from recorded numbers, and a button that goes on from there with
// another number of loops.

import { el, fill, press } from "../core/dom.js";

/** @import { Explained } from "../core/contract.js" */

export class ExplainWord {
  /** @type {Record<string, string> | undefined} */
  texts = undefined;
  /** @type {Explained | null} */
  told = null;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h3", "lv-explain-title");
    this.words = el("p", "lv-explain-words");
    this.branch = press("lv-quiet lv-branch", () => this.go());
    this.node = el("section", "lv-explain", el("div", "lv-explain-head", this.title, this.branch), this.words);
    this.node.setAttribute("aria-live", "polite");
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.title.textContent = texts["live.hero.explain"];
    this.branch.title = texts["live.hero.branch.hint"];
    this.show(this.told);
  }

  /** @param {Explained | null} told null: nothing is said yet of the word shown */
  show(told) {
    const { texts, page } = this;
    this.told = told;
    if (!texts) return;
    const said = told?.text ?? texts["live.hero.explain.none"];
    if (this.words.textContent !== said) this.words.textContent = said; // what is written anew is read out anew
    this.words.classList.toggle("lv-waiting", !told);
    const branch = told?.branch;
    this.branch.textContent = fill(texts["live.hero.branch"], { loops: branch?.loops ?? "" });
    this.branch.classList.toggle("lv-untold", !branch || !page.end || page.lost);
    this.branch.disabled = !branch;
  }

  /** This run once more up to the word, with that many loops. */
  go() {
    const { page, told } = this;
    if (!told?.branch || !page.tell) return;
    page.player.pause();
    page.tell.adopt({ run: page.run, ...told.branch });
  }
}
