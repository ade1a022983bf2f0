// One slider over the inner rule: linear attention, DeltaNet, Gated DeltaNet, TTT-Linear on the run's own keys and values.

import { el, press } from "../core/dom.js";

/** @import { InnerRule } from "../core/contract.js" */

export class RuleSlider {
  /** @type {InnerRule[]} in their order */
  rules = [];
  /** @type {object} the newest wish */
  wish = {};

  /**
   * @param {import("./main.js").Page} page
   * @param {import("./picture.js").Picture} picture
   */
  constructor(page, picture) {
    this.page = page;
    this.picture = picture;
    this.ask = press("lv-quiet", () => this.read());
    this.hint = el("span", "lv-question");
    this.slider = el("input", "lv-ttt-slider");
    Object.assign(this.slider, { type: "range", min: "0", max: "3", step: "1", value: "3" });
    this.slider.addEventListener("input", () => this.draw());
    this.title = el("span", "lv-field-title");
    this.value = el("span", "lv-ttt-value");
    this.what = el("p", "lv-question lv-ttt-what");
    this.what.setAttribute("role", "status");
    const head = el("span", "lv-ttt-rate-head", this.title, this.value);
    const field = el("label", "lv-field lv-ttt-rule", head, this.slider);
    picture.plot.said.before(field, this.what);
    this.node = el("div", "lv-ttt-lose", this.ask, this.hint);
  }

  label() {
    this.ask.textContent = this.page.text("ttt.rules");
    this.hint.textContent = this.page.text("ttt.rules.hint");
    this.title.textContent = this.page.text("ttt.rule");
  }

  /** How it stands. */
  show() {
    const { page } = this;
    this.node.hidden = !page.run || !page.words.length;
    this.ask.disabled = page.running || page.gone;
  }

  /** Nothing is shown of a run that has gone. */
  hide() {
    [this.rules, this.wish] = [[], {}];
    this.picture.node.hidden = true;
  }

  /** The rules, of where one looks now. */
  async read() {
    const { page } = this;
    if (!page.run) return;
    const wish = (this.wish = {});
    const asked = this.rules.length > 0; // it is there, and follows where one looks
    const answer = await page.frame.ask("rules", { run: page.run.run, ...page.where, lang: page.frame.lang, ...page.files.visitor });
    if (wish !== this.wish) return;
    if (answer?.kind === "rules") {
      this.rules = answer.rules;
      this.draw();
      if (!asked) this.picture.node.scrollIntoView({ block: "nearest" });
    } else if (answer?.kind === "no") page.say(answer.text, true);
    else if (answer?.kind === "gone") page.lost();
    else page.say(page.text("ttt.lost"), true);
  }

  /** What is shown is of elsewhere. */
  again() {
    if (this.rules.length && !this.page.running) this.read();
  }

  draw() {
    const rule = this.rules[Number(this.slider.value)];
    if (!rule) return;
    this.value.textContent = rule.called;
    this.slider.setAttribute("aria-valuetext", rule.called);
    this.what.textContent = rule.what;
    this.picture.node.dataset.rule = rule.name;
    this.picture.take(structuredClone(rule.figure), rule.summary);
  }
}
