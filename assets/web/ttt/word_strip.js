// The text of a run, as it grows: one of its words may be looked at; else the newest is.

import { el, press } from "../core/dom.js";
import { WordList } from "../widgets/word_list.js";

export class WordStrip {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2", "lv-anatomy-title");
    this.hint = el("span", "lv-question");
    this.follow = press("lv-quiet", () => page.go({ token: null }));
    this.none = el("p", "lv-question");
    this.list = new WordList("ttt", () => page.where.token ?? page.words.length - 1, (token) => page.go({ token }));
    this.next = el("span", "lv-ttt-next");
    this.node = el("div", "lv-anatomy-words", el("div", "lv-anatomy-words-head", this.title, this.hint, this.follow), this.none, this.list.region);
  }

  label() {
    const { page } = this;
    this.title.textContent = page.text("ttt.words");
    this.hint.textContent = page.text("ttt.words.hint");
    this.follow.textContent = page.text("ttt.follow");
    this.none.textContent = page.text("ttt.words.none");
    this.list.region.setAttribute("aria-label", page.text("ttt.words"));
    this.mark();
  }

  /** The words there are now; those that were there stay. */
  fill() {
    const { words, run } = this.page;
    const { list } = this;
    if (list.words.length > words.length) this.clear();
    const added = words.slice(list.words.length).map(([text, prompt]) => {
      const word = list.add(text);
      if (prompt) word.classList.add("lv-ttt-prompt");
      return word;
    });
    this.next.remove();
    list.region.append(...added);
    this.next.textContent = run?.next ?? "";
    if (this.next.textContent) list.region.append(this.next);
    this.mark();
  }

  /** Another run. */
  clear() {
    this.list.clear();
  }

  /** Mark the word that is looked at, and the first after something was changed. */
  mark() {
    const { where, run } = this.page;
    const { words, region } = this.list;
    this.none.hidden = words.length > 0;
    region.hidden = !words.length;
    this.follow.hidden = where.token === null || !words.length;
    for (const { index } of run?.changes ?? []) words[index]?.classList.add("lv-ttt-changed");
    this.list.select(where.token);
    if (where.token === null) region.scrollTop = region.scrollHeight;
  }
}
