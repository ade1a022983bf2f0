// Words explained: the glossary in a sheet of its own, terms in texts as links to it, links to the code behind a panel.
// An entry's address is `#term-<key>`, on any page address. Texts are ours, formulas made by our server; text reaches the
// page through textContent only.

import { el, fill, name, press, scrollable } from "../core/dom.js";

const ANCHOR = "#term-";

/** @import { Glossary as Told, Pieces, Place, Term } from "../core/contract.js" */

/**
 * Where a panel is drawn and where its numbers come from, as links to the files this very installation runs.
 * @param {Place[]} code
 * @param {Record<string, string>} texts
 */
export function codeLinks(code, texts) {
  const row = el("p", "lv-code", el("b", "", texts["live.code"]));
  for (const { name: called, at, url } of code) {
    const link = el("a", "", called || at);
    Object.assign(link, { href: url, target: "_blank", rel: "noopener", title: `${texts["live.code.hint"]}: ${at}` });
    row.append(" ", link);
  }
  return row;
}

/** A text in pieces (see loopviz/app/server/glossary.py): the terms in it lead to the glossary. @param {Pieces} pieces */
export function termed(pieces) {
  return pieces.map((piece) => {
    if (typeof piece === "string") return piece;
    const link = el("a", "lv-term", piece[0]);
    link.href = ANCHOR + piece[1];
    return link;
  });
}

/** A formula our server made of our own text, as nodes. @param {string} markup */
export function typeset(markup) {
  const made = new DOMParser().parseFromString(markup, "text/html");
  return [...made.body.childNodes].map((node) => document.importNode(node, true));
}

/** Letters with indices: `s_r`, `p_{r−1}`. @param {string} text */
const lettered = (text) => text.split(/_(\{[^}]*\}|[A-Za-z0-9]+)/).map((part, i) => (i % 2 ? el("sub", "", part.replace(/[{}]/g, "")) : part));

/** @param {string} text */
const plain = (text) => text.normalize("NFKC").toLowerCase();

export class Glossary {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;
  /** @type {string | undefined} the page's language */
  wanted = undefined;
  /** @type {string | null} the language of the entries that are there */
  lang = null;
  /** @type {HTMLAnchorElement | null} the link that opened it */
  from = null;
  /** @type {Map<string, HTMLElement>} by key */
  sections = new Map();

  constructor() {
    this.title = el("h2");
    this.close = press("lv-icon", () => this.dialog.close(), "×");
    this.search = el("input", "lv-glossary-search");
    this.search.type = "search";
    this.search.addEventListener("input", () => this.filter());
    this.found = el("p", "lv-glossary-found");
    this.found.setAttribute("role", "status");
    this.list = el("div", "lv-glossary-list");
    this.dialog = el("dialog", "lv-glossary", el("header", "", this.title, this.close, this.search, this.found), this.list);
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    // an address that names an entry would open it again
    this.dialog.addEventListener("close", () => {
      if (location.hash.startsWith(ANCHOR)) history.replaceState(history.state, "", location.pathname + location.search);
      this.from?.focus({ preventScroll: true }); // a browser that follows an address lets go of the link
      this.from = null;
    });
    this.button = press("lv-quiet lv-glossary-open", () => this.open());
    this.button.setAttribute("aria-haspopup", "dialog");
    document.addEventListener("click", (event) => {
      // the address of an entry that is open already would change nothing
      /** @type {HTMLAnchorElement | null} */
      const link = event.target instanceof Element ? event.target.closest(`a[href^="${ANCHOR}"]`) : null;
      if (link && !this.dialog.contains(link)) this.from = link;
      if (link && link.hash === location.hash) this.follow();
    });
    window.addEventListener("hashchange", () => this.follow());
  }

  /** @param {{ texts: Record<string, string>, lang: string }} config */
  configure({ texts, lang }) {
    this.texts = texts;
    this.wanted = lang;
    this.button.textContent = this.title.textContent = texts["live.glossary"];
    this.button.title = texts["live.glossary.hint"];
    this.dialog.setAttribute("aria-label", texts["live.glossary"]);
    this.search.placeholder = texts["live.glossary.search"];
    this.search.setAttribute("aria-label", texts["live.glossary.search"]);
    name(this.close, texts["live.close"]);
    if (this.dialog.open) this.fill();
  }

  /** Go where the page's address points, if that is an entry. */
  follow() {
    if (location.hash.startsWith(ANCHOR)) this.open(decodeURIComponent(location.hash.slice(ANCHOR.length)));
    else if (this.dialog.open) this.dialog.close();
  }

  /** Show the glossary, at the entry `key` if one is named. @param {string | null} key */
  async open(key = null) {
    if (!this.dialog.open) this.dialog.showModal();
    if (key !== null) this.search.value = "";
    if (await this.fill()) this.filter();
    const section = this.sections.get(key);
    this.list.querySelector(".lv-here")?.classList.remove("lv-here");
    if (!section) return;
    section.classList.add("lv-here");
    section.scrollIntoView({ block: "start" });
    section.querySelector("h3").focus({ preventScroll: true });
  }

  /** Fetch and build the entries in the page's language; whether they are there. */
  async fill() {
    const lang = this.wanted;
    if (this.lang === lang) return true;
    try {
      const answer = await fetch(new URL(`../glossary.${lang}.json`, import.meta.url));
      /** @type {Told} */
      const { terms } = await answer.json();
      if (lang !== this.wanted || lang === this.lang) return this.lang === this.wanted;
      this.build(terms);
      this.lang = lang;
    } catch {
      this.list.replaceChildren(el("p", "", this.texts["live.glossary.failed"]));
      return false;
    }
    return true;
  }

  /** @param {Term[]} terms */
  build(terms) {
    const names = new Map(terms.map((term) => [term.key, term.name]));
    this.sections.clear();
    for (const { key, name: called, plain: words, symbols, formula, see } of terms) {
      const title = el("h3", "", called);
      title.tabIndex = -1;
      const section = el("section", "", title, el("p", "", words));
      section.id = ANCHOR.slice(1) + key;
      if (formula) section.append(...typeset(formula), el("p", "lv-symbols", ...lettered(symbols)));
      for (const wide of /** @type {NodeListOf<HTMLElement>} */ (section.querySelectorAll(".formula"))) scrollable(wide, called);
      if (see.length) {
        const links = termed(see.map((other) => [names.get(other), other]));
        section.append(el("p", "lv-see", `${this.texts["live.glossary.see"]} `, ...links.flatMap((link, i) => (i ? [" · ", link] : [link]))));
      }
      section.dataset.words = plain([called, words, symbols, key].join(" "));
      this.sections.set(key, section);
    }
    this.list.replaceChildren(...this.sections.values());
    this.filter();
  }

  /** Show the entries in which every word searched for occurs. */
  filter() {
    const asked = plain(this.search.value).split(/\s+/).filter(Boolean);
    let n = 0;
    for (const section of this.sections.values()) {
      section.hidden = !asked.every((word) => section.dataset.words.includes(word));
      n += section.hidden ? 0 : 1;
    }
    this.found.textContent = asked.length ? fill(this.texts["live.glossary.found"], { n, total: this.sections.size }) : "";
  }
}
