// Run and Stop: whether something runs can be seen beside them, wherever the text is.

import { el, fill } from "./dom.js";

export class Buttons {
  constructor(page) {
    this.page = page;
    this.line = el("p", "lv-state");
    this.line.setAttribute("aria-hidden", "true"); // the text's own line says it to screen readers
    this.shown = "";
  }

  /** Gradio has built the buttons. */
  follow() {
    [this.run, this.stop] = ["#lv-run", "#lv-stop"].map((id) => document.querySelector(id));
    document.querySelector("#lv-buttons")?.append(this.line);
    this.shown = "";
    this.page.mark();
  }

  /** `state`: idle, starting or running. */
  show(state) {
    const { page, run, stop, line } = this;
    if (!run || !stop || !page.texts) return;
    const words = page.generated();
    const now = `${state} ${words} ${page.said}`;
    if (now === this.shown) return;
    this.shown = now;
    run.dataset.state = state;
    run.setAttribute("aria-busy", String(state !== "idle"));
    stop.disabled = state === "idle";
    const said = { idle: "", starting: page.said, running: fill(page.texts["live.state.running"], { n: words }) };
    line.textContent = line.title = said[state];
    line.dataset.state = state;
  }
}
