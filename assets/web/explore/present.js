// For a projector: the text, the ring and the strip large, one panel, and nothing else. The keys are those of a presenter:
// the next word, the next loop, a dark screen. The run, what is looked at and every number are the page's own.

import { el, name, press } from "../core/dom.js";

const CLASS = "lv-presenting"; // of the document while it is on
const ROOT = "lv-large"; // and of the page's own part
const LEAST = 80; // pixels of a plot
const UNDER = 8; // pixels below it

/** @typedef {import("./page.js").Page} Page */

export class Present {
  /** @type {boolean} */
  on = false;
  /** @type {string | null} the panel that is shown */
  panel = null;
  /** @type {Record<string, string> | undefined} */
  texts = undefined;

  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.open = press("lv-icon lv-present-open", () => this.enter());
    this.hint = el("p", "lv-present-hint");
    this.quit = press("lv-icon lv-present-quit", () => this.leave(), "×");
    this.dark = el("div", "lv-present-dark");
    this.dark.hidden = true;
    this.dark.addEventListener("click", () => this.blank(false));
    this.node = el("div", "lv-present-foot", this.hint, this.quit);
    // before the page's own keys: here they mean other things
    document.addEventListener("keydown", (event) => this.pressed(event), true);
    document.addEventListener("fullscreenchange", () => {
      if (!document.fullscreenElement) this.leave();
    });
    window.addEventListener("resize", () => this.on && this.refit());
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    name(this.open, texts["live.present"], texts["live.present.hint"]);
    name(this.quit, texts["live.present.leave"]);
    this.hint.textContent = texts["live.present.keys"];
    this.dark.setAttribute("aria-label", texts["live.present.dark"]);
  }

  /** Whether there is something to present. */
  get can() {
    return Boolean(this.page.config && this.page.tokens.length && !this.page.tour.on);
  }

  enter() {
    const { page } = this;
    if (this.on || !this.can) return;
    this.on = true;
    this.before = document.activeElement;
    document.documentElement.classList.add(CLASS);
    page.root.classList.add(ROOT);
    page.root.append(this.node, this.dark);
    // where the browser does not let a page have the whole screen (a frame), the window does
    // left before it came: then it is not wanted any more
    const entered = document.documentElement.requestFullscreen?.();
    entered?.then(() => (this.on ? undefined : document.exitFullscreen())).catch(() => {});
    this.show(page.shelf.on()[0] ?? page.config.panels[0].name);
    page.text.focus({ preventScroll: true }); // no button: Space is the replay's
    document.querySelector(".lv-selected")?.scrollIntoView({ block: "nearest" });
  }

  leave() {
    if (!this.on) return;
    this.on = false;
    this.blank(false);
    document.documentElement.classList.remove(CLASS);
    this.page.root.classList.remove(ROOT);
    this.node.remove();
    this.dark.remove();
    if (document.fullscreenElement) document.exitFullscreen().catch(() => {});
    this.mark(null);
    this.page.shelf.lend([]);
    this.page.redraw(); // the panels of the visitor's own group have no figures
    this.refit();
    if (this.before instanceof HTMLElement) this.before.focus({ preventScroll: true });
  }

  // --- the one panel ---------------------------------------------------------------------------------------------------

  /** @param {string} panel */
  show(panel) {
    this.mark(panel);
    this.page.shelf.lend([panel]);
    this.page.redraw();
    this.refit();
  }

  /** @param {string | null} panel */
  mark(panel) {
    this.panel = panel;
    for (const [known, { node }] of this.page.panels) node.classList.toggle("lv-presented", known === panel);
  }

  /** The next panel that is on in any group. */
  next() {
    const names = this.page.shelf.chosen();
    if (names.length) this.show(names[(names.indexOf(this.panel) + 1) % names.length]);
  }

  /** The height that the shown panel's plot has here; undefined: it is as high as everywhere. @param {import("./panel.js").Panel} panel */
  room(panel) {
    if (!this.on || panel.name !== this.panel) return undefined;
    const above = panel.wrap.getBoundingClientRect().top - this.page.grid.getBoundingClientRect().top;
    return Math.max(LEAST, Math.floor(this.page.grid.clientHeight - above - UNDER));
  }

  /** Plots take the size they have now. */
  refit() {
    for (const panel of this.page.panels.values()) if (panel.figure) panel.touch(panel.seq);
    this.page.screen.wake();
  }

  // --- keys ------------------------------------------------------------------------------------------------------------

  /** @param {boolean} dark */
  blank(dark) {
    this.dark.hidden = !dark;
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const at = event.target instanceof Element ? event.target : document.body;
    if (at.closest("input, textarea, select, [contenteditable], dialog")) return;
    if (!this.on) {
      if (event.key.toLowerCase() !== "f" || event.shiftKey || !this.can) return;
      this.enter();
    } else if (!this.act(event.key)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  /** Do what a key says; whether it says anything here. @param {string} key */
  act(key) {
    const { page } = this;
    if (!this.dark.hidden) {
      this.blank(false); // any key brings it back
      return true;
    }
    if (key === "b" || key === "B" || key === ".") this.blank(true);
    else if (key === "f" || key === "F" || key === "Escape") this.leave();
    else if (key === "ArrowRight" || key === "PageDown") page.stepToken(1);
    else if (key === "ArrowLeft" || key === "PageUp") page.stepToken(-1);
    else if (key === "ArrowDown") page.stepLoop(1);
    else if (key === "ArrowUp") page.stepLoop(-1);
    else if (key === "v" || key === "V") this.next();
    else return false;
    return true;
  }
}
