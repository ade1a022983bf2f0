// The form of a task: its parameters as fields, in the sizes it is offered in. Knows no task by name.

import { el, press, textOr } from "../core/dom.js";
import { Field } from "../widgets/form.js";

const WIDE = new Set(["long", "line"]);
const CUT = 20_000; // characters of a text by which is told how long it would take
const ESTIMATE_MS = 400; // after the last change
const LOOP_EXAMPLE = '{"loop_count": 4, "loop_damping": 0.5}';

/** @import { LabConfig, LabModel, LabQuestions, LabTask, Measure, Sized, TaskField } from "../core/contract.js" */
/** @import { Frame } from "../core/page_head.js" */

export class TaskForm {
  /** @type {LabTask | null} the one that is chosen */
  task = null;
  /** @type {Map<string, Field<TaskField>>} its parameters */
  fields = new Map();
  /** @type {Record<string, Record<string, any>>} by task, what the visitor changed */
  filled = {};
  /** @type {number | undefined} tokens that the model can read at once */
  context = undefined;
  /** @type {Record<string, any>} the model's own loop */
  loop = {};
  /** @type {boolean} whether the model is there */
  ready = false;
  /** @type {Sized[]} what the sizes come to with this model here */
  told = [];
  /** @type {number | undefined} until that is asked for */
  asking = undefined;

  /**
   * @param {Frame<LabConfig, LabQuestions, Measure>} frame
   * @param {() => { model: string, precision: string }} chosen the model, and what it is to be held in
   * @param {() => void} measure with the parameters as they stand
   */
  constructor(frame, chosen, measure) {
    this.frame = frame;
    this.chosen = chosen;
    this.measure = measure;
    this.node = el("div", "lv-form lv-params");
    this.more = el("div", "lv-form lv-params"); // of a task offered in sizes: what these decide
    this.moreTitle = el("summary");
    this.details = el("details", "", this.moreTitle, this.more);
    this.sizes = el("span", "lv-buttons-row lv-sizes");
    this.whole = el("div", "lv-form lv-params"); // what a task asks for
    this.node.append(this.whole);
    this.story = el("span", "lv-story");
    this.mine = press("lv-quiet", () => this.useOwn());
  }

  /** What the visitor changed of the task's parameters. */
  get own() {
    return this.filled[this.task.name];
  }

  /** @param {LabTask} task */
  choose(task) {
    this.task = task;
    this.filled[task.name] ??= {};
    this.fields = new Map(task.fields.map((described) => [described.name, this.field(described)]));
    const inSight = task.fields.filter(({ name, kind }) => !this.sized || task.asks.includes(name) || (kind === "long" && name === "text")).map(({ name }) => name);
    /** @param {boolean} wanted */
    const nodes = (wanted) => [...this.fields].filter(([name]) => inSight.includes(name) === wanted).map(([, field]) => field.node);
    this.whole.replaceChildren(...nodes(true).reverse()); // what is asked first, the text, which is long, last
    this.more.replaceChildren(...nodes(false));
    this.fields.get("text")?.node.append(el("span", "lv-own-text", this.story, this.mine));
    this.details.hidden = !this.sized;
    this.sizes.replaceChildren(...task.sizes.map((_, i) => press(i ? "lv-halt" : "lv-go", () => this.measureAs(i))));
    this.told = [];
    this.suit();
  }

  /** Whether the task is offered in sizes. */
  get sized() {
    return Boolean(this.task?.sizes.length);
  }

  /** An empty place for a text of the visitor's own; a file of his stands among the rest. */
  useOwn() {
    const field = this.fields.get("text");
    field.input.value = this.own.text = "";
    this.details.open = this.task.fields.some(({ kind }) => kind === "file");
    field.input.focus();
    this.tell();
  }

  /** Of which story the text is, or that it is the visitor's own. */
  tell() {
    const field = this.fields.get("text");
    if (!field) return;
    const sample = this.sample();
    const ours = Boolean(sample) && field.value === sample;
    this.story.textContent = ours ? this.frame.text("lab.story", { beginning: sample.trim().split(/\s+/).slice(0, 6).join(" ") }) : "";
    this.mine.textContent = this.frame.text("lab.own_text");
    this.mine.hidden = !ours;
  }

  /** What the sizes take here, asked for soon: they wait for the model, and follow what is filled in. */
  estimate() {
    clearTimeout(this.asking);
    if (!this.ready || !this.sized) return;
    this.asking = setTimeout(async () => {
      const { task } = this;
      const { values, cut } = this.beginnings();
      const { model, precision } = this.chosen();
      const asked = { lang: this.frame.lang, model, precision, task: task.name, values, cut };
      const answer = await this.frame.ask("sizes", asked);
      const now = this.chosen();
      if (answer?.kind !== "sizes" || this.task !== task || asked.lang !== this.frame.lang || model !== now.model || precision !== now.precision) return;
      this.told = answer.sizes;
      this.name();
    }, ESTIMATE_MS);
  }

  /** What is filled in, of long texts only the beginning: enough to tell how long it takes. */
  beginnings() {
    /** @type {Measure["values"]} */
    const values = {};
    let cut = false;
    for (const [name, field] of this.fields) {
      const { value } = field;
      const isFile = field.control.kind === "file";
      const text = isFile ? value?.text : field.control.kind === "long" ? value : null;
      if (typeof text === "string" && text.length > CUT) cut = true;
      values[name] = typeof text === "string" ? (isFile ? { name: value.name, text: text.slice(0, CUT) } : text.slice(0, CUT)) : value;
    }
    return { values, cut };
  }

  /** The sizes' buttons: what each is called, and about how long it takes. */
  name() {
    const { lang } = this.frame;
    this.task?.sizes.forEach(({ words, values }, i) => {
      const button = this.buttons[i];
      const time = this.told[i]?.text;
      button.textContent = time ? this.frame.text("lab.size", { size: words[lang], time }) : words[lang];
      const set = Object.entries(this.told[i]?.values ?? values).map(([name, value]) => `${name} ${value}`).join(", ");
      button.title = this.frame.text("lab.size.hint", { values: set });
      button.dataset.time = time ?? "";
    });
  }

  /** @param {TaskField} described */
  field(described) {
    const { name } = described;
    const filled = this.own;
    const field = new Field(described, (value) => {
      filled[name] = value;
      this.suit();
      this.inform(field);
      this.estimate();
    });
    if (described.kind === "file") field.file = filled[name] ?? null;
    else field.value = filled[name] ?? this.usual(described);
    if (WIDE.has(described.kind)) field.node.classList.add("lv-field-wide");
    return field;
  }

  /** The text our page offers for the model; of a form without one, or when a file was chosen instead, "". */
  sample() {
    const { samples } = this.frame.config;
    const chosen = [...this.fields.values()].some((field) => field.control.kind === "file" && field.file);
    return chosen ? "" : samples.texts[samples.of[this.chosen().model] ?? samples.of[""]];
  }

  /** What the visitor left as it was suits the model: a text of the kind it knows, windows no longer than it can read. */
  suit() {
    if (!this.task) return;
    const filled = this.own;
    /** @type {(part: number) => (value: any) => any} */
    const within = (part) => (value) => Math.min(value, Math.floor((this.context ?? Infinity) * part));
    /** @type {Record<string, (value: any) => any>} */
    const suits = { text: () => this.sample(), window: within(1), prompt_tokens: within(1 / 4), new_tokens: within(1 / 2) };
    for (const [key, suited] of Object.entries(suits)) {
      const field = this.fields.get(key);
      if (field && filled[key] === undefined) field.value = suited(field.control.value);
    }
    this.tell();
    this.estimate();
  }

  /** Whether there is a text to measure on, where one is wanted. */
  get worded() {
    const text = this.fields.get("text");
    return !text || text.value.trim() !== "" || [...this.fields.values()].some((field) => field.control.kind === "file" && field.file);
  }

  /** The model is there: what it brings. @param {LabModel} model */
  bring({ context, loop, state }) {
    this.ready = state === "ready";
    this.context = context;
    this.loop = loop ?? {};
    this.suit();
    if (!this.task) return;
    for (const [name, field] of this.fields) {
      const { loop: looping, value } = field.control;
      if (looping && value !== null && this.own[name] === undefined) field.value = this.usual(field.control);
    }
  }

  /** What a field holds until the visitor fills it: of loop settings that he left as they were, the model's own. @param {TaskField} field */
  usual({ loop, value }) {
    const own = this.loop;
    return loop && value !== null && Object.keys(own).length ? JSON.stringify({ ...own, ...JSON.parse(String(value)) }) : value;
  }

  /** Measure as much as a size says: its parameters are filled in, and stay to be read and changed. @param {number} i */
  measureAs(i) {
    const values = this.told[i]?.values ?? this.task.sizes[i].values;
    for (const [name, value] of Object.entries(values)) this.fields.get(name).value = this.own[name] = value;
    this.measure();
  }

  /** What is filled in, by parameter. */
  values() {
    /** @type {Measure["values"]} */
    const values = {};
    for (const [name, field] of this.fields) {
      const { value } = field;
      values[name] = field.control.kind === "file" && value ? { name: value.name, data: value.data } : value;
    }
    return values;
  }

  /** Words in the page's language. */
  label() {
    this.moreTitle.textContent = this.frame.text("lab.params");
    if (!this.task) return;
    for (const field of this.fields.values()) this.inform(field);
    this.tell();
    this.told = this.told.map(({ values }) => ({ values, text: "" }));
    this.name();
    this.estimate();
  }

  /** The sizes, to be pressed. */
  get buttons() {
    return /** @type {HTMLButtonElement[]} */ ([...this.sizes.children]);
  }

  /** A parameter's words; of a file, which was chosen. @param {Field<TaskField>} field */
  inform(field) {
    const { control, file } = field;
    field.label(control.titles[this.frame.lang], (choice) => textOr(this.frame.texts, `choice.${choice}`, choice));
    let info = control.words[this.frame.lang];
    if (control.json) info += ` ${this.frame.text("field.loop.hint", { empty: "{}", example: LOOP_EXAMPLE })}`;
    if (control.kind === "file" && file) {
      const values = { name: file.name, n: file.fits ? file.text.length : file.size, limit: control.limit };
      info += ` ${this.frame.text(file.fits ? "lab.chosen" : "lab.too_long", values)}`;
    }
    if ("low" in control) info += ` ${this.frame.text("bounds.from_to", { low: control.low.toLocaleString("en"), high: control.high.toLocaleString("en") })}`;
    if (control.choices && control.kind !== "choice") info += ` (${control.choices.join(", ")})`;
    field.show({ info, bad: Boolean(file && !file.fits) });
  }

  /**
   * A parameter the server refused: it is said beside it too, until it is changed or measured again.
   * @param {string | undefined} name
   * @param {string} reason
   */
  refuse(name, reason) {
    const field = this.fields.get(name);
    if (!field) return;
    field.show({ info: reason, bad: true });
    if (this.more.contains(field.node)) this.details.open = true;
    field.node.scrollIntoView({ block: "nearest" });
  }
}
