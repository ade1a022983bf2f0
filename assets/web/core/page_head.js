// What every page beside Explore shares: its head with the ways to the other pages, its language, its look, its messages.
// Text reaches the page through textContent only.

import { QUERIES, STORED } from "./contract.js";
import { el, fill, kept, name, press, worded } from "./dom.js";
import { unwire } from "./messages.js";
import { Tabs } from "./open_tabs.js";
import { ServerAway } from "./server_away.js";
import { ticket, visitor } from "./visitor.js";

export { ticket };

/** @import { AnatomyConfig, CompareConfig, LabConfig, LearnConfig, TeachConfig, TTTConfig, KeptFile, Lang } from "./contract.js" */
/** @import { Functions, Parts } from "./page_globals.js" */

/**
 * A page, as its head sees it.
 * @template Message
 * @typedef {{
 *   frame: { heard(message: object): void }, n: number,
 *   recolour(): void, speak(): void, say(text: string, bad?: boolean): void, receive(message: Message): void,
 * }} OfPage
 */

const APART = ["visit", "check"]; // what is begun beside what the page is for, by the key that it has

/**
 * The language asked for by the address, or by one that this tab came from, chosen last time, or preferred by the browser; all
 * pages agree.
 * @param {Record<string, string>} languages
 * @returns {Lang}
 */
function pickLanguage(languages) {
  const asked = new URLSearchParams(location.search).get(QUERIES.lang);
  let remembered = null;
  try {
    if (asked && asked in languages) sessionStorage.setItem(STORED.lang, asked); // who goes on from here goes on in it
    remembered = sessionStorage.getItem(STORED.lang) ?? localStorage.getItem(STORED.lang);
  } catch {
    /* not remembered */
  }
  const found = /** @type {Lang | undefined} */ ([asked, remembered].find((lang) => lang in languages));
  return found ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
}


/** Hand the visitor a file. @param {KeptFile} file */
export function save({ name: called, data }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const link = el("a");
  link.href = URL.createObjectURL(new Blob([bytes]));
  link.download = called;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * The page's head, its words, and how it talks with the server.
 * @template {AnatomyConfig | CompareConfig | LabConfig | LearnConfig | TeachConfig | TTTConfig} Config
 * @template {Record<string, { asked: object, answer: object }>} Questions
 * @template {object} Begin
 */
export class Frame {
  /**
   * @param {Parts<Begin>} parts
   * @param {Config} config
   * @param {OfPage<any>} page draws: see compare/main.js and lab/main.js
   * @param {import("../widgets/glossary.js").Glossary} glossary
   */
  constructor({ root, server, begin }, config, page, glossary) {
    this.root = root;
    /** @type {Functions} */
    this.server = server;
    this.tell = begin;
    /** @type {Map<string, { asked: any, shown: boolean }>} what was begun last, of each kind, and is not over; whether anything came of it */
    this.begun = new Map();
    this.config = { ...config, texts: Object.fromEntries(Object.entries(config.texts).map(([lang, texts]) => [lang, worded(texts)])) };
    this.page = page;
    this.glossary = glossary;
    this.lang = pickLanguage(config.languages);
    this.title = el("h1");
    this.title.append(this.link("explore", "LoopViz"));
    this.tagline = el("p");
    this.nav = el("nav", "lv-nav", ...Object.keys(config.pages).map((to) => this.link(to)));
    this.tabs = new Tabs(); // a page that runs with a line of its own is told that this one is here
    this.tongues = Object.entries(config.languages).map(([lang, label]) => {
      const button = press("lv-tongue", () => this.speak(/** @type {Lang} */ (lang)), label);
      button.dataset.lang = lang;
      button.lang = lang;
      return button;
    });
    this.dark = press("lv-look-button", () => this.turn(), "◐");
    const tools = el("div", "lv-tools", this.glossary.button, el("div", "lv-tongues", ...this.tongues), this.dark);
    this.head = el("header", "lv-top", el("div", "lv-name", this.title, this.nav), this.tagline, tools);
    this.away = new ServerAway((key) => this.text(key), { away: () => this.cut(), back: () => this.goOn(), changed: () => this.old() });
    new MutationObserver(() => page.recolour()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  /** @returns {Record<string, string>} */
  get texts() {
    return this.config.texts[this.lang];
  }

  /**
   * One of our texts, its places filled.
   * @param {string} key
   * @param {Record<string, any>} values
   */
  text(key, values = {}) {
    return fill(this.texts[key] ?? key, values);
  }

  get theme() {
    return document.body.classList.contains("dark") ? "dark" : "light";
  }

  /** @param {string} to */
  link(to, label = "") {
    const link = el("a", "lv-way", label);
    link.href = this.config.pages[to];
    link.dataset.page = to;
    if (to === this.config.page) link.setAttribute("aria-current", "page");
    return link;
  }

  turn() {
    const dark = document.body.classList.toggle("dark");
    kept.set(STORED.dark, dark ? 1 : 0);
  }

  /** @param {Lang} lang */
  speak(lang) {
    this.lang = lang;
    try {
      for (const where of [sessionStorage, localStorage]) where.setItem(STORED.lang, lang);
    } catch {
      /* it will be asked again */
    }
    this.label();
    this.page.speak();
  }

  // --- what is begun ---------------------------------------------------------------------------------------------

  /** Ask the server for something that takes a while; what comes of it are messages. @param {Begin} asked */
  begin(asked) {
    this.begun.set(APART.find((key) => key in asked) ?? "", { asked, shown: false });
    if (this.away.state === "changed") {
      setTimeout(() => this.old()); // once the page has shown that it begins
      return;
    }
    this.tell({ ...asked, visitor: visitor() });
    if (this.away.state === "away") setTimeout(() => this.cut()); // likewise: it waits for the server, and not for a place
  }

  /** A message has come of what was begun. @param {any} message */
  heard({ ticket: of, kind, over, end }) {
    for (const [key, one] of this.begun) {
      if (!of || one.asked.ticket !== of) continue;
      one.shown ||= kind !== "status";
      if (over || end) this.begun.delete(key);
    }
  }

  /** The server went away: what was being made is over as it is, and what has not begun yet waits for it. */
  cut() {
    for (const [key, { asked, shown }] of this.begun) {
      if (!asked.ticket) continue;
      const text = this.text(shown ? "page.server.cut" : "page.server.waits");
      if (shown) this.begun.delete(key);
      this.page.receive({ kind: "status", ticket: asked.ticket, text, bad: shown, over: shown });
    }
  }

  /** ... and is back: that is begun, and all else is as it was. */
  goOn() {
    for (const { asked } of this.begun.values()) this.begin(asked.ticket ? { ...asked, n: (this.page.n += 1) } : asked);
  }

  /** ... or another version is back, which knows nothing of this page: what waits for it never begins. */
  old() {
    for (const { asked } of this.begun.values()) {
      if (asked.ticket) this.page.receive({ kind: "status", ticket: asked.ticket, text: this.text("page.server.old"), bad: true, over: true });
    }
    this.begun.clear();
  }

  /** The head's words. */
  label() {
    document.documentElement.lang = this.lang;
    document.title = `LoopViz · ${this.text(`nav.${this.config.page}`)}`;
    this.tagline.textContent = this.text(`${this.config.page}.tagline`);
    this.nav.setAttribute("aria-label", this.text("nav.label"));
    for (const link of /** @type {Iterable<HTMLAnchorElement>} */ (this.nav.children)) link.textContent = this.text(`nav.${link.dataset.page}`);
    for (const button of this.tongues) button.setAttribute("aria-pressed", String(button.dataset.lang === this.lang));
    name(this.dark, this.text("page.dark"));
    this.glossary.configure({ texts: this.texts, lang: this.lang });
    this.away.show();
  }

  /**
   * Ask the server; null when no answer came.
   * @template {string & keyof Questions} Q
   * @param {Q} about
   * @param {Questions[Q]["asked"]} question
   * @returns {Promise<Exclude<Questions[Q]["answer"], { kind: "failed" }> | null>}
   */
  async ask(about, question) {
    try {
      const answer = JSON.parse(await this.server[about](JSON.stringify(question)));
      if (answer.kind !== "failed") return answer;
      this.page.say(answer.text, true); // nobody foresaw it: the words name where the log has it
      return null;
    } catch {
      return null;
    }
  }
}

/**
 * Start a page of ours in the element Gradio made for it; messages go to `page.receive`.
 * @template {Parts<any>} P
 * @template {OfPage<any>} Page
 * @param {P} parts
 * @param {new (parts: P, config: any) => Page} Page
 */
export function start(parts, Page) {
  const { root, props, watch } = parts;
  const page = new Page(parts, unwire(String(props.value)));
  root.page = page;
  watch("value", () => {
    if (typeof props.value !== "string" || !props.value) return;
    let message;
    try {
      message = unwire(props.value);
    } catch (error) {
      console.error("unreadable message", error);
      return;
    }
    if (message.kind === "config") return;
    page.frame.heard(message);
    page.receive(message);
  });
  return page;
}
