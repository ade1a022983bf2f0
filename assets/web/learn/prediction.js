// What a visitor predicts: one of several answers, a number, a line, or which text is which. Each gives its guess, or null as long
// as there is none, and shows it beside what was measured.

import { el, press, shuffled } from "../core/dom.js";
import { LoopChart } from "./loop_chart.js";

/** @import { BlindPrediction, ChoicePrediction, Judged, LessonResult, LessonStep, LinePrediction, NumberPrediction } from "../core/contract.js" */
/** @typedef {import("./step_view.js").StepView} StepView */
/** @typedef {{ node: HTMLElement, guess: any, restore(guess: any): void, label(): void, close(): void, show(result: LessonResult, judged: Judged): void }} Prediction */

/**
 * Answers to choose one of: a fieldset of radio buttons.
 * @param {StepView} view
 * @param {string} legend
 */
function radios(view, legend) {
  const group = `lv-guess-${view.step.id}`;
  const node = el("fieldset", "lv-guess", el("legend", "", legend));
  /** @type {{ input: HTMLInputElement, words: HTMLElement, mark: HTMLElement, node: HTMLElement }[]} */
  const entries = [];
  return {
    node,
    entries,
    /** @param {string} value @param {(Node | string)[]} words */
    add(value, ...words) {
      const input = Object.assign(el("input"), { type: "radio", name: group, value });
      input.addEventListener("change", () => view.guessed());
      const said = el("span", "", ...words);
      const mark = el("span", "lv-mark");
      const entry = { input, words: said, mark, node: el("label", "lv-choice-entry", input, said, mark) };
      entries.push(entry);
      node.append(entry.node);
      return entry;
    },
    get chosen() {
      return entries.findIndex(({ input }) => input.checked);
    },
    close() {
      for (const { input } of entries) input.disabled = true;
    },
    /** Tick what is right, cross what was guessed and is not; where nothing is right, neither. @param {number | null} right */
    judge(right) {
      entries.forEach(({ node: entry, input, mark }, i) => {
        const how = right === null ? "" : i === right ? (input.checked ? "right" : "was_right") : input.checked ? "wrong" : "";
        entry.dataset.judged = how;
        mark.textContent = how ? `${how === "wrong" ? "✗" : "✓"} ${view.text(`lesson.${how}`)}` : "";
      });
    },
  };
}

/** @implements {Prediction} */
class ChoiceGuess {
  /** @param {StepView} view @param {ChoicePrediction} predict */
  constructor(view, predict) {
    this.view = view;
    this.predict = predict;
    this.radios = radios(view, "");
    predict.choices.forEach((_, i) => this.radios.add(String(i)));
    this.node = this.radios.node;
  }

  label() {
    this.node.firstElementChild.textContent = this.view.text("lesson.guess.choice");
    this.radios.entries.forEach(({ words }, i) => (words.textContent = this.view.said(this.predict.choices[i].text)));
  }

  get guess() {
    return this.radios.chosen < 0 ? null : this.radios.chosen;
  }

  /** @param {any} guess */
  restore(guess) {
    const entry = this.radios.entries[guess];
    if (entry) entry.input.checked = true;
  }

  close() {
    this.radios.close();
  }

  /** @param {LessonResult} _ @param {Judged} judged */
  show(_, judged) {
    this.radios.judge(judged.choice);
  }
}

/** @implements {Prediction} */
class NumberGuess {
  /** @param {StepView} view @param {NumberPrediction} predict */
  constructor(view, predict) {
    this.view = view;
    this.predict = predict;
    const { low, high, step } = predict;
    this.input = Object.assign(el("input", "lv-input"), { type: "number", min: low, max: high, step });
    this.input.addEventListener("input", () => view.guessed());
    this.title = el("span", "lv-field-title");
    this.found = el("p", "lv-number-found");
    this.node = el("div", "lv-guess", el("label", "lv-field", this.title, this.input), this.found);
  }

  label() {
    const { low, high, unit } = this.predict;
    this.title.textContent = this.view.text("lesson.guess.number", { low, high, unit: this.view.said(unit) });
  }

  get guess() {
    const value = this.input.value.trim() === "" ? NaN : Number(this.input.value);
    return Number.isFinite(value) && value >= this.predict.low && value <= this.predict.high ? value : null;
  }

  /** @param {any} guess */
  restore(guess) {
    if (typeof guess === "number") this.input.value = String(guess);
  }

  close() {
    this.input.disabled = true;
  }

  /** @param {LessonResult} _ @param {Judged} judged */
  show(_, judged) {
    const words = this.view.text("lesson.measured");
    this.found.textContent = `${words}: ${this.view.said(judged.measured)} · ${this.view.text("lesson.yours")}: ${this.view.said(judged.guess) || this.view.text("lesson.no_value")}`;
  }
}

/** @implements {Prediction} */
class LineGuess {
  /** @type {boolean} whether anything was drawn */
  touched = false;

  /** @param {StepView} view @param {LinePrediction} predict */
  constructor(view, predict) {
    this.view = view;
    this.predict = predict;
    this.hint = el("p", "lv-question");
    this.flat = press("lv-quiet", () => this.again());
    this.title = el("legend");
    this.chart = new LoopChart(predict, predict.loops, this.words(), () => {
      this.touched = true;
      view.guessed();
    });
    this.node = el("fieldset", "lv-guess lv-guess-line", this.title, this.hint, this.chart.node, this.flat);
    this.chart.ask();
  }

  words() {
    const { view, predict } = this;
    return {
      axis: view.said(predict.axis),
      loops: view.text("lesson.loops"),
      loop: (/** @type {number} */ n) => view.text("lesson.loop", { n }),
      yours: view.text("lesson.yours"),
      shown: (/** @type {number} */ value) => view.written(view.step, predict.of, value),
    };
  }

  label() {
    this.title.textContent = this.view.text("lesson.guess.line");
    this.hint.textContent = this.view.text("lesson.guess.line.hint");
    this.flat.textContent = this.view.text("lesson.guess.line.flat");
    this.chart.words = this.words();
    this.chart.draw();
  }

  again() {
    this.chart.ask();
    this.touched = false;
    this.view.guessed();
  }

  get guess() {
    return this.touched ? this.chart.line : null;
  }

  /** @param {any} guess */
  restore(guess) {
    if (!Array.isArray(guess) || guess.length !== this.predict.loops) return;
    this.chart.line = guess;
    this.touched = true;
    this.chart.draw();
  }

  close() {
    this.flat.hidden = this.hint.hidden = true;
    this.chart.open = false;
    this.chart.draw();
  }

  /** @param {LessonResult} result */
  show(result) {
    const found = result.measured[this.predict.of];
    if (found) this.chart.show([{ called: this.view.text("lesson.measured"), values: found.value, colour: "var(--lv-accent)", dash: "solid" }]);
  }
}

/** @implements {Prediction} */
class BlindGuess {
  /** @type {string[]} the runs in the order they are shown in */
  order = [];

  /** @param {StepView} view @param {BlindPrediction} predict */
  constructor(view, predict) {
    this.view = view;
    this.predict = predict;
    this.order = shuffled([...predict.runs]);
    this.hint = el("p", "lv-question");
    this.radios = radios(view, "");
    this.letters = this.order.map((run) => this.radios.add(run, el("b"), el("span", "lv-blind-text")));
    this.radios.node.hidden = true;
    this.node = el("div", "lv-guess-blind", this.hint, this.radios.node);
  }

  label() {
    this.hint.textContent = this.view.text("lesson.guess.blind.first");
    this.radios.node.firstElementChild.textContent = this.view.text("lesson.guess.blind");
    this.letters.forEach(({ words }, i) => (words.firstElementChild.textContent = this.letter(i)));
  }

  /** What a text is called before its run is. @param {number} i */
  letter(i) {
    return this.view.text("lesson.letter", { letter: "ABCDEF"[i] });
  }

  /** The texts are there. @param {Record<string, string>} texts */
  texts(texts) {
    this.radios.node.hidden = false;
    this.hint.hidden = true;
    this.letters.forEach(({ words }, i) => (words.lastElementChild.textContent = (texts[this.order[i]] ?? "").trim()));
  }

  /** The texts are none any more: they are written again. */
  forget() {
    this.radios.node.hidden = true;
    this.hint.hidden = false;
  }

  get guess() {
    return this.radios.chosen < 0 ? null : this.order[this.radios.chosen];
  }

  /** @param {any} guess */
  restore(guess) {
    const entry = this.letters[this.order.indexOf(guess)];
    if (entry) entry.input.checked = true;
  }

  close() {
    this.radios.close();
  }

  /** @param {LessonResult} result */
  show(result) {
    this.texts(result.texts);
    this.radios.judge(this.order.indexOf(this.predict.find));
    this.letters.forEach(({ words }, i) => {
      const called = this.view.step.runs[this.order[i]]?.called;
      words.firstElementChild.textContent = called ? `${this.letter(i)}: ${this.view.said(called)}` : this.letter(i);
    });
  }
}

const KINDS = { choice: ChoiceGuess, number: NumberGuess, line: LineGuess, blind: BlindGuess };

/**
 * What asks for a step's guess.
 * @param {StepView} view
 * @returns {Prediction}
 */
export const predictionOf = (view) => new (/** @type {any} */ (KINDS[view.step.predict.kind]))(view, view.step.predict);
