// The words of a text, of which one is looked at: chosen by a click, or with ← and → once the list has the keyboard.

import { el, shown } from "../core/dom.js";

export class WordList {
  /** @type {HTMLElement[]} a word each */
  words = [];

  /**
   * @param {string} name of the page: its words' ids begin with it
   * @param {() => number} at the word from which keys go on
   * @param {(token: number, byKey: boolean) => void} go
   */
  constructor(name, at, go) {
    this.name = name;
    this.region = el("div", "lv-words");
    this.region.tabIndex = 0;
    this.region.setAttribute("role", "listbox");
    this.region.setAttribute("aria-orientation", "horizontal");
    this.region.addEventListener("click", (event) => {
      /** @type {HTMLElement | null} */
      const word = event.target instanceof Element ? event.target.closest("[data-i]") : null;
      if (word) go(Number(word.dataset.i), false);
    });
    this.region.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const to = at() + way;
      if (to >= 0 && to < this.words.length) go(to, true);
    });
  }

  /**
   * One more word, at the end of the list; who asks puts it into the region.
   * @param {string} text
   */
  add(text) {
    const word = el("span", "lv-tok", text);
    if (text === "" || text === " ") word.classList.add("lv-blank");
    if (/^\s*\n/.test(text)) word.classList.add("lv-newline");
    if (!text.trim()) word.setAttribute("aria-label", shown(text).replaceAll(" ", "␣") || "…");
    word.dataset.i = String(this.words.length);
    word.id = `lv-${this.name}-word-${this.words.length}`;
    word.setAttribute("role", "option");
    this.words.push(word);
    return word;
  }

  clear() {
    this.words = [];
    this.region.replaceChildren();
  }

  /** Mark the word that is looked at, if there is one, and bring it into view. @param {number | null} at */
  select(at) {
    const { region } = this;
    region.querySelector("[aria-selected]")?.removeAttribute("aria-selected");
    region.querySelector(".lv-selected")?.classList.remove("lv-selected");
    region.removeAttribute("aria-activedescendant");
    const word = at === null ? undefined : this.words[at];
    if (!word) return;
    word.classList.add("lv-selected");
    word.setAttribute("aria-selected", "true");
    region.setAttribute("aria-activedescendant", word.id);
    const [top, bottom] = [word.offsetTop - region.offsetTop, word.offsetTop - region.offsetTop + word.offsetHeight];
    if (top < region.scrollTop) region.scrollTop = top - 6;
    else if (bottom > region.scrollTop + region.clientHeight) region.scrollTop = bottom - region.clientHeight + 6;
  }
}
