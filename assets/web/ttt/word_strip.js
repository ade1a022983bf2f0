// The text of a run, as it grows: one of its words may be looked at; else the newest is.

import { el, press, shown } from "../core/dom.js";

export class WordStrip {
  /** @type {HTMLElement[]} a word each */
  words = [];

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2", "lv-anatomy-title");
    this.hint = el("span", "lv-question");
    this.follow = press("lv-quiet", () => page.go({ token: null }));
    this.none = el("p", "lv-question");
    this.region = el("div", "lv-words");
    this.region.tabIndex = 0;
    this.region.setAttribute("role", "listbox");
    this.region.setAttribute("aria-orientation", "horizontal");
    this.region.addEventListener("click", (event) => {
      /** @type {HTMLElement | null} */
      const word = event.target instanceof Element ? event.target.closest("[data-i]") : null;
      if (word) page.go({ token: Number(word.dataset.i) });
    });
    this.region.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const to = (page.where.token ?? this.words.length - 1) + way;
      if (to >= 0 && to < this.words.length) page.go({ token: to });
    });
    this.next = el("span", "lv-ttt-next");
    this.node = el("div", "lv-anatomy-words", el("div", "lv-anatomy-words-head", this.title, this.hint, this.follow), this.none, this.region);
  }

  label() {
    const { page } = this;
    this.title.textContent = page.text("ttt.words");
    this.hint.textContent = page.text("ttt.words.hint");
    this.follow.textContent = page.text("ttt.follow");
    this.none.textContent = page.text("ttt.words.none");
    this.region.setAttribute("aria-label", page.text("ttt.words"));
    this.mark();
  }

  /** The words there are now; those that were there stay. */
  fill() {
    const { words, run } = this.page;
    if (this.words.length > words.length) this.clear();
    const first = this.words.length;
    const added = words.slice(first).map(([text, prompt], i) => {
      const word = el("span", "lv-tok", text);
      if (text === "" || text === " ") word.classList.add("lv-blank");
      if (/^\s*\n/.test(text)) word.classList.add("lv-newline");
      if (!text.trim()) word.setAttribute("aria-label", shown(text).replaceAll(" ", "␣") || "…");
      if (prompt) word.classList.add("lv-ttt-prompt");
      word.dataset.i = String(first + i);
      word.id = `lv-ttt-word-${first + i}`;
      word.setAttribute("role", "option");
      return word;
    });
    this.words.push(...added);
    this.next.remove();
    this.region.append(...added);
    this.next.textContent = run?.next ?? "";
    if (this.next.textContent) this.region.append(this.next);
    this.mark();
  }

  /** Another run. */
  clear() {
    this.words = [];
    this.region.replaceChildren();
  }

  /** Mark the word that is looked at, and the first after something was changed. */
  mark() {
    const { where, run } = this.page;
    this.none.hidden = this.words.length > 0;
    this.region.hidden = !this.words.length;
    this.follow.hidden = where.token === null || !this.words.length;
    this.region.querySelector("[aria-selected]")?.removeAttribute("aria-selected");
    this.region.querySelector(".lv-selected")?.classList.remove("lv-selected");
    for (const { index } of run?.changes ?? []) this.words[index]?.classList.add("lv-ttt-changed");
    const word = where.token === null ? null : this.words[where.token];
    this.region.removeAttribute("aria-activedescendant");
    if (!word) {
      if (where.token === null) this.region.scrollTop = this.region.scrollHeight;
      return;
    }
    word.classList.add("lv-selected");
    word.setAttribute("aria-selected", "true");
    this.region.setAttribute("aria-activedescendant", word.id);
    const { region } = this;
    const [top, bottom] = [word.offsetTop - region.offsetTop, word.offsetTop - region.offsetTop + word.offsetHeight];
    if (top < region.scrollTop) region.scrollTop = top - 6;
    else if (bottom > region.scrollTop + region.clientHeight) region.scrollTop = bottom - region.clientHeight + 6;
  }
}
