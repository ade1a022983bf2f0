// Run and Stop: whether something runs can be seen beside them, wherever the text is.

import { ELEMENTS } from "../core/contract.js";
import { el, fill } from "../core/dom.js";

export class Buttons {
  /** @type {HTMLButtonElement | null} */
  run = null;
  /** @type {HTMLButtonElement | null} */
  stop = null;
  /** @type {string} all that they show */
  shown = "";

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.line = el("p", "lv-state");
    this.line.setAttribute("aria-hidden", "true"); // the text's own line says it to screen readers
    document.addEventListener("click", ({ target }) => {
      if (!(target instanceof Element)) return;
      if (target.closest(`#${ELEMENTS.run}`)) page.start();
      else if (target.closest(`#${ELEMENTS.stop}`)) page.halt();
    });
  }

  /** The buttons as they stand now; whether they are there. Gradio may build one later than its row, or anew. */
  found() {
    if (this.run?.isConnected && this.stop?.isConnected && this.line.isConnected) return true;
    [this.run, this.stop] = [ELEMENTS.run, ELEMENTS.stop].map((id) => /** @type {HTMLButtonElement | null} */ (document.getElementById(id)));
    document.getElementById(ELEMENTS.buttons)?.append(this.line);
    this.shown = "";
    return Boolean(this.run && this.stop);
  }

  /** @param {string} state idle, starting, running or stopping */
  show(state) {
    const { page, line } = this;
    if (!page.texts || !this.found()) return;
    const { run, stop } = this;
    const words = page.generated();
    const now = `${state} ${words} ${page.said}`;
    if (now === this.shown) return;
    this.shown = now;
    run.dataset.state = state;
    run.setAttribute("aria-busy", String(state !== "idle"));
    stop.disabled = state === "idle" || state === "stopping";
    /** @type {Record<string, string>} */
    const said = { idle: "", starting: page.said, running: fill(page.texts["live.state.running"], { n: words }), stopping: page.texts["live.state.stopping"] };
    line.textContent = line.title = said[state];
    if (state === "idle" && page.full) line.textContent = line.title = page.said; // it did not even begin to wait
    line.dataset.state = state;
  }
}
