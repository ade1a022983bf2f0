// The line under the text: what there is to say, else the run's counts; beside it a way out of what was refused.

import { el, fill, press, textOr } from "../core/dom.js";

/** @import { Act } from "../core/contract.js" */

export class StatusLine {
  /** @type {string} what is said; "": the counts */
  said = "";
  /** @type {boolean} whether that is bad news */
  bad = false;
  /** @type {boolean} whether there was no place to wait in */
  full = false;

  /** @type {Act | undefined} the way out that is offered */
  act = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.node = el("span", "lv-status");
    this.node.setAttribute("role", "status");
    this.way = press("lv-quiet lv-out", () => page.again.act(this.act));
    this.way.hidden = true;
  }

  /** @param {string} text */
  say(text, bad = false, full = false) {
    this.said = text;
    this.full = full;
    this.bad = Boolean(bad);
    this.offer();
    this.node.classList.toggle("lv-bad", this.bad);
    this.show();
  }

  /** A button beside what is said; none when there is nothing to offer. @param {Act} [act] */
  offer(act) {
    this.act = act;
    this.way.hidden = !act;
    this.way.textContent = act?.label ?? "";
  }

  show() {
    if (this.page.texts) this.node.textContent = this.said || this.counts();
  }

  /** Tokens, tokens a second of a run made here and how many runs shared its passes, loops a token; and why a run of the visitor's ended. */
  counts() {
    const { page } = this;
    const { texts, tokens } = page;
    if (!page.run || !tokens.length) return "";
    /** @type {Record<string, string | number>} */
    const values = { n: tokens.length, loops: page.loopsPerToken().toFixed(2).replace(/\.?0+$/, "") };
    if (page.onRecorded || page.share.isFile(page.run) || page.seq < page.total) return fill(texts["live.counts"], values);
    values.rate = page.rate()?.toFixed(1) ?? "–";
    const end = page.end ? `${textOr(texts, `live.end.${page.end}`, page.end)} · ` : "";
    const runs = page.runsPerPass();
    // a speed of shared passes is told with how many shared them
    const shared = runs != null && runs > 1 ? fill(texts["live.shared"], { runs: runs.toFixed(1).replace(/\.0$/, "") }) : "";
    return end + fill(texts["live.running"], values) + shared;
  }
}
