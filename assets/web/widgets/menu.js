// Two small things of ours: a button that opens a list of actions, and a notice beside it for what came of them.

import { el, press } from "../core/dom.js";

/** A button and the actions it opens; words are put in place by `label`. */
export class Menu {
  /** @type {(() => void) | undefined} told before it opens */
  opening = undefined;
  /** @type {Map<string, HTMLButtonElement>} by key */
  items = new Map();

  /**
   * @param {string} cls
   * @param {{ key: string, act: () => void }[]} actions
   * @param {boolean} end whether it opens to the left
   */
  constructor(cls, actions, end = false) {
    this.end = end;
    this.button = press(`${cls} lv-menu-button`, () => this.show(Boolean(this.list.hidden)));
    this.button.setAttribute("aria-expanded", "false");
    this.list = el("div", "lv-menu-list");
    this.list.hidden = true;
    for (const { key, act } of actions) {
      const item = press("lv-menu-item", () => {
        this.show(false);
        this.button.focus({ preventScroll: true });
        act();
      });
      item.dataset.do = key;
      this.items.set(key, item);
      this.list.append(item);
    }
    this.node = el("div", "lv-menu", this.button, this.list);
    this.node.addEventListener("keydown", (event) => this.pressed(event));
    this.node.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !this.node.contains(/** @type {Node} */ (event.relatedTarget))) this.show(false);
    });
    document.addEventListener("pointerdown", (event) => {
      if (!this.list.hidden && !this.node.contains(/** @type {Node} */ (event.target))) this.show(false);
    });
  }

  /**
   * The words of an action, a line about it, and why it cannot be had now (or null).
   * @param {string} key
   * @param {string} text
   * @param {string} hint
   * @param {string | null} off
   */
  label(key, text, hint, off = null) {
    const item = this.items.get(key);
    item.replaceChildren(text, el("small", "", off ?? hint));
    item.disabled = off !== null;
  }

  /** @param {boolean} open */
  show(open) {
    if (open === !this.list.hidden) return;
    if (open) this.opening?.();
    this.list.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (!open) return;
    // under the button, as far as the window is wide
    const [at, width] = [this.node.getBoundingClientRect(), this.list.offsetWidth];
    const left = Math.min(this.end ? at.right - width : at.left, document.documentElement.clientWidth - width - 6);
    this.list.style.left = `${Math.max(left, 6) - at.left}px`;
  }

  /** Arrows move through the list, Escape closes it: none of them reaches the page's own keys. @param {KeyboardEvent} event */
  pressed(event) {
    if (this.list.hidden) return;
    const offered = [...this.items.values()].filter((item) => !item.disabled);
    const at = offered.findIndex((item) => item === document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? -1 : at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape") {
      this.show(false);
      this.button.focus({ preventScroll: true });
    } else if (to !== undefined && offered.length) offered.at(to % offered.length).focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** What came of an action, beside where it was asked for; it stays until it is closed or something else is said. */
export class Notice {
  /** @type {number | undefined} until it goes */
  timer = undefined;

  constructor() {
    this.words = el("div", "lv-notice-words");
    this.words.setAttribute("role", "status");
    this.close = press("lv-icon", () => this.clear(), "×");
    this.node = el("div", "lv-notice", this.words, this.close);
    this.node.hidden = true;
  }

  /** Lines of text or elements. @param {(string | Node)[]} lines */
  say(lines, bad = false) {
    clearTimeout(this.timer);
    this.node.hidden = false;
    this.node.classList.toggle("lv-notice-bad", bad);
    this.words.replaceChildren(...lines.map((line) => (typeof line === "string" ? el("p", "", line) : line)));
  }

  /** As `say`, for something that went as it should: it goes by itself. @param {string} line */
  pass(line) {
    this.say([line]);
    this.timer = setTimeout(() => this.clear(), 6000);
  }

  clear() {
    this.node.hidden = true;
    this.words.replaceChildren();
  }
}
