// Keys for what the mouse does: they are left alone while somebody types or uses a control.

import { el, press, textOr } from "../core/dom.js";

const TYPING = "input, textarea, select, [contenteditable], dialog";
const PRESSING = "button, summary, a, [role=button], [role=tab]"; // space and enter belong to these

/** @type {[string[], string][]} keys, or texts that name them; what they do */
const KEYS = [
  [["live.key.space"], "live.key.play"],
  [["←", "→"], "live.key.token"],
  [["↑", "↓"], "live.key.step"],
  [["P"], "live.key.pin"],
  [["Esc"], "live.key.follow"],
  [["F"], "live.key.present"],
  [["?"], "live.key.help"],
  [["Shift + Enter"], "live.key.run"],
];

export class Keys {
  /** @type {Record<string, string> | undefined} */
  texts = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.open = press("lv-icon lv-keys-open", () => this.help(), "?");
    this.dialog = el("dialog", "lv-keys");
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.open.title = texts["live.keys"];
    this.open.setAttribute("aria-label", texts["live.keys"]);
    this.dialog.setAttribute("aria-label", texts["live.keys"]);
    const rows = KEYS.map(([keys, what]) => [
      el("dt", "", ...keys.map((key) => el("kbd", "", textOr(texts, key, key)))),
      el("dd", "", texts[what]),
    ]);
    const close = press("lv-quiet", () => this.dialog.close(), texts["live.close"]);
    this.dialog.replaceChildren(el("h2", "", texts["live.keys"]), el("dl", "", ...rows.flat()), close);
  }

  help() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !this.page.config) return;
    const at = event.target instanceof Element ? event.target : document.body;
    if (at.closest(TYPING)) return;
    const inside = this.page.root.contains(at);
    if (this.act(event.key, Boolean(at.closest(PRESSING)), inside)) event.preventDefault();
  }

  /**
   * Do what the key says; whether it said anything.
   * @param {string} key
   * @param {boolean} onButton
   * @param {boolean} inside the live part
   */
  act(key, onButton, inside) {
    const { page } = this;
    const way = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1 }[key];
    if (key === "?") this.help();
    else if (!page.tokens.length) return false;
    else if (key === " ") {
      if (onButton || !page.player.can) return false;
      page.player.toggle();
    } else if (key === "ArrowLeft" || key === "ArrowRight") page.stepToken(way);
    else if (way) {
      if (!inside && page.focus.token === null) return false; // there the page scrolls
      page.stepLoop(way);
    } else if (key === "Escape") page.look({ token: null, step: null });
    else if (key === "p" || key === "P") page.pin();
    else return false;
    return true;
  }
}
