// What a run is asked for with, and what changes it while it is made: the learning rate's factor, Forget.

import { el, press } from "../core/dom.js";
import { Field } from "../widgets/form.js";
import { followPrompt } from "../widgets/prompt_keys.js";

const PACE = 1; // the place of the one that is chosen at first

export class RunForm {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    const { config } = page.frame;
    this.intro = el("p", "lv-ttt-intro");
    this.prompt = new Field({ name: "prompt", kind: "long" }, () => {});
    this.prompt.value = config.prompts[0];
    this.examples = el("div", "lv-ttt-examples");
    this.model = new Field({ name: "model", kind: "name" }, () => page.follow());
    this.model.value = config.called;
    this.modelLine = el("span", "lv-model");
    this.modelLine.setAttribute("role", "status");
    this.model.node.append(this.modelLine);
    this.fresh = new Field({ name: "max_new_tokens", kind: "whole", low: 1, high: config.most_new }, () => {});
    this.fresh.value = 96;
    const paces = config.paces.map(String); // words a second
    this.pace = new Field({ name: "pace", kind: "choice", choices: paces }, () => {});
    this.pace.value = paces[PACE];
    this.go = press("lv-go", () => page.begin());
    this.halt = press("lv-halt", () => page.stop());
    this.forget = press("lv-halt", () => page.steer({ forget: true }));
    this.slider = el("input", "lv-ttt-slider");
    Object.assign(this.slider, { type: "range", min: "0", max: String(config.most_scale), step: "0.05", value: "1" });
    this.slider.addEventListener("input", () => this.label());
    this.slider.addEventListener("change", () => page.steer({ forget: false }));
    this.rate = el("span", "lv-field-title");
    this.value = el("span", "lv-ttt-value");
    this.rateInfo = el("span", "lv-field-info");
    const rate = el("label", "lv-field lv-ttt-rate", el("span", "lv-ttt-rate-head", this.rate, this.value), this.slider, this.rateInfo);
    rate.dataset.field = "scale";
    const fields = el("div", "lv-form", this.model.node, this.fresh.node, this.pace.node, rate);
    const buttons = el("div", "lv-buttons-row", this.go, this.halt, this.forget);
    this.line = el("p", "lv-status");
    this.line.setAttribute("role", "status");
    this.node = el("section", "lv-card lv-asking", this.intro, this.prompt.node, this.examples, fields, buttons, this.line);
    followPrompt(".lv-asking", () => page.begin());
  }

  get scale() {
    return Number(this.slider.value);
  }

  label() {
    const { page } = this;
    const { config } = page.frame;
    this.intro.textContent = page.text("ttt.intro");
    this.prompt.label(page.text("ttt.prompt"));
    this.model.label(page.text("ttt.model"));
    this.model.show({ info: page.text("ttt.model.info", { called: config.called }) });
    this.fresh.label(page.text("ttt.new"));
    this.fresh.show({ info: page.text("ttt.new.info", { most: config.most_new }) });
    this.pace.label(page.text("ttt.pace"), (choice) => page.text(choice === "0" ? "ttt.pace.free" : "ttt.pace.words", { n: choice }));
    this.pace.show({ info: page.text("ttt.pace.info") });
    this.rate.textContent = page.text("ttt.scale");
    this.value.textContent = page.text("ttt.scale.value", { scale: this.scale });
    this.slider.setAttribute("aria-valuetext", this.value.textContent);
    this.rateInfo.textContent = page.text("ttt.scale.info");
    this.go.textContent = page.text("ttt.run");
    this.halt.textContent = page.text("ttt.stop");
    this.halt.title = page.text("ttt.stop.hint");
    this.forget.textContent = page.text("ttt.forget");
    this.forget.title = page.text("ttt.forget.hint");
    const tries = config.prompts.map((prompt) => press("lv-quiet", () => (this.prompt.value = prompt), prompt));
    this.examples.replaceChildren(el("span", "lv-question", page.text("ttt.examples")), ...tries);
  }

  /** How it stands: what is pressed now. */
  show() {
    const { page } = this;
    this.halt.disabled = !page.running;
    this.forget.disabled = !page.running;
  }

  /**
   * A refusal beside its field; none beside any.
   * @param {string} [field]
   * @param {string} [reason]
   */
  refuse(field, reason = "") {
    this.label();
    for (const one of [this.prompt, this.model, this.fresh, this.pace]) {
      const bad = one.control.name === field;
      if (bad) one.show({ info: reason, bad });
      else one.node.classList.remove("lv-field-bad");
    }
    if (field === "scale") this.rateInfo.textContent = reason;
  }
}
