// The card of the stage that is read about: what it does, its numbers in words, its pictures, its formula and line of code.

import { QUERIES } from "../core/contract.js";
import { el, name, press, scrollable } from "../core/dom.js";
import { typeset } from "../widgets/glossary.js";
import { percent, written } from "./numbers.js";
import { Pictures } from "./pictures.js";

/** @import { AnatomyStage } from "../core/contract.js" */
/** @import { LayerData } from "./layer_data.js" */
/** @typedef {Record<string, number | null>} Facts */

const NORM = ["norm", "norm_mlp", "final_norm"];
/** @type {Record<string, string>} stages that share their words about numbers */
const SHARED = {
  ...Object.fromEntries(NORM.map((name) => [name, "norm"])),
  ...Object.fromEntries(["norm_attended", "norm_stream", "norm_down", "norm_result", "step_norm", "left_norm"].map((name) => [name, "norm_other"])),
  norm_query: "norm_heads",
  norm_key: "norm_heads",
};

/** A fact in words: shares as percent, numbers in three digits. @param {Facts} facts */
function worded(facts) {
  /** @type {Record<string, string>} */
  const words = Object.fromEntries(Object.entries(facts).map(([key, value]) => [key, written(value)]));
  for (const key of ["itself", "first", "negative", "key_off", "value_off"]) if (key in facts) words[key] = percent(facts[key]);
  if ("ratio" in facts) words.percent = percent(facts.ratio);
  const chances = Object.keys(facts).filter((key) => key.startsWith("p_"));
  if (chances.length) words.chances = chances.map((key) => `${key.slice(2)}: ${percent(facts[key])}`).join(" · ");
  if ("entropy" in facts) words.spread = written(Math.exp(facts.entropy));
  return Object.assign(words, { low: written(facts["beta_0.1"]), own: written(facts.beta_1), high: written(facts.beta_10) });
}

export class StageCard {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2");
    this.place = el("span", "lv-step-count");
    this.earlier = press("lv-icon", () => page.walk(-1), "‹");
    this.later = press("lv-icon", () => page.walk(1), "›");
    this.about = el("p", "lv-stage-about");
    this.shape = el("p", "lv-stage-shape");
    this.facts = el("p", "lv-stage-facts");
    this.both = el("p", "lv-stage-facts lv-stage-both");
    this.pictures = el("div", "lv-stage-pictures");
    this.summary = el("summary");
    this.formula = el("div", "lv-stage-formula");
    this.code = el("a", "lv-stage-code");
    this.code.target = "_blank";
    this.code.rel = "noopener";
    this.lab = el("p", "lv-stage-lab");
    this.fold = el("details", "", this.summary, this.formula);
    const head = el("div", "lv-stage-head", this.title, this.place, el("span", "lv-stage-ways", this.earlier, this.later));
    this.node = el("section", "lv-card lv-stage", head, this.about, this.facts, this.both, this.pictures, this.shape, this.fold, this.code, this.lab);
    this.node.setAttribute("aria-live", "off");
    scrollable(this.formula, "");
    this.drawn = new Pictures(page);
    this.stage = ""; // whose pictures these are
  }

  label() {
    const { page } = this;
    name(this.earlier, page.text("anatomy.stage.earlier"));
    name(this.later, page.text("anatomy.stage.later"));
    this.summary.textContent = page.text("anatomy.formula");
    this.formula.setAttribute("aria-label", page.text("anatomy.formula"));
  }

  /**
   * Show a stage.
   * @param {AnatomyStage} stage
   * @param {LayerData | null} layer null while it is awaited
   * @param {LayerData | null} other the loop step beside it
   */
  show(stage, layer, other) {
    const { page } = this;
    const all = page.stages;
    const place = all.indexOf(stage);
    this.title.textContent = page.text(`anatomy.stage.${stage.title}`);
    this.place.textContent = page.text("anatomy.place", { n: place + 1, total: all.length });
    this.earlier.disabled = place === 0;
    this.later.disabled = place === all.length - 1;
    this.about.textContent = page.text(`anatomy.about.${stage.about}`);
    this.formula.replaceChildren(...typeset(stage.formula));
    this.code.textContent = page.text("anatomy.code", { at: stage.code.at });
    this.code.href = stage.code.url;
    this.lab.replaceChildren(...this.experiments(stage));
    this.lab.hidden = !stage.lab.length;
    const facts = this.factsOf(stage, layer);
    this.facts.textContent = facts ? this.said(stage.name, facts) : "";
    this.facts.hidden = !this.facts.textContent;
    this.both.textContent = this.compared(stage, other);
    this.both.hidden = !this.both.textContent;
    this.shape.replaceChildren(...this.shapeOf(stage, layer));
    this.redraw(stage.name, this.drawn.of(stage, layer, other));
  }

  /** New pictures; who is in a field of the same stage's stays in it. @param {string} stage @param {Node[]} made */
  redraw(stage, made) {
    /** @returns {HTMLElement[]} */
    const fields = () => [...this.pictures.querySelectorAll("select, input")].map((field) => /** @type {HTMLElement} */ (field));
    const place = stage === this.stage ? fields().findIndex((field) => field === document.activeElement) : -1;
    this.stage = stage;
    this.pictures.replaceChildren(...made);
    fields()[place]?.focus({ preventScroll: true });
  }

  /** Ways to the Lab's measurements about a stage. @param {AnatomyStage} stage */
  experiments({ lab }) {
    const { page } = this;
    const links = lab.map((task) => {
      const link = el("a", "", page.text(`anatomy.lab.${task}`));
      link.href = `${page.frame.config.pages.lab}?${QUERIES.task}=${task}`;
      return link;
    });
    return [`${page.text("anatomy.lab")} `, ...links.flatMap((link, i) => (i ? [" · ", link] : [link]))];
  }

  /**
   * @param {AnatomyStage} stage
   * @param {LayerData | null} layer
   * @returns {Facts | null}
   */
  factsOf(stage, layer) {
    const found = stage.within ? layer?.facts[stage.name] : this.page.look?.facts[stage.name];
    return found && Object.keys(found).length ? found : null;
  }

  /** @param {string} stage @param {Facts} facts */
  said(stage, facts) {
    const one = stage === "read_out" ? `read_out_${"step" in facts ? "gate" : "weighted"}` : (SHARED[stage] ?? stage);
    const step = stage === "result" ? this.stepSaid() : "";
    return [this.page.text(`anatomy.facts.${one}`, worded(facts)), step].filter(Boolean).join(" ");
  }

  /** What the whole loop step came to, said at the end of its last layer. */
  stepSaid() {
    const { page } = this;
    const { layer, step } = page.where;
    const runs = page.look?.runs ?? [];
    const block = runs.find(([index, , number]) => index === layer && number === step)?.[1] ?? -1;
    const last = runs.filter(([, own, number]) => own === block && number === step).at(-1)?.[0];
    const facts = page.look?.steps.find((one) => one.block === block && one.step === step);
    if (!step || !facts || last !== layer) return "";
    const words = { step, percent: percent(facts.wanted_ratio), degrees: written(facts.wanted_degrees), damping: percent(facts.damping), size: written(facts.wanted_added_norm) };
    const said = [page.text("zeros" in facts ? "anatomy.step.zeros" : "anatomy.step.facts", words)];
    if ("random" in facts) said.unshift(page.text("anatomy.step.random", { std: written(facts.random) }));
    if ("normed" in facts) said.push(page.text("anatomy.step.normed", { size: written(facts.normed) }));
    if ("leaves" in facts) said.push(page.text("anatomy.step.leaves", { chance: percent(facts.leaves), sum: percent(facts.left) }));
    return said.join(" ");
  }

  /** What two loop steps have in common here. @param {AnatomyStage} stage @param {LayerData | null} other */
  compared(stage, other) {
    const { page } = this;
    if (!other || !stage.within || !page.changes) return "";
    const pair = page.changes[stage.name];
    if (pair === undefined) return ""; // it is a stage of one of the two alone
    const steps = { step: page.where.step, other: other.step };
    if (!pair) return page.text("anatomy.both.none", steps);
    return page.text("anatomy.both", { ...steps, cosine: written(pair[0], 4), percent: percent(pair[1]) });
  }

  /** @param {AnatomyStage} stage @param {LayerData | null} layer */
  shapeOf(stage, layer) {
    const { page } = this;
    /** @type {Record<string, number>} */
    const own = stage.axes[0] === "V" ? { V: page.look?.facts.head.vocabulary } : { H: page.look?.tensors.embedding.shape[0] };
    const sizes = stage.within ? layer?.shapes[stage.name] : own;
    if (!sizes) return [];
    const axes = Object.entries(sizes).map(([axis, size]) => el("span", "lv-axis", el("b", "", String(size)), ` ${page.text(`anatomy.axis.${axis}`)} (${axis})`));
    return [el("span", "", page.text("anatomy.shape")), ...axes.flatMap((axis, i) => (i ? [" × ", axis] : [axis]))];
  }
}
