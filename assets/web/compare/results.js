// What a comparison found: curves, the table with its files, and any two columns of it against each other.

import { CURVES, QUERIES, TABLE_FILES, TABLE_GROUPS } from "../core/contract.js";
import { el, press } from "../core/dom.js";
import { applyOps } from "../core/messages.js";
import { Plot, Plots } from "../core/plot.js";
import { Table } from "../widgets/table.js";
import { swatch } from "./configuration_card.js";

/** @import { Compare, CompareConfig, CompareNews, CompareQuestions, CompareSnapshot, Row } from "../core/contract.js" */
/** @import { Frame } from "../core/page_head.js" */
/** @import { Card } from "./configuration_card.js" */
/** @typedef {typeof TABLE_FILES[number]} FileKind */

export class Results {
  /** @type {CompareSnapshot["columns"]} of the table */
  columns = [];

  /**
   * @param {Frame<CompareConfig, CompareQuestions, Compare>} frame
   * @param {object} asks
   * @param {(change: { view?: string, axes?: string[] }) => void} asks.look for the comparison drawn otherwise
   * @param {(kind: FileKind) => void} asks.download for a file
   */
  constructor(frame, { look, download }) {
    this.frame = frame;
    this.plots = new Plots(frame);
    this.curves = Object.fromEntries(CURVES.map((called) => [called, new Plot(called, this.plots)]));
    this.view = el("select", "lv-choice");
    this.view.addEventListener("change", () => look({ view: this.view.value }));
    this.curves.convergence.choices.append(this.view);
    this.pareto = new Plot("pareto", this.plots);
    this.axes = ["x", "y"].map((axis) => {
      const select = el("select", "lv-choice");
      select.dataset.axis = axis;
      select.addEventListener("change", () => look({ axes: this.axes.map((one) => one.value) }));
      const title = el("span");
      this.pareto.choices.append(el("label", "lv-axis", title, select));
      return select;
    });
    this.tables = TABLE_GROUPS.map((group) => {
      const table = new Table();
      table.scroller.dataset.group = group;
      return { group, table, title: el("h3") };
    });
    this.tableTitle = el("h2");
    this.tableHint = el("p", "lv-question");
    this.files = TABLE_FILES.map((kind) => Object.assign(press("lv-quiet", () => download(kind)), { value: kind }));
    const rows = el("section", "lv-panel lv-rows", this.tableTitle, this.tableHint, ...this.tables.flatMap(({ title, table }) => [title, table.node]), el("div", "lv-files", ...this.files));
    const grid = el("div", "lv-grid", ...Object.values(this.curves).map((plot) => plot.node));
    this.node = el("div", "lv-results", grid, rows, this.pareto.node);
    this.node.hidden = true;
  }

  /**
   * @param {string} key
   * @param {Record<string, any>} [values]
   */
  text(key, values) {
    return this.frame.text(key, values);
  }

  label() {
    this.tableTitle.textContent = this.text("compare.table");
    this.tableHint.textContent = this.text("compare.table.hint");
    for (const { group, table, title } of this.tables) {
      title.textContent = this.text(`compare.group.${group}`);
      table.label(`${this.text("compare.table")}: ${title.textContent}`, this.text("table.scrolls"));
    }
    for (const button of this.files) button.textContent = `${this.text("compare.download")}: ${this.text(`compare.file.${button.value}`)}`;
    this.pareto.label(this.text("compare.pareto"), this.text("compare.pareto.hint"));
    for (const select of this.axes) select.previousSibling.textContent = `${this.text(`compare.axis.${select.dataset.axis}`)} `;
  }

  /** Everything anew, from a snapshot. @param {CompareSnapshot} message */
  take({ columns, words, figures, pareto, view, choose, axes }) {
    this.columns = columns;
    this.node.hidden = false;
    for (const [called, plot] of Object.entries(this.curves)) {
      plot.label(words.titles[called], words.questions[called]);
      plot.take(figures[called]);
    }
    this.pareto.take(pareto);
    this.choices(this.view, Object.entries(words.choices), view, choose);
    const offered = columns.filter((column) => column.better).map(({ name, head }) => [name, head]);
    this.axes.forEach((select, i) => this.choices(select, offered, axes[i], this.text(`compare.axis.${select.dataset.axis}`)));
  }

  /**
   * @param {HTMLSelectElement} select
   * @param {string[][]} options value and words
   * @param {string} value
   * @param {string} label
   */
  choices(select, options, value, label) {
    select.replaceChildren(...options.map(([key, text]) => Object.assign(el("option", "", text), { value: key })));
    select.value = value;
    select.setAttribute("aria-label", label);
  }

  /** What came since. @param {CompareNews} message */
  add({ ops, pareto }) {
    for (const [called, edits] of Object.entries(ops)) {
      applyOps(this.curves[called].figure, edits);
      this.curves[called].touch();
    }
    if (pareto) this.pareto.take(pareto);
  }

  /** The rows of the cards that have one. @param {Card[]} cards */
  rows(cards) {
    const done = cards.filter((card) => card.result?.row);
    const words = { yes: this.text("compare.yes"), none: this.text("compare.none"), best: this.text("compare.best") };
    /** @type {(row: Row, i: number) => Node | string} */
    const after = (row, i) => {
      const { link } = done[i].result;
      if (!link) return this.text("compare.no_link");
      const open = el("a", "", this.text("compare.open"));
      open.href = `${this.frame.config.pages.explore}?${QUERIES.link}=${link}`;
      return open;
    };
    /** @type {(row: Row, i: number) => (Node | string)[]} */
    const mark = (row, i) => [swatch(this.frame.config, done[i].place), " "];
    for (const { group, table } of this.tables) {
      const columns = this.columns.filter((column) => column.group === null || column.group === group);
      table.show(columns, done.map(({ result }) => ({ ...result.row, ...result.said })), words, group === "ran" ? { mark, after } : { mark });
    }
    for (const button of this.files) button.disabled = !done.length;
  }
}
