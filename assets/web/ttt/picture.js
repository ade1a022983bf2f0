// One picture of a TTT run: its title and question, the figure, a sentence for those who do not see it; behind a fold what is
// shown, its formula, its source and the lines of code that compute it.

import { el, scrollable } from "../core/dom.js";
import { applyOps } from "../core/messages.js";
import { Plot } from "../core/plot.js";

/** @import { Figure, TTTPanel } from "../core/contract.js" */

/** MathML of our own making, as nodes. @param {string} markup */
const typeset = (markup) => [...new DOMParser().parseFromString(markup, "text/html").body.childNodes];

export class Picture {
  /**
   * @param {TTTPanel} panel
   * @param {import("./main.js").Page} page
   */
  constructor(panel, page) {
    this.panel = panel;
    this.page = page;
    this.plot = new Plot(panel.name, page.plots);
    this.plot.choose = ({ token }) => {
      if (token !== undefined && token < page.words.length) page.go({ token });
    };
    this.node = this.plot.node;
    this.summary = el("p", "lv-sr");
    this.head = el("summary");
    this.how = el("p");
    this.formula = el("div", "lv-ttt-formula");
    this.source = el("p");
    this.code = el("p");
    this.note = el("p", "lv-question");
    this.note.hidden = true;
    this.node.append(this.summary, this.note, el("details", "lv-ttt-how", this.head, this.how, this.formula, this.source, this.code));
    this.node.hidden = true;
  }

  label() {
    const { page, panel } = this;
    const { lang } = page.frame;
    const words = panel.words[lang];
    this.plot.label(words.title, words.question);
    this.head.textContent = page.text("ttt.how");
    this.how.textContent = words.how.replace("{control}", page.frame.config.control).replace("{most}", String(page.frame.config.rule_words));
    this.formula.replaceChildren(...typeset(panel.formulas[lang]));
    scrollable(this.formula, page.text("ttt.how"));
    this.source.textContent = page.text("ttt.source", { source: words.source });
    const links = panel.code.map(({ at, url }) => Object.assign(el("a", "", at), { href: url, target: "_blank", rel: "noopener" }));
    this.code.replaceChildren(`${page.text("ttt.code")} `, ...links.flatMap((link, i) => (i ? [" · ", link] : [link])));
  }

  /**
   * A whole figure, in place of the one before.
   * @param {Figure} figure
   * @param {string} summary
   */
  take(figure, summary) {
    this.node.hidden = false;
    this.plot.take(figure);
    this.summary.textContent = summary;
  }

  /** What differs. @param {any[][]} ops */
  fold(ops) {
    if (!this.plot.figure) return;
    applyOps(this.plot.figure, ops);
    this.plot.touch();
  }
}
