// A configuration of the Compare page: its name, its settings, and what it wrote.

import { QUERIES } from "../core/contract.js";
import { el, name, press } from "../core/dom.js";
import { drawn } from "../core/svg.js";
import { Field } from "../widgets/form.js";
import { short } from "../widgets/table.js";

const DASH = { solid: "", dash: "6 4", dot: "2 3", dashdot: "6 3 2 3", longdash: "11 4", longdashdot: "11 3 2 3" };

/** @import { CardAsked, CardNews, CheckedCard, CompareConfig, CompareQuestions, Compare as Begin, Values } from "../core/contract.js" */
/** @import { Frame } from "../core/page_head.js" */
/**
 * What a configuration is made of. `sweep`: up to how many loops it is measured, 0: once. `origin`: where its name comes from when the visitor gave none, a key of our texts;
 * `plain`: the model without its loop; `model`: the one it is of, as that comes, "": the page's; `changes`: what was set for it; `held`: what a link holds; `gave`: what gave way to the model;
 * `linked`: whether a link named `model`, and nobody has agreed to it yet.
 * @typedef {{ origin?: string | null, plain?: boolean, changes?: Values, called?: string, sweep?: number, held?: CardAsked["base"], gave?: Record<string, any>, model?: string, linked?: boolean }} Setup
 */

/**
 * The line that stands for a configuration in every plot.
 * @param {CompareConfig} config
 * @param {number} place
 */
export function swatch({ colours, dashes }, place) {
  const line = drawn("line", { x1: 1, x2: 33, y1: 5, y2: 5, stroke: colours[place], "stroke-width": 3, "stroke-dasharray": DASH[dashes[place]] });
  return drawn("svg", { viewBox: "0 0 34 10", class: "lv-swatch-line", "aria-hidden": "true" }, line);
}

export class Card {
  /** @type {Values} every value, as the server has it */
  suited = {};
  /** @type {string | null | undefined} why it is refused */
  refused = null;
  /** @type {Partial<CardNews> | null} all that messages have said of it */
  result = null;
  /** @type {boolean} whether it is to end, and has not ended yet */
  halting = false;
  /** @type {Field<import("../widgets/form.js").Described> | undefined} of a sweep: up to how many loops */
  most = undefined;
  /** @type {Field<import("../widgets/form.js").Described> | undefined} of a card of another model: its name */
  named = undefined;
  /** @type {Map<string, Field<CompareConfig["controls"][number]>>} by control */
  fields = new Map();

  /**
   * @param {import("./main.js").Page} page
   * @param {Setup} setup
   */
  constructor(page, { origin = null, plain = false, changes = {}, called = "", sweep = 0, held = null, gave = {}, model = "", linked = false }) {
    this.page = page;
    this.origin = origin;
    this.plain = plain;
    this.changes = { ...changes };
    this.called = called;
    this.sweep = sweep;
    this.held = held;
    this.gave = { ...gave };
    this.model = model;
    this.linked = linked;
    this.build();
  }

  /** @returns {Frame<CompareConfig, CompareQuestions, Begin>} */
  get frame() {
    return this.page.frame;
  }

  build() {
    this.heading = el("h2", "lv-sr"); // its name stands in a field
    this.title = el("input", "lv-card-name");
    this.title.maxLength = this.frame.config.limits.name;
    this.title.addEventListener("change", () => {
      this.called = this.title.value.trim();
      this.page.label();
    });
    this.mark = el("span", "lv-card-mark");
    this.base = el("input");
    Object.assign(this.base, { type: "radio", name: "lv-baseline" });
    this.base.addEventListener("change", () => this.page.rebase(this));
    this.baseText = el("span");
    this.copy = press("lv-quiet", () => this.page.add({ changes: this.plain ? this.frame.config.plain : this.changes, called: `${this.name} ·`, sweep: this.sweep, held: this.held, gave: this.gave, model: this.model }));
    this.remove = press("lv-icon", () => this.page.drop(this), "×");
    this.about = el("p", "lv-card-about");
    this.status = el("p", "lv-card-status");
    this.status.setAttribute("role", "status");
    this.stop = press("lv-quiet", () => this.page.stop(this));
    this.open = Object.assign(el("a", "lv-quiet lv-card-open"), { target: "_blank" }); // the comparison stays
    this.form = el("div", "lv-form");
    this.more = el("summary");
    this.details = el("details", "lv-card-settings", this.more, this.form);
    this.text = el("p", "lv-card-text");
    this.text.tabIndex = 0;
    this.same = el("p", "lv-card-same");
    const base = el("label", "lv-card-base", this.base, this.baseText);
    const head = el("div", "lv-card-head", this.mark, this.title, this.remove);
    const row = el("div", "lv-card-row", base, this.copy);
    if (this.sweep) {
      const { sweep_least: low, sweep_most: high } = this.frame.config.limits;
      this.most = new Field({ name: "sweep", kind: "whole", low, high, value: this.sweep }, (value) => {
        this.sweep = Number.isInteger(value) ? value : -1; // for the server to refuse
        this.page.edited();
      });
      this.most.value = this.sweep;
      this.most.node.classList.add("lv-sweep");
      row.prepend(this.most.node);
    }
    if (this.model) {
      this.named = new Field({ name: "card-model", kind: "name" }, (value) => {
        this.model = String(value).trim() || this.frame.config.other;
        this.origin = null; // another model than the one that it was called by
        this.linked = false;
        this.page.edited();
      });
      this.named.value = this.model;
      this.named.input.setAttribute("list", this.page.names.id);
      row.prepend(this.named.node);
    }
    const state = el("div", "lv-card-row", this.status, this.stop, this.open);
    this.node = el("section", "lv-card lv-setup", this.heading, head, this.about, row, this.details, this.text, this.same, state);
    this.node.dataset.plain = this.plain || this.model ? "1" : "0";
    if (!this.plain && !this.model) this.buildForm();
  }

  buildForm() {
    const { controls, groups } = this.frame.config;
    for (const group of groups) {
      const title = el("h3");
      title.dataset.group = group;
      this.form.append(title);
      for (const control of controls.filter((one) => one.group === group)) {
        const field = new Field(control, (value) => {
          this.changes[control.name] = this.suited[control.name] = value;
          delete this.gave[control.name];
          this.page.edited();
        });
        this.fields.set(control.name, field);
        this.form.append(field.node);
      }
    }
  }

  /** A control's value: as the server has it, as it was set, as a link holds it for its model, as the model brings it. @param {string} key */
  value(key) {
    /** @type {Values} */
    const linked = this.held?.model === this.page.model.value.trim() ? this.held.values : {};
    return this.suited[key] ?? this.changes[key] ?? linked[key] ?? this.page.base[key];
  }

  /** Another model has come: what of its settings gave way to it. @param {CheckedCard["gave"]} gave */
  suit(gave) {
    for (const key of Object.keys(gave)) delete this.changes[key];
    this.gave = gave;
    this.suited = {};
  }

  get name() {
    return this.called || (this.origin ? this.page.called(this.origin, this.sweep) : this.model || String(this.place + 1));
  }

  get place() {
    return this.page.cards.indexOf(this);
  }

  /** @returns {CardAsked} */
  asked() {
    return { name: this.name, plain: this.plain, values: this.plain ? {} : this.changes, base: this.held, sweep: this.sweep, model: this.model, linked: this.linked };
  }

  /** Put its words and place in place. */
  label() {
    const { frame, page } = this;
    /** @type {(key: string, values?: Record<string, any>) => string} */
    const text = (key, values) => frame.text(key, values);
    this.node.dataset.place = String(this.place);
    this.mark.replaceChildren(swatch(frame.config, this.place));
    if (document.activeElement !== this.title) this.title.value = this.name;
    this.title.setAttribute("aria-label", text("compare.name"));
    this.base.checked = page.baseline === this;
    this.baseText.textContent = text("compare.baseline");
    this.baseText.parentElement.title = text("compare.baseline.hint");
    this.copy.textContent = text("compare.copy");
    this.copy.disabled = page.full;
    name(this.remove, text("compare.remove"));
    this.remove.disabled = page.cards.length <= frame.config.limits.least;
    this.most?.label(text("compare.sweep"));
    this.named?.label(text("model.label"));
    this.more.textContent = text("compare.edit");
    this.stop.textContent = text("compare.stop_one");
    this.open.textContent = text("compare.open");
    for (const title of this.form.querySelectorAll("h3")) title.textContent = text(`group.${title.dataset.group}`);
    for (const [key, field] of this.fields) {
      field.label(text(`${key}.label`), (choice) => text(`${key}.${choice}`));
      field.value = this.value(key);
    }
    this.show();
  }

  /** What the server says of its settings. @param {CheckedCard} card */
  checked({ about, refused, controls, values, cost, fixed, state }) {
    this.refused = refused;
    this.details.hidden = fixed;
    this.suited = values;
    const { sweep_least: low, sweep_most: high } = this.frame.config.limits;
    const ready = !fixed || state === "ready";
    const what = !ready ? this.frame.text(state === "ask" ? "compare.other.ask" : "compare.other.wait") : fixed ? about : this.plain ? this.frame.text("compare.plain.about") : this.sweep ? this.frame.text("compare.sweep.hint", { low, high }) : about;
    this.about.textContent = [what, cost ? this.frame.text("compare.cost", { time: cost }) : ""].filter(Boolean).join(" · ");
    this.most?.show({ info: "", bad: Boolean(refused) });
    this.named?.show({ info: "", bad: state === "failed" });
    for (const [key, look] of Object.entries(controls)) {
      const gave = key in this.gave ? this.frame.text("gave.card", { was: this.said(key, this.gave[key]) }) : null;
      this.fields.get(key)?.show(gave ? { ...look, info: gave } : look);
      this.fields.get(key).value = this.value(key);
    }
    this.show();
  }

  /**
   * A value in words.
   * @param {string} key
   * @param {unknown} value
   */
  said(key, value) {
    if (typeof value === "boolean") return this.frame.text(`gave.${value}`);
    return typeof value === "string" ? this.frame.text(`${key}.${value}`) : String(value);
  }

  /** Another comparison begins. */
  reset() {
    this.result = null;
    this.halting = false;
    this.text.replaceChildren();
    this.show();
  }

  /** It is to end; it has when a message says so. */
  halt() {
    this.halting = true;
    this.show();
  }

  /** What a message says of it. @param {CardNews} news */
  take(news) {
    const before = this.result;
    this.result = { ...(before ?? {}), ...news };
    const known = this.text.childElementCount;
    if (news.from < known) this.text.replaceChildren();
    const atEnd = this.text.scrollTop + this.text.clientHeight >= this.text.scrollHeight - 8;
    this.text.append(...news.pieces.map((piece) => el("span", "", piece)));
    if (news.rows) this.text.replaceChildren(...news.rows.map((row) => this.line(row)));
    if (atEnd && !news.rows) this.text.scrollTop = this.text.scrollHeight;
    if (news.differs) [...this.text.children].forEach((span, i) => span.classList.toggle("lv-differs", news.differs[i]));
    this.show();
  }

  /** A row of a sweep as a line of its text. @param {import("../core/contract.js").Row} row */
  line({ swept, perplexity }) {
    const value = typeof perplexity === "number" ? short(perplexity) : this.frame.text("compare.none");
    return el("span", "lv-swept", this.frame.text("compare.swept.line", { n: swept, perplexity: value }));
  }

  /** Its state in words. */
  show() {
    const { result, frame, page } = this;
    const stage = result?.stage ?? (this.refused ? "refused" : null);
    const values = { ...(result ?? {}), reason: result?.reason ?? this.refused };
    const busy = page.running && result && !["done", "stopped", "refused"].includes(stage);
    const said = busy && this.halting ? "compare.stopping" : `compare.stage.${stage}`;
    this.status.textContent = stage ? frame.text(said, values) : "";
    this.status.classList.toggle("lv-bad", stage === "refused");
    this.node.dataset.stage = stage ?? "";
    this.node.setAttribute("aria-label", this.name);
    this.heading.textContent = this.name;
    this.stop.hidden = !busy || this.halting;
    this.open.hidden = !result?.link;
    if (result?.link) {
      this.open.href = `${frame.config.pages.explore}?${QUERIES.link}=${result.link}`;
      this.open.title = frame.text("compare.open.hint");
    }
    this.text.dataset.idle = this.text.childElementCount ? "" : frame.text("compare.idle");
    this.same.textContent = this.sameness();
  }

  /** How its text stands to the baseline's. */
  sameness() {
    const { result, frame, page } = this;
    if (!result?.row) return "";
    if (result.row.baseline) return frame.text("compare.is_baseline");
    if (!result.differs || !result.row.new_tokens) return "";
    const same = !result.differs.includes(true) && result.same === page.baselineLength();
    return same ? frame.text("compare.same") : frame.text("compare.same_until", { n: result.same });
  }
}
