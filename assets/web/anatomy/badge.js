// Whether what is shown is what the run recorded, in words and numbers.

import { el } from "../core/dom.js";
import { written } from "./numbers.js";

export class Badge {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.head = el("b", "lv-badge");
    this.words = el("span");
    this.node = el("p", "lv-agreement", this.head, this.words);
    this.node.hidden = true;
  }

  show() {
    const { page } = this;
    const agreement = page.running ? null : page.look?.agreement; // of a word that is on its way nothing is known
    this.node.hidden = !agreement;
    if (!agreement) return;
    const known = agreement.compared || !agreement.steps; // else there is nothing to say it by
    const same = agreement.is_the_runs;
    this.node.dataset.same = known ? String(same) : "unknown";
    this.head.textContent = page.text(same ? "anatomy.agrees" : known ? "anatomy.differs" : "anatomy.unknown");
    const parts = [page.text(agreement.steps ? "anatomy.agrees.steps" : "anatomy.differs.steps")];
    for (const key of /** @type {const} */ (["states", "norm", "logprob"])) {
      if (agreement.steps && agreement[key] !== null) parts.push(page.text(`anatomy.agrees.${key}`, { [key]: written(agreement[key]) }));
    }
    const mark = page.frame.lang === "zh" ? "；" : "; ";
    const end = page.frame.lang === "zh" ? "。" : ".";
    this.words.textContent = ` ${parts.join(mark)}${end}${same || !known ? "" : ` ${page.text("anatomy.differs.do")}`}`;
    this.words.classList.toggle("lv-bad", known && !same);
  }
}
