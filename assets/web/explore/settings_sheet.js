// On a narrow window the settings are a sheet over the page, a press away from everywhere, and whoever starts a run is
// taken to the text that it writes.

import { CLASSES, ELEMENTS } from "../core/contract.js";
import { el, name, press } from "../core/dom.js";

export const NARROW = "(max-width: 980px)"; // as in styles/explore.css
const REFUSED_LOOKS = 30; // animation frames until Gradio has drawn a refusal and opened its group
const STARTS = `#${ELEMENTS.run}, .${CLASSES.example}, .${CLASSES.preset}`;

export class Narrow {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;
  /** @type {HTMLElement | undefined} the sheet's heading, once the sheet is there */
  title = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.media = window.matchMedia(NARROW);
    this.open = press("lv-sheet-open", () => this.show(!this.shown));
    this.open.setAttribute("aria-expanded", "false");
    this.open.setAttribute("aria-controls", ELEMENTS.settings);
    this.close = press("lv-icon lv-sheet-close", () => this.show(false), "×");
    document.addEventListener("click", (event) => {
      const at = event.target instanceof Element ? event.target : null;
      if (at?.closest(STARTS)) this.meet();
      else if (this.shown && !at?.closest(`#${ELEMENTS.settings}, #${ELEMENTS.buttons}, .options, dialog`)) this.show(false);
    });
    document.addEventListener("keydown", (event) => this.pressed(event));
    this.media.addEventListener("change", () => this.show(false));
  }

  get shown() {
    return document.body.classList.contains("lv-sheet");
  }

  /** Gradio's part of the page is there. */
  connect() {
    document.getElementById(ELEMENTS.buttons)?.append(this.open);
    document.getElementById(ELEMENTS.settings)?.prepend(el("div", "lv-sheet-head", this.title ??= el("h2", "lv-sheet-title"), this.close));
    this.label();
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.label();
  }

  label() {
    if (!this.texts || !this.title) return;
    this.open.textContent = this.title.textContent = this.texts["live.settings"];
    name(this.close, this.texts["live.settings.close"]);
  }

  /** @param {boolean} on */
  show(on) {
    if (on === this.shown || (on && !this.media.matches)) return;
    document.body.classList.toggle("lv-sheet", on);
    this.open.setAttribute("aria-expanded", String(on));
    (on ? this.close : this.open).focus({ preventScroll: true });
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.key === "Enter" && event.target instanceof Element && event.target.matches(`#${ELEMENTS.prompt} textarea`) && !event.isComposing) this.meet();
    if (event.key !== "Escape" || !this.shown) return;
    this.show(false);
    event.stopPropagation();
  }

  /** The run was refused: bring the control that says why into view; it may be in the sheet, or its group is opening. */
  showRefused(looks = REFUSED_LOOKS) {
    if (!looks) return;
    requestAnimationFrame(() => {
      const refused = document.querySelector(`#${ELEMENTS.page} .${CLASSES.refused}`);
      if (refused && !refused.checkVisibility()) this.show(true);
      if (!refused?.checkVisibility()) return this.showRefused(looks - 1);
      const [box, frame] = [refused, refused.closest(`#${ELEMENTS.settings}`) ?? document.documentElement].map((node) => node.getBoundingClientRect());
      const seen = box.top >= Math.max(0, frame.top) && box.bottom <= Math.min(innerHeight, frame.bottom);
      if (!seen) refused.scrollIntoView({ block: "center" });
    });
  }

  /** Bring the text, and what is said of its run, into view. */
  meet() {
    if (!this.media.matches) return;
    if (this.shown) this.show(false);
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.page.root.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }
}
