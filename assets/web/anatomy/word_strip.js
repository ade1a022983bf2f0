// The words of the run, tinted by their loops: one of them is looked into.

import { el } from "../core/dom.js";
import { tint } from "../widgets/loop_tint.js";
import { WordList } from "../widgets/word_list.js";

const PAUSE_MS = 150; // after the last key: one that is held down goes past many words

export class WordStrip {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2", "lv-anatomy-title");
    this.hint = el("span", "lv-question");
    this.list = new WordList("anatomy", () => page.token, (token, byKey) => page.go({ token }, byKey ? PAUSE_MS : undefined));
    this.node = el("div", "lv-anatomy-words", el("div", "lv-anatomy-words-head", this.title, this.hint), this.list.region);
  }

  label() {
    this.title.textContent = this.page.text("anatomy.words");
    this.hint.textContent = this.page.text("anatomy.words.hint");
    this.list.region.setAttribute("aria-label", this.page.text("anatomy.words"));
  }

  /** The words of a run. */
  fill() {
    const { tokens, palette } = this.page.run;
    this.list.clear();
    for (const [text, loops, prompt] of tokens) {
      const word = this.list.add(text);
      if (prompt) word.classList.add("lv-prompt");
      if (!loops) continue;
      word.dataset.loops = String(loops);
      tint(word, palette, loops);
    }
    this.list.region.append(...this.list.words);
  }

  /** Mark the word that is looked into. */
  mark() {
    this.list.select(this.page.token);
  }
}
