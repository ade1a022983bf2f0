// What was measured, beside the guess: texts, words a loop, curves, numbers; the same again as a table.

import { el } from "../core/dom.js";
import { LoopChart, axisOf } from "./loop_chart.js";

/** @import { LessonMeasure, LessonResult, MeasuredValue, LessonRun } from "../core/contract.js" */
/** @typedef {{ runs: Record<string, LessonRun>, measure: Record<string, LessonMeasure>, show?: string[] }} Part */
/** @typedef {import("./step_view.js").StepView} StepView */

/** @type {Record<string, string>} */
const RAISED = Object.fromEntries([..."-0123456789"].map((sign, i) => [sign, [..."⁻⁰¹²³⁴⁵⁶⁷⁸⁹"][i]]));

const [SMALL, LARGE] = [0.001, 1e6]; // below, and from there on, a number is written with a power of ten
const WHOLE = 999.5; // from there on a number of a table is written to its last digit before the point
const NEARLY_ALL = 99.5; // of a hundred: from there on it is not rounded to all

/** A number of so many digits that count. @param {number} value @param {number} digits */
function short(value, digits) {
  if (value && !(SMALL <= Math.abs(value) && Math.abs(value) < LARGE)) {
    const [number, power] = value.toExponential(1).split("e");
    return `${number} × 10${[...String(Number(power))].map((sign) => RAISED[sign]).join("")}`;
  }
  return String(Number(value.toPrecision(digits)));
}

/** Of a hundred: nearly all is not all, and hardly any is not none. @param {number} value */
function share(value) {
  if (NEARLY_ALL <= value && value < 100) return Math.min(value, 99.9).toFixed(1);
  return value >= 1 || !value ? value.toFixed(0) : short(value, 1);
}

/** A number as it is written, as `written` of loopviz/lessons/sentences.py. @param {string} shown @param {number} value */
export function written(shown, value) {
  if (shown === "loops") return value.toFixed(0);
  if (shown === "mean") return value.toFixed(1);
  if (shown === "share") return `${share(100 * value)} %`;
  if (shown === "bytes") return `${Number((value / 1000).toFixed(0)).toLocaleString("en")} kB`;
  if (shown === "table" && Math.abs(value) >= WHOLE) return Number(value.toFixed(0)).toLocaleString("en");
  return short(value, 3);
}

/**
 * What a measurement is called: its own words in the page's language, and of which run.
 * @param {StepView} view
 * @param {Part} part
 * @param {string} name
 */
function called(view, part, name) {
  const asked = part.measure[name];
  const what = asked.called ? view.said(asked.called) : view.text(`lesson.what.${asked.what}`, { loop: asked.loop ?? "", word: asked.word ?? "" });
  const run = part.runs[asked.run]?.called;
  const where = [asked.word && `“${asked.word}”`, asked.loop && view.text("lesson.loop", { n: asked.loop }), run && view.said(run)];
  return [what, ...where.filter(Boolean)].join(" · ");
}

/**
 * @param {StepView} view
 * @param {Part} part
 * @param {LessonResult} result
 * @param {string[]} without measurements that are shown elsewhere
 * @returns {HTMLElement[]}
 */
export function measuredNodes(view, part, result, without = []) {
  const names = (part.show ?? Object.keys(part.measure)).filter((name) => name in result.measured);
  const curves = names.filter((name) => result.measured[name].kind === "curve");
  const drawn = curves.filter((name) => !without.includes(name));
  /** @type {HTMLElement[]} */
  const nodes = names.filter((name) => result.measured[name].kind !== "curve").map((name) => entry(view, part, name, result.measured[name]));
  for (const same of grouped(drawn, (name) => part.measure[name].what)) nodes.push(chart(view, part, result, same));
  if (curves.length) nodes.push(table(view, part, result, curves));
  return nodes;
}

/** @param {string[]} names @param {(name: string) => string} by @returns {string[][]} */
function grouped(names, by) {
  /** @type {Map<string, string[]>} */
  const groups = new Map();
  for (const name of names) groups.set(by(name), [...(groups.get(by(name)) ?? []), name]);
  return [...groups.values()];
}

/**
 * @param {StepView} view
 * @param {Part} part
 * @param {string} name
 * @param {MeasuredValue} value
 */
function entry(view, part, name, value) {
  const title = el("dt", "", called(view, part, name));
  if (value.kind !== "words") return el("dl", "lv-found", title, el("dd", "", view.said(value.said)));
  /** @type {string[]} */
  const words = value.value;
  const cells = words.map((word, r) => el("li", r && word !== words[r - 1] ? "lv-turned" : "", el("small", "", String(r + 1)), word.replace(/\n/g, "↵") || "␣"));
  return el("dl", "lv-found", title, el("dd", "", el("ol", "lv-strip-words", ...cells)));
}

/**
 * @param {StepView} view
 * @param {Part} part
 * @param {LessonResult} result
 * @param {string[]} names
 */
function chart(view, part, result, names) {
  const values = names.map((name) => result.measured[name].value);
  const { colours, dashes } = view.page.frame.config;
  const words = {
    axis: view.text(`lesson.what.${part.measure[names[0]].what}`),
    loops: view.text("lesson.loops"),
    loop: (/** @type {number} */ n) => view.text("lesson.loop", { n }),
    yours: view.text("lesson.yours"),
    shown: (/** @type {number} */ value) => view.written(part, names[0], value),
  };
  const made = new LoopChart(axisOf(values), Math.max(...values.map((one) => one.length)), words);
  made.show(names.map((name, i) => ({ called: called(view, part, name), values: values[i], colour: colours[(i + 1) % colours.length], dash: dashes[i % dashes.length] })));
  return made.node;
}

/**
 * @param {StepView} view
 * @param {Part} part
 * @param {LessonResult} result
 * @param {string[]} names
 */
function table(view, part, result, names) {
  const heads = ["lesson.loops"].map((key) => view.text(key)).concat(names.map((name) => called(view, part, name)));
  const most = Math.max(...names.map((name) => result.measured[name].value.length));
  const rows = [...Array(most).keys()].map((r) =>
    el("tr", "", el("th", "", String(r + 1)), ...names.map((name) => cell(view, part, name, result.measured[name].value[r]))),
  );
  const made = el("table", "", el("thead", "", el("tr", "", ...heads.map((head) => el("th", "", head)))), el("tbody", "", ...rows));
  return el("details", "lv-numbers", el("summary", "", view.text("lesson.numbers")), el("div", "lv-table", made));
}

/** @param {StepView} view @param {Part} part @param {string} name @param {number | null | undefined} value */
function cell(view, part, name, value) {
  return el("td", "lv-number", value === null || value === undefined ? view.text("lesson.no_value") : view.written(part, name, value));
}
