// A table of results: columns with heading, unit and explanation, rows as they come. Numbers are shown short.

import { el } from "../core/dom.js";

/** @import { Column, CompareColumn, Row } from "../core/contract.js" */
/** @typedef {Column & Partial<CompareColumn>} Shown a column; of some it is known which way is better */

/** @type {[string, number][]} */
const UNITS = [
  ["TB", 1e12],
  ["GB", 1e9],
  ["MB", 1e6],
  ["kB", 1e3],
];

/** A number to about four digits, the way its unit is read. @param {number} value */
export function short(value, unit = "") {
  if (unit === "bytes") {
    const found = UNITS.find(([, size]) => Math.abs(value) >= size);
    return found ? `${Number((value / found[1]).toPrecision(4))} ${found[0]}` : `${Math.round(value)} B`;
  }
  if (unit === "share") return `${Number((100 * value).toPrecision(3))} %`;
  if (Number.isInteger(value)) return value.toLocaleString("en-US").replace(/,/g, "\u202f");
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

/**
 * What a cell shows.
 * @param {unknown} value
 * @param {string} unit
 * @param {Record<string, string>} words the page's, for yes and for nothing
 */
function cell(value, unit, words) {
  if (value === null || value === undefined || value === "") return words.none;
  if (typeof value === "boolean") return value ? words.yes : "";
  return typeof value === "number" ? short(value, unit) : String(value);
}

const SHOWN = 5e-4; // as a share: what `short` does not show is no difference either

/**
 * Which values of a column are best: those that differ from the best one by noise alone; none when all do.
 * @param {unknown[]} values
 * @param {Partial<Shown>} column
 * @returns {boolean[]}
 */
export function best(values, { better, noise = [0, 0] }) {
  const numbers = values.filter((value) => typeof value === "number");
  if (!better || numbers.length < 2) return [];
  const first = better === "low" ? Math.min(...numbers) : Math.max(...numbers);
  const [absolute, share] = noise;
  /** @param {unknown} value */
  const near = (value) => typeof value === "number" && Math.abs(value - first) <= Math.max(absolute, Math.max(share, SHOWN) * Math.abs(first));
  return numbers.every(near) ? [] : values.map(near);
}

/** @typedef {{ mark?: (row: Row, i: number) => (Node | string)[], after?: (row: Row, i: number) => Node | string | null }} Cells nodes for the first cell, before its text; a last cell */

export class Table {
  constructor() {
    this.head = el("thead");
    this.body = el("tbody");
    this.scroller = el("div", "lv-table", el("table", "", this.head, this.body));
    this.scroller.setAttribute("role", "region");
    this.hint = el("p", "lv-scrolls");
    this.node = el("div", "lv-table-place", this.scroller, this.hint);
    this.scroller.addEventListener("scroll", () => this.measure());
    new ResizeObserver(() => this.measure()).observe(this.scroller);
  }

  /**
   * What the table is called, and what is said where it does not fit.
   * @param {string} called
   * @param {string} scrolls
   */
  label(called, scrolls) {
    this.scroller.setAttribute("aria-label", called);
    this.hint.textContent = scrolls;
  }

  /** Whether there is more to the right, said under the table; then it is reached by the keyboard too, to be scrolled. */
  measure() {
    const { scrollWidth, clientWidth, scrollLeft } = this.scroller;
    const wide = scrollWidth > clientWidth + 1;
    this.scroller.tabIndex = wide ? 0 : -1;
    this.hint.hidden = !wide || scrollLeft + clientWidth >= scrollWidth - 1;
  }

  /**
   * Show rows.
   * @param {Shown[]} columns
   * @param {Row[]} rows
   * @param {Record<string, string>} words for yes, for nothing, for what is best
   * @param {Cells} more
   */
  show(columns, rows, words, { mark = null, after = null } = {}) {
    const titles = columns.map(({ head, says, unit, called = unit }) => {
      const title = el("th", "", head);
      title.scope = "col";
      title.title = says;
      if (unit && unit !== "share" && unit !== "bytes" && !head.includes(called)) title.append(" ", el("small", "", called));
      return title;
    });
    if (after) titles.push(el("th", "lv-after"));
    this.head.replaceChildren(el("tr", "", ...titles));
    const bests = columns.map((column) => best(rows.map((row) => row[column.name]), column));
    this.body.replaceChildren(
      ...rows.map((row, i) => {
        const cells = columns.map(({ name, unit }, c) => {
          const value = row[name];
          const made = el(c ? "td" : "th", typeof value === "number" ? "lv-number" : "", ...(c || !mark ? [] : mark(row, i)), cell(value, unit, words));
          if (!c) made.scope = "row";
          if (bests[c][i]) {
            made.classList.add("lv-best");
            made.title = words.best;
          }
          if (typeof value === "number" && !made.title) made.title = String(value);
          return made;
        });
        if (after) cells.push(el("td", "lv-after", after(row, i)));
        return el("tr", "", ...cells);
      }),
    );
    this.measure();
  }
}
