// Plots from plain plotly data, drawn one at a time with pauses between, in the page's colours.

import { el } from "./dom.js";
import { containers, headline, loadPlotly, plotConfig, plotlyFor, selected, untitled } from "./plotly.js";

/** @import { Figure } from "./contract.js" */
/** @import { Drawn, Plotly } from "./page_globals.js" */

/** A plot with its title and question; `touch` says that its figure has changed. */
export class Plot {
  /** @type {Figure | null} */
  figure = null;
  /** @type {boolean} whether it is another than is drawn */
  dirty = false;
  /** @type {number} */
  revision = 0;
  /** @type {((change: { token?: number, step?: number }) => void) | null} told of what a click selects; null: clicks select nothing */
  choose = null;
  /** @type {boolean} whether clicks are heard */
  wired = false;
  /** @type {Record<string, any>[]} shapes that the page itself draws over the figure */
  marks = [];

  /**
   * @param {string} called
   * @param {Plots} plots
   */
  constructor(called, plots) {
    this.plots = plots;
    this.title = el("h2");
    this.question = el("p", "lv-question");
    this.choices = el("div", "lv-choices");
    this.said = el("p", "lv-headline");
    /** @type {Drawn} */
    this.plot = el("div", "lv-plot");
    this.plot.setAttribute("role", "group"); // and no picture: its buttons can be reached
    this.node = el("section", "lv-panel", el("div", "lv-panel-head", el("div", "", this.title, this.question), this.choices), this.said, this.plot);
    this.node.dataset.panel = called;
    plots.all.push(this);
  }

  /**
   * @param {string} title
   * @param {string} question
   */
  label(title, question) {
    this.title.textContent = title;
    this.question.textContent = question;
    this.plot.setAttribute("aria-label", `${title}. ${question}`);
  }

  /** @param {Figure} figure */
  take(figure) {
    this.figure = figure;
    this.touch();
  }

  touch() {
    this.dirty = this.figure !== null;
    this.plots.wake();
  }

  /**
   * @param {Plotly} small
   * @param {object} template
   */
  async draw(small, template) {
    this.dirty = false;
    const Plotly = plotlyFor(this.figure, small, this.plots.frame.root, () => this.touch(), () => this.plots.lost());
    if (!Plotly) return;
    const { config, lang } = this.plots.frame;
    /** @type {Figure["layout"]} */
    const layout = structuredClone({ ...untitled(this.figure.layout), template });
    layout.shapes = [...(layout.shapes ?? []), ...this.marks];
    Object.assign(layout, { autosize: true, uirevision: "1", datarevision: ++this.revision });
    this.plot.style.height = `${layout.height}px`; // what it takes is known before it is drawn
    this.said.replaceChildren(...headline(this.figure.layout));
    await Plotly.react(this.plot, this.figure.data.map(containers), layout, plotConfig(lang, config.toolbar[lang]));
    if (this.choose && !this.wired) {
      this.wired = true;
      this.plot.on("plotly_click", (event) => {
        const change = selected(this.figure, event.points[0]);
        if (change) this.choose(change);
      });
    }
  }
}

/** All plots of a page. */
export class Plots {
  /** @type {Plot[]} */
  all = [];
  /** @type {Plotly | null} */
  Plotly = null;
  /** @type {boolean} whether it draws by itself */
  awake = false;

  /** @param {import("./page_head.js").Frame<any, any, any>} frame */
  constructor(frame) {
    this.frame = frame;
    loadPlotly(frame.root).then(
      (Plotly) => {
        this.Plotly = Plotly;
        this.wake();
      },
      () => this.lost(),
    );
  }

  lost() {
    this.frame.page.say(this.frame.text("live.noplot"), true);
  }

  recolour() {
    for (const plot of this.all) plot.touch();
  }

  wake() {
    if (this.awake || !this.Plotly) return;
    this.awake = true;
    requestAnimationFrame(() => this.tick());
  }

  /** Draw one, then leave the browser as much time as that took. */
  async tick() {
    const next = this.all.find((plot) => plot.dirty);
    if (next) {
      const began = performance.now();
      try {
        await next.draw(this.Plotly, this.frame.config.templates[this.frame.theme]);
      } catch (error) {
        console.error(`plot ${next.node.dataset.panel}`, error);
      }
      // the one just drawn goes last: every plot has its turn
      this.all.push(...this.all.splice(this.all.indexOf(next), 1));
      await new Promise((resolve) => setTimeout(resolve, performance.now() - began));
    }
    this.awake = false;
    this.frame.root.dataset.drawn = String(!this.all.some((plot) => plot.dirty));
    if (this.all.some((plot) => plot.dirty)) this.wake();
  }
}
