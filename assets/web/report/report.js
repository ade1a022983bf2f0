// The script inside a report: draws its figures, and moves through the run. Needs nothing from outside the file: what it
// imports is written into it too (loopviz/export/report.py). Knows no panel by name. What it shows of a visitor's or a
// model's text is in the page already, or goes through textContent.

import { applyOps } from "../core/messages.js";
import { containers, headline, plotConfig, untitled } from "../core/plotly.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** @import { Figure } from "../core/contract.js" */
/** @import { Drawn, Point } from "../core/page_globals.js" */
/**
 * @typedef {{ figure: Figure, empty?: Figure, ops?: any[][][], summaries?: string[] }} Drawing a panel: its figure; and from which it grew,
 * by which edits, a list a token
 * @typedef {{
 *   panels: Record<string, Drawing>, replay: boolean, total: number, selected: number | null,
 *   templates: Record<string, object>, toolbar: Record<string, string>, texts: Record<string, string>,
 * }} Data what loopviz/export/report.py has written
 */

/** The text packed (gzip, base64) in an element. @param {string} id */
async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

class Panel {
  /** @type {boolean} whether it can be seen */
  seen = false;
  /** @type {boolean} whether it is to be drawn */
  waiting = true;
  /** @type {Promise<unknown> | null} while it is drawn */
  drawing = null;
  /** @type {boolean} whether clicks on it are heard */
  wired = false;
  /** @type {number} tokens in `figure` */
  folded = 0;
  /** @type {Figure | null} as it was after some token */
  figure = null;

  /**
   * @param {Report} report
   * @param {string} name
   * @param {Drawing} data
   */
  constructor(report, name, data) {
    this.report = report;
    this.name = name;
    this.data = data;
    /** @type {HTMLElement} */
    this.node = document.querySelector(`article[data-panel="${name}"]`);
    /** @type {Drawn} */
    this.plot = this.node.querySelector(".plot");
    this.said = this.node.querySelector(".headline");
    this.summary = this.node.querySelector(".summary");
    this.opening = this.summary.textContent;
    new IntersectionObserver(([entry]) => {
      this.seen = entry.isIntersecting;
      if (this.seen && this.waiting) this.draw();
    }).observe(this.node);
  }

  /**
   * The figure after `count` tokens were read; null: as the report opens.
   * @param {number | null} count
   * @returns {Figure}
   */
  at(count) {
    if (count === null) return this.data.figure;
    if (!this.figure || count < this.folded) {
      this.figure = structuredClone(this.data.empty);
      this.folded = 0;
    }
    for (; this.folded < count; this.folded += 1) applyOps(this.figure, structuredClone(this.data.ops[this.folded]));
    return this.figure;
  }

  show() {
    const count = this.report.count;
    this.summary.textContent = count === null ? this.opening : this.data.summaries[count];
    this.waiting = true;
    if (this.seen) this.draw();
  }

  async draw() {
    if (this.drawing) return; // one at a time; what is asked for meanwhile is drawn next
    this.waiting = false;
    const figure = this.at(this.report.count);
    const template = this.report.templates[dark.matches ? "dark" : "light"];
    /** @type {Figure["layout"]} */
    const layout = structuredClone({ ...untitled(figure.layout), template, autosize: true });
    this.said.replaceChildren(...headline(figure.layout));
    layout.uirevision = 1;
    this.plot.style.height = `${layout.height}px`; // its own, as Plotly's part of it is 100 % high after a window's change of size
    const svg = { name: "SVG", icon: Plotly.Icons.disk, click: (/** @type {HTMLElement} */ plot) => this.save(plot) };
    const { lang, toolbar } = this.report;
    const own = { displayModeBar: "hover", modeBarButtonsToAdd: [svg], toImageButtonOptions: { filename: this.name, scale: 2 } };
    const config = { ...plotConfig(lang, toolbar), ...own };
    this.drawing = Plotly.react(this.plot, figure.data.map(containers), layout, config);
    await this.drawing;
    if (!this.wired) this.plot.on("plotly_click", (event) => this.clicked(event.points[0]));
    this.wired = true;
    this.drawing = null;
    this.node.dataset.drawn = String(this.report.count ?? "all");
    if (this.waiting && this.seen) this.draw();
  }

  /** @param {HTMLElement} plot */
  save(plot) {
    Plotly.downloadImage(plot, { format: "svg", filename: this.name, width: plot.clientWidth, height: plot.clientHeight });
  }

  /** What a click selects is said by the figure itself (see loopviz/panels/__init__.py). @param {Point} point */
  clicked(point) {
    const figure = this.at(this.report.count);
    const select = figure.data[point?.curveNumber]?.meta?.select ?? figure.layout.meta?.select;
    const token = select?.token ? parseInt(point[select.token], 10) : NaN;
    if (Number.isFinite(token)) this.report.go(token + 1);
  }
}

class Report {
  /** @type {number | null} tokens read in what is shown; null: as the report opens */
  count = null;
  /** @type {number | null} until the next token */
  timer = null;
  /** @type {number} until it is drawn */
  asked = 0;

  /** @param {Data} data */
  constructor(data) {
    this.templates = data.templates;
    this.toolbar = data.toolbar;
    this.lang = document.documentElement.lang === "zh" ? "zh-CN" : document.documentElement.lang;
    this.texts = data.texts;
    this.total = data.total;
    this.selected = data.selected; // token selected as the report opens
    this.tokens = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".tok[data-i]")]);
    this.panels = Object.entries(data.panels).map(([name, panel]) => new Panel(this, name, panel));
    dark.addEventListener("change", () => this.panels.forEach((panel) => panel.show()));
    if (data.replay && this.total) this.wire();
  }

  wire() {
    /** @type {HTMLElement} */
    const bar = document.querySelector(".replay");
    const [play, all] = bar.querySelectorAll("button");
    this.play = play;
    this.all = all;
    this.slider = bar.querySelector("input");
    this.said = bar.querySelector("output");
    this.slider.max = this.slider.value = String(this.total);
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.play.addEventListener("click", () => this.run(!this.timer));
    this.all.addEventListener("click", () => this.go(null));
    document.querySelector(".text").addEventListener("click", (event) => {
      /** @type {HTMLElement | null} */
      const token = event.target instanceof Element ? event.target.closest("[data-i]") : null;
      if (token) this.go(Number(token.dataset.i) + 1);
    });
    document.body.classList.add("live");
    bar.hidden = false;
    this.mark();
  }

  /**
   * Show the run as it was once `count` tokens had been read; null: as the report opens.
   * @param {number | null} count
   */
  go(count, playing = false) {
    if (!playing) this.run(false);
    this.count = count === null ? null : Math.min(Math.max(count, 0), this.total);
    this.slider.value = String(this.count ?? this.total);
    this.mark();
    cancelAnimationFrame(this.asked);
    this.asked = requestAnimationFrame(() => this.panels.forEach((panel) => panel.show()));
  }

  mark() {
    const here = this.count === null ? this.selected : this.count - 1;
    this.tokens.forEach((token, i) => {
      token.classList.toggle("later", this.count !== null && i >= this.count);
      token.classList.toggle("here", i === here);
    });
    this.say();
  }

  say() {
    const token = this.count ? this.tokens[this.count - 1] : null;
    this.said.textContent = this.count === null ? this.texts.all : (token?.title ?? this.texts.none);
    this.play.textContent = this.timer ? this.texts.pause : this.texts.play;
    this.all.disabled = this.count === null;
  }

  /** @param {boolean} on */
  run(on) {
    clearInterval(this.timer);
    this.timer = null;
    if (on) {
      if (this.count === null || this.count >= this.total) this.count = 0;
      this.timer = setInterval(() => {
        if (this.panels.some((panel) => panel.drawing)) return; // never faster than it can be drawn
        this.go(this.count + 1, true);
        if (this.count >= this.total) this.run(false);
      }, 250);
    }
    this.say();
  }
}

(async () => {
  try {
    const data = JSON.parse(await unpack("lv-data"));
    const script = document.createElement("script");
    script.textContent = await unpack("lv-plotly");
    document.head.append(script);
    window.report = new Report(data);
    document.body.dataset.ready = "1";
  } catch (error) {
    console.error(error);
    for (const plot of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".plot"))) plot.dataset.waiting = plot.dataset.failed;
  }
})();
