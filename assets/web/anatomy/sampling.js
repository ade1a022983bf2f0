// What the next word is drawn from: the stored logits, under a temperature, top-k and top-p that are moved.

import { el, shown } from "../core/dom.js";
import { percent, written } from "./numbers.js";

/** @import { AnatomyDraw } from "../core/contract.js" */
/** @typedef {{ temperature: number, top_k: number, top_p: number }} How */

/** @type {[name: keyof How, least: number, most: number, step: number][]} */
const SLIDERS = [
  ["temperature", 0.1, 2, 0.05],
  ["top_k", 0, 50, 1],
  ["top_p", 0.05, 1, 0.05],
];

export class Sampling {
  /** @type {How} */
  how = { temperature: 1, top_k: 0, top_p: 1 };
  /** @type {boolean} whether an answer is awaited */
  asking = false;
  /** @type {boolean} whether it is asked for anew then */
  again = false;
  /** @type {{ key: string, told: AnatomyDraw } | null} the latest answer, and what it was of */
  known = null;

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.rows = el("div", "lv-draw-rows");
    this.kept = el("p", "lv-heat-key");
    this.kept.setAttribute("role", "status");
  }

  /** @param {string} stage @returns {Node[]} */
  of(stage) {
    this.stage = stage;
    this.rows.replaceChildren();
    this.kept.textContent = "";
    if (this.known?.key.startsWith(this.page.look.look)) this.show(this.known.told);
    this.ask();
    return stage === "head" ? [this.rows] : [this.sliders(), this.kept, this.rows];
  }

  sliders() {
    const { page } = this;
    const made = SLIDERS.map(([key, least, most, step]) => {
      const slider = Object.assign(el("input", "lv-dial-slider"), { type: "range", min: String(least), max: String(most), step: String(step) });
      slider.value = String(this.how[key]);
      slider.dataset.how = key;
      const value = el("span", "lv-dial-value");
      const say = () => (value.textContent = key === "top_k" && !this.how.top_k ? page.text("anatomy.all") : written(this.how[key]));
      say();
      slider.addEventListener("input", () => {
        this.how = { ...this.how, [key]: Number(slider.value) };
        say();
        this.ask();
      });
      return el("label", "lv-dial", el("span", "lv-dial-head", page.text(`anatomy.${key}`), value), slider);
    });
    return el("div", "lv-draw-sliders", ...made);
  }

  /** Ask the server; while an answer is awaited, once more after it. */
  async ask() {
    if (this.asking) {
      this.again = true;
      return;
    }
    const { frame, look } = this.page;
    const how = this.stage === "head" ? { temperature: 1, top_k: 0, top_p: 1 } : this.how;
    const key = `${look.look} ${JSON.stringify(how)}`;
    this.asking = true;
    const answer = await frame.ask("draw", { look: look.look, ...how, lang: frame.lang });
    this.asking = false;
    if (answer?.kind === "draw" && look === this.page.look) {
      this.known = { key, told: answer };
      this.show(answer);
    } else if (answer?.kind === "no") this.kept.textContent = answer.text;
    if (!this.again) return;
    this.again = false;
    this.ask();
  }

  /** What columns and bars are. */
  key() {
    const { page } = this;
    const part = (/** @type {string} */ name) => el("span", "lv-draw-part", el("i", `lv-draw-sample lv-draw-${name}`), page.text(`anatomy.draw.${name}`));
    const parts = this.stage === "head" ? [part("share")] : [part("chance"), part("share")];
    return el("div", "lv-draw-key", el("span"), el("span", "lv-draw-number", page.text("anatomy.draw.logit")), el("span", "lv-draw-parts", ...parts), el("span"));
  }

  /** @param {AnatomyDraw} told */
  show({ rows, kept, vocabulary }) {
    const { page } = this;
    const came = page.nextWord();
    const most = Math.max(...rows.map(([, , share, chance]) => Math.max(share, chance)), 1e-9);
    const lines = rows.map(([text, logit, share, chance]) => {
      const line = el("div", "lv-draw-row", el("b", "", shown(text) || "␣"), el("span", "lv-draw-number", written(logit)));
      const bar = el("span", "lv-draw-bar");
      bar.style.setProperty("--share", String(share / most));
      bar.style.setProperty("--chance", String(this.stage === "head" ? 0 : chance / most));
      line.append(bar, el("span", "lv-draw-number", percent(this.stage === "head" ? share : chance)));
      line.toggleAttribute("data-out", this.stage !== "head" && chance === 0);
      if (text === came) line.title = page.text("anatomy.came");
      line.toggleAttribute("data-came", text === came);
      return line;
    });
    this.rows.replaceChildren(this.key(), ...lines);
    this.kept.textContent = this.stage === "head" ? "" : page.text("anatomy.kept", { kept, vocabulary });
  }
}
