// What a comparison found: curves, the table with its files, and any two columns of it against each other.

import { CURVES, QUERIES, RECORDED, TABLE_FILES, TABLE_GROUPS } from "../core/contract.js";
import { el, press } from "../core/dom.js";
import { applyOps } from "../core/messages.js";
import { Plot, Plots } from "../core/plot.js";
import { Table } from "../widgets/table.js";
import { swatch } from "./configuration_card.js";

/** @import { Compare, CompareConfig, CompareNews, CompareQuestions, CompareSnapshot, Row } from "../core/contract.js" */
/** @import { Frame } from "../core/page_head.js" */
/** @import { Card } from "./configuration_card.js" */
/** @typedef {typeof TABLE_FILES[number]} FileKind */
/** @typedef {{ place: number, news: Partial<import("../core/contract.js").CardNews> }} Found what one card has found */

export class Results {
  /** @type {CompareSnapshot["columns"]} of the table */
  columns = [];
  /** @type {string | null} the comparison shown */
  run = null;
  /** @type {"" | typeof RECORDED | "old" | "own"} what it is: none yet, the one that comes along, one of other settings, that of the cards */
  kind = "";
  /** @type {{ view: string, axes: string[] } | null} as it is drawn */
  chosen = null;
  /** @type {string} of which model it is */
  model = "";
  /** @type {string} what the models were held in, in words */
  held = "";
  /** @type {boolean} whether every column is in sight */
  all = false;
  /** @type {Found[]} what its rows are made of */
  found = [];

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
      const node = el("div", "lv-group");
      node.dataset.group = group;
      return { group, table, node, title: el("h3") };
    });
    this.tableTitle = el("h2");
    this.tableHint = el("p", "lv-question");
    this.files = TABLE_FILES.map((kind) => Object.assign(press("lv-quiet", () => download(kind)), { value: kind }));
    this.every = press("lv-quiet lv-every", () => this.toggle());
    this.every.setAttribute("aria-pressed", "false");
    this.verdict = el("p", "lv-verdict");
    this.verdict.setAttribute("role", "status");
    this.badge = el("span", "lv-badge");
    this.note = el("p", "lv-question");
    const said = el("section", "lv-card lv-found", el("div", "lv-found-head", this.badge, this.verdict), this.note);
    const tables = el("div", "lv-tables", ...this.tables.map(({ title, table, node }) => (node.append(title, table.node), node)));
    const head = el("div", "lv-panel-head", el("div", "", this.tableTitle, this.tableHint), this.every);
    const rows = el("section", "lv-panel lv-rows", head, tables, el("div", "lv-files", ...this.files));
    this.grid = el("div", "lv-grid", ...Object.values(this.curves).map((plot) => plot.node));
    this.node = el("div", "lv-results", said, el("div", "lv-finding", this.pareto.node, rows));
    this.node.hidden = this.grid.hidden = true;
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
    this.every.textContent = this.text("compare.all_columns");
    this.says();
    for (const select of this.axes) select.previousSibling.textContent = `${this.text(`compare.axis.${select.dataset.axis}`)} `;
  }

  /** One is on its way, or none: its place is kept. @param {boolean} coming */
  expect(coming) {
    if (this.run) return;
    this.node.hidden = !coming;
    this.says();
  }

  /** What is set up has changed: what is shown is of other settings now. */
  age() {
    if (this.kind === "own") this.kind = "old";
    this.says();
  }

  /** Which comparison is shown. */
  says() {
    const { kind } = this;
    this.node.dataset.kind = kind;
    this.badge.hidden = kind !== RECORDED && kind !== "old";
    this.badge.textContent = this.badge.hidden ? "" : this.text(`compare.${kind}`);
    const whose = this.badge.hidden ? "" : this.text(`compare.${kind}.hint`, { model: this.model });
    this.note.textContent = [this.text("compare.verdict.one_text"), this.held, whose].filter(Boolean).join(" ");
    if (!this.verdict.dataset.said) this.verdict.textContent = this.text("compare.verdict.waits");
  }

  /** @param {string} verdict */
  say(verdict) {
    this.verdict.dataset.said = verdict ? "1" : "";
    this.verdict.textContent = verdict || this.text("compare.verdict.waits");
  }

  /** All columns, or those that a glance needs. */
  toggle() {
    this.all = !this.all;
    this.every.setAttribute("aria-pressed", String(this.all));
    this.rows(this.found);
  }

  /**
   * Everything anew, from a snapshot.
   * @param {CompareSnapshot} message
   * @param {Results["kind"]} kind
   */
  take({ run, model, columns, words, figures, pareto, view, choose, axes, verdict, held }, kind) {
    Object.assign(this, { run, kind, model, held, chosen: { view, axes } });
    this.say(verdict);
    this.says();
    this.columns = columns;
    this.node.hidden = this.grid.hidden = false;
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
  add({ ops, pareto, verdict }) {
    if (verdict !== undefined) this.say(verdict);
    for (const [called, edits] of Object.entries(ops)) {
      applyOps(this.curves[called].figure, edits);
      this.curves[called].touch();
    }
    if (pareto) this.pareto.take(pareto);
  }

  /** The rows of the cards that have one, or several. @param {Found[]} found */
  rows(found) {
    this.found = found;
    /** @type {{ row: Row, place: number, link: string | null, state?: boolean }[]} */
    const done = found.flatMap(({ place, news }) =>
      news.rows ? news.rows.map((row) => ({ row, place, link: /** @type {string | null} */ (null) })) : news.row ? [{ row: { ...news.row, ...news.said }, place, link: news.link, state: news.row.memory === "state" }] : [],
    );
    const words = { yes: this.text("compare.yes"), none: this.text("compare.none"), best: this.text("compare.best") };
    /** @type {(row: Row, i: number) => Node | string} */
    const after = (row, i) => {
      const { link, state } = done[i];
      if (state) return Object.assign(el("a", "", this.text("compare.ttt.page")), { target: "_blank", href: this.frame.config.pages.ttt });
      if (!link) return row.swept ? "" : this.text("compare.no_link");
      const open = Object.assign(el("a", "", this.text("compare.open")), { target: "_blank" }); // the comparison stays
      open.href = `${this.frame.config.pages.explore}?${QUERIES.link}=${link}`;
      return open;
    };
    /** @type {(row: Row, i: number) => (Node | string)[]} */
    const mark = (row, i) => [swatch(this.frame.config, done[i].place), " "];
    for (const { group, table, node } of this.tables) {
      const columns = this.columns.filter((column) => column.group === null || (column.group === group && (this.all || column.first)));
      node.hidden = columns.length < 2;
      table.show(columns, done.map(({ row }) => row), words, group === "ran" ? { mark, after } : { mark });
    }
    for (const button of this.files) button.disabled = !done.length;
  }
}
