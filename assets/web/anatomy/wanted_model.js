// The model of a run: a file may name one that is not here, which is asked about first, or that goes by another name here.

import { el, press } from "../core/dom.js";

export class Wants {
  /** @type {boolean} whether the visitor agreed to the model that a file names */
  agreed = false;

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.said = el("p");
    this.load = press("lv-quiet", () => this.agree());
    this.title = el("span", "lv-field-title");
    this.hint = el("span", "lv-field-info");
    this.input = Object.assign(el("input", "lv-input"), { type: "text", maxLength: 400, autocomplete: "off", spellcheck: false });
    this.use = press("lv-quiet", () => this.named());
    this.input.addEventListener("keydown", (event) => event.key === "Enter" && this.named());
    this.ask = el("div", "lv-wanted-ask", this.said, this.load);
    this.other = el("div", "lv-wanted-other", el("label", "lv-field", this.title, this.input, this.hint), this.use);
    this.node = el("div", "lv-wanted", this.ask, this.other);
    this.hide();
  }

  label() {
    const { page } = this;
    const model = page.run?.model ?? "";
    this.said.textContent = page.text("anatomy.ask_model", { model });
    this.load.textContent = page.text("anatomy.load");
    this.title.textContent = page.text("anatomy.model");
    this.hint.textContent = page.text("anatomy.model.hint", { model });
    this.use.textContent = page.text("anatomy.model.use");
  }

  hide() {
    this.node.hidden = this.ask.hidden = this.other.hidden = true;
  }

  /** Read the first word, unless a file names a model that nobody has agreed to. */
  async first() {
    const { page } = this;
    const { model, linked } = page.run;
    if (!linked) return page.begin();
    const answer = await page.frame.ask("model", { model, lang: page.frame.lang, linked: true, look: true });
    if (answer?.kind === "model" && answer.state === "ready") return page.begin();
    if (answer?.kind === "model" && answer.state === "failed") {
      page.say(answer.text, true);
      return this.name();
    }
    page.say("");
    this.node.hidden = this.ask.hidden = false;
    this.other.hidden = true;
    return undefined;
  }

  agree() {
    this.agreed = true;
    this.hide();
    this.page.begin();
  }

  /** Ask by which name the model is had here. */
  name() {
    this.node.hidden = this.other.hidden = false;
    this.ask.hidden = true;
    this.input.value ||= this.page.run?.model ?? "";
  }

  named() {
    const value = this.input.value.trim();
    if (!value) return;
    this.page.named = value;
    this.page.begin();
  }
}
