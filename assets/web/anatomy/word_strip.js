// The words of the run, tinted by their loops: one of them is looked into.

import { el, shown } from "../core/dom.js";
import { tint } from "../widgets/loop_tint.js";

const PAUSE_MS = 150; // after the last key: one that is held down goes past many words

export class WordStrip {
  /** @type {HTMLElement[]} a word each */
  words = [];

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2", "lv-anatomy-title");
    this.hint = el("span", "lv-question");
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
      const to = page.token + way;
      if (to >= 0 && to < this.words.length) page.go({ token: to }, PAUSE_MS);
    });
    this.node = el("div", "lv-anatomy-words", el("div", "lv-anatomy-words-head", this.title, this.hint), this.region);
  }

  label() {
    this.title.textContent = this.page.text("anatomy.words");
    this.hint.textContent = this.page.text("anatomy.words.hint");
    this.region.setAttribute("aria-label", this.page.text("anatomy.words"));
  }

  /** The words of a run. */
  fill() {
    const { tokens, palette } = this.page.run;
    this.words = tokens.map(([text, loops, prompt], i) => {
      const word = el("span", "lv-tok", text);
      if (text === "" || text === " ") word.classList.add("lv-blank");
      if (/^\s*\n/.test(text)) word.classList.add("lv-newline");
      if (!text.trim()) word.setAttribute("aria-label", shown(text).replaceAll(" ", "␣") || "…");
      if (prompt) word.classList.add("lv-prompt");
      if (loops) {
        word.dataset.loops = String(loops);
        tint(word, palette, loops);
      }
      word.dataset.i = String(i);
      word.id = `lv-anatomy-word-${i}`;
      word.setAttribute("role", "option");
      return word;
    });
    this.region.replaceChildren(...this.words);
  }

  /** Mark the word that is looked into. */
  mark() {
    this.region.querySelector("[aria-selected]")?.removeAttribute("aria-selected");
    this.region.querySelector(".lv-selected")?.classList.remove("lv-selected");
    const word = this.words[this.page.token];
    if (!word) return;
    word.classList.add("lv-selected");
    word.setAttribute("aria-selected", "true");
    this.region.setAttribute("aria-activedescendant", word.id);
    const { region } = this;
    const [top, bottom] = [word.offsetTop - region.offsetTop, word.offsetTop - region.offsetTop + word.offsetHeight];
    if (top < region.scrollTop) region.scrollTop = top - 6;
    else if (bottom > region.scrollTop + region.clientHeight) region.scrollTop = bottom - region.clientHeight + 6;
  }
}
