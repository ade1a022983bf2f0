// Is llama.py a Llama? A check against transformers on the run's model or on the article's configuration: what it takes is said before.

import { el, press } from "../core/dom.js";
import { written } from "./numbers.js";
import { Silence } from "./silence.js";

/** @import { AnatomyParity, AnatomyToken, MeasureStatus } from "../core/contract.js" */
/** @typedef {"model" | "article"} Which */

const WHICH = /** @type {const} */ (["model", "article"]);
const COLUMNS = ["dtype", "attention", "delta", "loss", "logits", "why"];

export class Parity {
  /** @type {string | null} of the check that was begun, unguessable */
  ticket = null;
  /** @type {AnatomyParity | null} what came of the latest */
  told = null;
  /** @type {boolean} whether it can be seen */
  onScreen = false;
  /** @type {boolean} whether what a check takes is to be asked for then */
  due = false;

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.silence = new Silence(page, this);
    this.title = el("h2");
    this.about = el("p", "lv-question");
    this.buttons = WHICH.map((which) => ({ which, go: press("lv-quiet", () => this.begin(which)), said: el("span", "lv-question") }));
    this.halt = press("lv-quiet", () => this.stop());
    this.line = el("p", "lv-status");
    this.line.setAttribute("role", "status");
    this.table = el("div", "lv-table");
    this.table.tabIndex = 0;
    this.table.setAttribute("role", "group");
    const rows = this.buttons.map(({ go, said }) => el("div", "lv-parity-way", go, said));
    this.node = el("section", "lv-card lv-parity", this.title, this.about, ...rows, this.line, this.halt, this.table);
    this.halt.hidden = this.table.hidden = true;
    // what a check takes is measured, so it is asked for once somebody may read it
    new IntersectionObserver((entries) => {
      this.onScreen = entries.some((entry) => entry.isIntersecting);
      if (this.onScreen && this.due) this.need();
    }).observe(this.node);
  }

  /** @returns {string} the model that reads the run */
  get model() {
    return this.page.named || this.page.run?.model || this.page.frame.config.models[0];
  }

  get running() {
    return this.ticket !== null;
  }

  label() {
    const { page } = this;
    this.title.textContent = page.text("anatomy.check");
    this.about.textContent = page.text("anatomy.check.about");
    this.halt.textContent = page.text("anatomy.check.stop");
    this.table.setAttribute("aria-label", page.text("anatomy.check"));
    for (const { which, go } of this.buttons) go.textContent = page.text(`anatomy.check.${which}`, { model: this.model });
    this.show();
  }

  /** What each takes, asked of the server; off screen, later. */
  async need() {
    const { frame, look } = this.page;
    this.due = !this.onScreen || !look;
    if (this.due) return;
    for (const { which, go, said } of this.buttons) {
      const { lang } = frame;
      const answer = await frame.ask("need", { article: which === "article", model: this.model, lang });
      if (lang !== frame.lang) return; // another was chosen meanwhile, and asked in
      if (answer?.kind !== "need") continue;
      said.textContent = answer.text;
      said.classList.toggle("lv-bad", answer.refused);
      go.disabled = answer.refused || (this.running && !this.silence.long);
    }
  }

  /** @param {Which} which */
  begin(which) {
    if (!this.page.run) return; // what is checked is not known yet
    this.told = null;
    this.ticket = this.page.start({ check: which, model: this.model });
    this.silence.hear();
    this.say(this.page.text("anatomy.waiting"));
    this.show();
  }

  stop() {
    this.page.frame.ask("stop", { ticket: this.ticket });
    this.say(this.page.text("anatomy.check.stopping"));
  }

  /** Whether a message is about a check. @param {AnatomyParity | AnatomyToken | MeasureStatus} message */
  receive(message) {
    if (!this.running || message.ticket !== this.ticket) return false;
    if (this.silence.long) this.say(this.page.text("anatomy.check.running"));
    this.silence.hear();
    if (message.kind === "parity") {
      this.told = message;
      if (message.end) this.over(message.end === "done" ? "" : this.page.text("anatomy.check.ended"));
    } else if (message.kind === "status") {
      this.say(message.text, message.bad);
      if (message.over) this.over(message.text, message.bad);
    }
    this.show();
    return true;
  }

  /**
   * Nothing was heard of it for a while: it may take its time, and can be begun once more.
   * @param {string} _ of the run nothing is checked but its model
   * @param {boolean} again
   */
  quiet(_, again) {
    if (again) return;
    this.say(`${this.line.textContent} ${this.page.text("anatomy.check.silent")}`);
    for (const { go } of this.buttons) go.disabled = false;
    this.need(); // what is refused is shut again
  }

  /** It does not come any more. @param {string} words */
  lost(words) {
    this.over(words, true);
    this.show();
  }

  /** @param {string} text */
  over(text, bad = false) {
    this.ticket = null;
    this.say(text, bad);
    for (const { go } of this.buttons) go.disabled = false;
    this.need(); // what is refused is shut again
  }

  /** @param {string} text */
  say(text, bad = false) {
    this.line.textContent = text;
    this.line.classList.toggle("lv-bad", bad);
  }

  show() {
    const { page, told, running } = this;
    this.halt.hidden = !running;
    for (const { go } of this.buttons) if (running && !this.silence.long) go.disabled = true;
    this.node.dataset.state = running ? "running" : "idle";
    this.table.hidden = !told?.rows.length;
    if (!told?.rows.length) return;
    const head = el("tr", "", ...COLUMNS.map((name) => el("th", "", page.text(`anatomy.check.${name}`))));
    const rows = told.rows.map((row) => {
      const why = page.text(`anatomy.cause.${row.cause}`, { bound: written(row.bound, 2), own: written(row.own, 2) });
      const numbers = [written(row.max_delta_logit, 2), written(row.delta_loss, 2), row.logits.toLocaleString("en")];
      const line = el("tr", "", el("th", "", row.dtype), el("td", "", row.attention), ...numbers.map((said) => el("td", "lv-number", said)), el("td", "lv-parity-why", why));
      line.classList.toggle("lv-bad", !row.agrees);
      return line;
    });
    this.table.replaceChildren(el("table", "", el("thead", "", head), el("tbody", "", ...rows)));
  }
}
