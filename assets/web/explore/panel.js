// One panel of the live part: its words, its plot, and the edits that keep its figure's data up to date.
// Knows no panel by name. Text reaches the page through textContent only.

import { el, fill, name, press, scrollable } from "../core/dom.js";
import { TOUCH, containers, headline, plotConfig, plotlyFor, selected, untitled, widest } from "../core/plotly.js";
import { codeLinks, termed, typeset } from "../widgets/glossary.js";

const SAME = 2; // pixels that are no other height

/** @import { Figure, PanelEntry, PanelWords } from "../core/contract.js" */
/** @import { Drawn, Plotly, Point, Sides } from "../core/page_globals.js" */
/**
 * @typedef {{ label: string, options?: [any, string][], range?: number[], value: any }} Choice what a figure lets its reader choose:
 * one of several, or a number from least to most in steps
 */

/** One panel: its frame on the page, its figure's data, and when it was last drawn. */
export class Panel {
  /** @type {boolean} whether it is shown */
  on = true;
  /** @type {string[]} extras that a run must have recorded for it */
  needs = [];
  /** @type {PanelWords | undefined} */
  words = undefined;
  /** @type {Figure | null} */
  figure = null;
  /** @type {number | null} when it first differed from what is drawn */
  dirtySince = null;
  /** @type {number} frames in the figure */
  seq = -1;
  /** @type {number} frames in what is drawn */
  drawn = -1;
  /** @type {number} of the figure, for Plotly */
  revision = 0;
  /** @type {boolean} whether it can be seen */
  onScreen = true;
  /** @type {boolean} whether the plot is being dragged */
  dragging = false;
  /** @type {Plotly | null} the one that drew it */
  drawer = null;
  /** @type {boolean} whether it waits for one that is on its way */
  waiting = false;
  /** @type {boolean} whether clicks on it are heard */
  wired = false;
  /** @type {number} pixels that its figure asks for */
  asked = 0;
  /** @type {number} pixels that there are for the plot */
  width = 0;
  /** @type {number | null} the height that the plot has room for, as long as nothing changes its place: to look lays the page out */
  fits = null;
  /** @type {{ scene: string, sides: Sides } | null} the room around the axes as it was drawn last, which becomes no less in a scene */
  around = null;
  /** @type {string} the choices its head shows, as JSON */
  offered = "";

  /**
   * @param {string} panelName
   * @param {import("./page.js").Page} page
   */
  constructor(panelName, page) {
    this.name = panelName;
    this.page = page;
    this.title = el("h2");
    this.question = el("p", "lv-question");
    this.choices = el("div", "lv-choices");
    this.act = press("lv-quiet lv-act", () => page.again.act(this.figure.layout.meta.act)); // where this run leads nowhere
    this.act.hidden = true;
    this.hide = press("lv-icon", () => page.shelf.turn(this.name, false), "×");
    /** @type {Drawn} */
    this.plot = el("div", "lv-plot");
    const { menu, notice } = page.share.exporter(this);
    this.said = el("p", "lv-headline");
    this.said.setAttribute("aria-hidden", "true"); // the summary says it in a sentence
    this.empty = el("p", "lv-empty");
    this.lacks = el("p");
    this.again = press("lv-quiet", () => page.again.same());
    this.lacking = el("div", "lv-empty lv-lacking", this.lacks, this.again);
    this.lacking.hidden = true;
    this.summary = el("p", "lv-sr");
    this.summary.setAttribute("aria-live", "polite");
    this.detailsTitle = el("summary");
    this.detailsBody = el("div", "lv-how");
    const head = el("div", "lv-panel-head", el("div", "", this.title, this.question), menu.node, this.hide, this.choices, this.act, notice.node);
    this.wrap = el("div", "lv-plot-wrap", this.empty, this.lacking, this.plot);
    new ResizeObserver(([{ contentRect }]) => {
      this.width = contentRect.width;
      this.fits = null;
      this.refit();
    }).observe(this.wrap);
    this.details = el("details", "", this.detailsTitle, this.detailsBody);
    this.node = el("section", "lv-panel", head, this.said, this.wrap, this.summary, this.details);
    this.node.dataset.panel = panelName;
    this.plot.addEventListener("pointerdown", () => (this.dragging = true));
    window.addEventListener("pointerup", () => {
      if (this.dragging) setTimeout(() => ((this.dragging = false), page.screen.wake()), 50);
    });
  }

  /**
   * Put the panel's words in place.
   * @param {PanelEntry} entry
   * @param {Record<string, string>} texts
   */
  label({ words, needs, code }, texts) {
    this.needs = needs;
    this.words = words;
    this.title.textContent = words.title;
    this.question.textContent = words.question;
    this.node.setAttribute("aria-label", words.name);
    this.empty.textContent = words.no_data;
    this.plot.setAttribute("aria-label", `${words.title}. ${words.question}`);
    this.plot.setAttribute("role", "group"); // and no picture: its buttons can be reached
    this.lacks.textContent = texts["live.needs"];
    this.again.textContent = texts["live.rerun"];
    this.again.title = texts["live.rerun.same"];
    name(this.hide, fill(texts["live.hide.of"], { panel: words.name }), texts["live.hide"]);
    this.detailsTitle.textContent = texts["live.details"];
    const formula = el("div", "lv-formula");
    formula.append(...typeset(words.formula));
    scrollable(formula, words.name);
    /** @type {(label: string, value: string | PanelWords["how"]) => HTMLElement} */
    const row = (label, value) => el("p", "", el("b", "", `${label} `), ...termed([value].flat()));
    this.detailsBody.replaceChildren(
      el("p", "", ...termed(words.how)),
      formula,
      row(texts["live.units"], words.units),
      row(texts["live.source"], words.source),
    );
    if (words.cost) this.detailsBody.append(row(texts["live.cost"], words.cost));
    this.detailsBody.append(codeLinks(code, texts));
  }

  /** Show or hide the panel; one that is off holds no figure and no plot. @param {boolean} on */
  turn(on) {
    this.on = on;
    this.node.hidden = !on;
    if (!on) this.clear();
  }

  clear() {
    this.figure = null;
    this.dirtySince = null;
    this.drawn = -1;
    this.offered = "";
    this.act.hidden = true;
    this.choices.replaceChildren();
    this.forget();
    this.wrap.style.minHeight = "";
    this.said.replaceChildren();
    this.empty.hidden = false;
    this.lacking.hidden = true;
  }

  /** Whether it is shown and has none, though the run recorded what it needs. @param {string[]} extras */
  lacksFigure(extras) {
    return this.on && !this.figure && this.needs.every((extra) => extras.includes(extra));
  }

  /** The run has no figure for this panel: it did not record what that needs. */
  lack() {
    this.clear();
    this.summary.textContent = "";
    this.empty.hidden = true;
    this.lacking.hidden = false;
  }

  /**
   * Take a whole figure.
   * @param {Figure} figure
   * @param {number} seq frames in it
   */
  take(figure, seq) {
    this.figure = figure;
    this.waiting = false; // this one may be drawn by what is there
    this.lacking.hidden = true;
    this.offer(figure.layout.meta?.choices ?? {});
    const act = figure.layout.meta?.act;
    this.act.hidden = !act;
    this.act.textContent = act?.label ?? "";
    if (this.drawn < 0) this.said.replaceChildren(...headline(figure.layout)); // as high as it will be, before the first of a row is drawn
    this.ask();
    this.touch(seq);
  }

  /** Selects and sliders for what the figure lets its reader choose (see loopviz/panels/__init__.py). @param {Record<string, Choice>} choices */
  offer(choices) {
    const offered = JSON.stringify(Object.entries(choices).map(([field, { label, options, range }]) => [field, label, options, range]));
    if (offered !== this.offered) {
      this.offered = offered;
      this.choices.replaceChildren(
        ...Object.entries(choices).map(([field, choice]) => (choice.range ? this.slide(field, choice) : this.choice(field, choice))),
      );
    }
    for (const select of this.choices.querySelectorAll("select")) {
      const { options, value } = choices[select.dataset.field];
      select.value = String(options.findIndex(([offer]) => offer === value));
    }
    for (const range of this.choices.querySelectorAll("input")) {
      const { value } = choices[range.dataset.field], asked = /** @type {Record<string, any>} */ (this.page.focus)[range.dataset.field];
      if (range.matches(":active") || (asked !== null && asked !== value)) continue; // moved further than what this figure answers
      range.value = String(value);
      range.nextElementSibling.textContent = String(value); // a run's own may lie between the slider's steps
    }
  }

  /**
   * A slider: the figure follows while it is moved.
   * @param {string} field
   * @param {Choice} choice
   */
  slide(field, { label, range: [min, max, step] }) {
    const range = el("input"), shown = el("output");
    Object.assign(range, { type: "range", min, max, step });
    range.dataset.field = field;
    name(range, label);
    range.addEventListener("input", () => {
      shown.textContent = range.value;
      this.page.look({ [field]: Number(range.value) });
    });
    return el("label", "lv-panel-slide", el("span", "", label), range, shown);
  }

  /**
   * @param {string} field
   * @param {Choice} choice
   */
  choice(field, { label, options }) {
    const select = el("select", "lv-choice");
    select.dataset.field = field;
    name(select, label);
    options.forEach(([, text], i) => {
      const option = el("option", "", text);
      option.value = String(i);
      select.append(option);
    });
    select.addEventListener("change", () => this.page.look({ [field]: options[Number(select.value)][0] }));
    return select;
  }

  /** Ask for the height that the figure needs. */
  ask() {
    const { height } = untitled(this.figure.layout);
    if (height !== this.asked) this.fits = null;
    this.asked = height;
    this.wrap.style.minHeight = `${this.asked}px`;
  }

  /** What stands around the plot, without what was unfolded. */
  get chrome() {
    return this.node.offsetHeight - this.wrap.offsetHeight - (this.details.open ? this.detailsBody.offsetHeight : 0);
  }

  /** The height that the plot has room for: of the panels of a row the tallest decides, so that none leaves white under it. */
  get room() {
    const presented = this.page.present.room(this);
    if (presented !== undefined) return presented;
    const row = [...this.page.panels.values()].filter((panel) => panel.figure && panel.node.offsetTop === this.node.offsetTop);
    const fair = Math.round(Math.max(...row.map((panel) => panel.chrome + panel.asked)) - this.chrome);
    return Math.max(this.asked, Math.min(fair, this.wrap.clientHeight)); // unfolded words of its own leave it no more than it asks for
  }

  /** The row has become higher or lower. */
  refit() {
    if (!this.drawer || !this.figure || this.dirtySince !== null) return;
    if (Math.abs(this.room - this.plot.clientHeight) < SAME) return;
    this.touch(this.seq);
    this.page.screen.wake();
  }

  /** @param {number} seq */
  touch(seq) {
    this.seq = seq;
    this.dirtySince ??= performance.now();
  }

  /** Tokens came that change nothing here. @param {number} seq */
  keep(seq) {
    this.seq = seq;
    if (this.dirtySince === null) this.drawn = seq;
  }

  /** Without a plot, which another Plotly may then draw. */
  forget() {
    this.drawer?.purge(this.plot);
    this.plot.style.height = "";
    this.drawer = null;
    this.wired = false;
    this.plot.removeAllListeners?.("plotly_click");
  }

  async draw() {
    const { page, figure, seq } = this;
    const trouble = page.texts["live.noplot"];
    const there = () => {
      if (page.said === trouble) page.say("");
      this.waiting = false;
      page.screen.wake();
    };
    const Plotly = plotlyFor(figure, page.Plotly, page.root, there, () => page.say(trouble, true));
    this.waiting = Plotly === null;
    if (this.waiting) return;
    if (this.drawer !== Plotly) this.forget();
    this.drawer = Plotly;
    this.dirtySince = null;
    /** @type {Figure["layout"]} */
    const layout = structuredClone({ ...untitled(figure.layout), template: page.config.templates[page.theme()] });
    if (TOUCH) layout.dragmode = false;
    Object.assign(layout, { autosize: true, uirevision: page.run, datarevision: ++this.revision });
    const data = figure.data.map(containers);
    this.ask();
    this.fits ??= this.room;
    layout.height = this.fits;
    const scene = this.scene;
    if (this.around?.scene === scene) layout.margin = widest(layout.margin, this.around.sides);
    this.plot.style.height = `${layout.height}px`; // its own, as Plotly's part of it is 100 % high after a window's change of size
    this.said.replaceChildren(...headline(figure.layout));
    await Plotly.react(this.plot, data, layout, plotConfig(page.config.lang, page.config.toolbar));
    if (this.figure === null) return; // turned off meanwhile
    this.around = { scene, sides: this.plot._fullLayout._size };
    this.empty.hidden = true;
    this.drawn = seq;
    this.wire();
  }

  /** What stays while words come and are looked at: the run, what the axes are of, and how wide it is, by which legends fold. */
  get scene() {
    const { page, width } = this;
    const { data, layout } = this.figure;
    return JSON.stringify([page.run, data.length, layout.height, layout.xaxis?.title, layout.yaxis?.title, width]);
  }

  wire() {
    if (this.wired) return;
    this.wired = true;
    this.plot.on("plotly_click", (event) => this.clicked(event.points[0]));
  }

  /** What a click selects is said by the figure itself (see loopviz/panels/__init__.py). @param {Point} point */
  clicked(point) {
    const change = selected(this.figure, point);
    if (change) this.page.look(change);
  }
}
