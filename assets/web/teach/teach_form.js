// What a teaching is asked for with: model, text (typed, or from a file), fixed prompt, the numbers of the recipe.

import { el, press } from "../core/dom.js";
import { Field } from "../widgets/form.js";

const IN_SIGHT = ["first", "last", "least", "most", "steps", "lr"]; // the others stand under "More settings"

/** @import { TeachField, TeachModel } from "../core/contract.js" */

export class TeachForm {
  /** @type {Set<string>} numbers, and the prompt, that the visitor changed */
  own = new Set();
  /** @type {TeachModel | null} the model, once it is there */
  known = null;
  /** @type {boolean} whether the text is one of ours */
  ours = true;
  /** @type {{ name: string, n: number } | null} the file that was opened, and its characters */
  file = null;

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    const { config } = page.frame;
    this.intro = el("p", "lv-teach-intro");
    this.model = new Field({ name: "model", kind: "name" }, () => this.choose());
    const names = el("datalist", "", ...config.models.map((called) => Object.assign(el("option"), { value: called })));
    names.id = "lv-models";
    this.model.input.setAttribute("list", names.id);
    this.model.value = config.models[0];
    this.modelLine = el("span", "lv-model");
    this.modelLine.setAttribute("role", "status");
    this.model.node.append(this.modelLine, names);
    this.text = new Field({ name: "text", kind: "long" }, () => (this.ours = false));
    this.text.input.setAttribute("rows", "6");
    this.kind = new Field({ name: "kind", kind: "choice", choices: config.kinds }, () => this.label());
    this.kind.value = config.kinds[0];
    this.template = new Field({ name: "template", kind: "choice", choices: config.prompt_templates }, () => {});
    this.template.value = config.prompt_templates[0];
    this.open = press("lv-quiet", () => this.input.click());
    this.opened = el("span", "lv-question");
    this.input = el("input");
    Object.assign(this.input, { type: "file", accept: ".txt,.md,.jsonl,.json,text/plain", hidden: true });
    this.input.addEventListener("change", () => {
      const [file] = this.input.files;
      if (file) this.take(file).finally(() => (this.input.value = ""));
    });
    this.prompt = new Field({ name: "prompt", kind: "line" }, () => this.own.add("prompt"));
    /** @type {Map<string, Field<TeachField>>} */
    this.numbers = new Map(config.fields.map((field) => [field.name, new Field(field, () => this.own.add(field.name))]));
    for (const [, field] of this.numbers) field.value = field.control.value;
    /** @param {boolean} seen */
    const nodes = (seen) => [...this.numbers].filter(([name]) => IN_SIGHT.includes(name) === seen).map(([, { node }]) => node);
    this.moreTitle = el("summary");
    this.more = el("details", "", this.moreTitle, el("div", "lv-form", ...nodes(false)));
    const source = el("div", "lv-teach-source", this.open, this.input, this.opened);
    const first = el("div", "lv-form", this.model.node, this.prompt.node, this.kind.node, this.template.node);
    this.node = el("div", "lv-teach-form", this.intro, first, this.text.node, source, el("div", "lv-form", ...nodes(true)), this.more);
    this.sample();
  }

  /** Every field, by its name. @returns {Map<string, Field<any>>} */
  get fields() {
    /** @type {[string, Field<any>][]} */
    const others = [this.model, this.text, this.kind, this.template, this.prompt].map((field) => [field.control.name, field]);
    return new Map([...others, .../** @type {Map<string, Field<any>>} */ (this.numbers)]);
  }

  choose() {
    this.known = null;
    this.sample();
    this.page.follow();
  }

  /** A text and a prompt of ours, of the kind that the model knows, until there are the visitor's. */
  sample() {
    const { samples, prompts } = this.page.frame.config;
    if (!this.own.has("prompt")) this.prompt.value = prompts[this.model.value] ?? prompts[""];
    if (this.ours) this.text.value = samples.texts[samples.of[this.model.value] ?? samples.of[""]];
  }

  /** The model is there: of what the visitor left as it was, what suits it. @param {TeachModel} answer */
  bring(answer) {
    if (answer.state !== "ready" || !answer.usual) return;
    this.known = answer;
    for (const [name, value] of Object.entries(answer.usual)) if (!this.own.has(name)) this.numbers.get(name).value = value;
    this.label();
  }

  /** A file's text in place of what stands there. @param {File} file */
  async take(file) {
    const { page } = this;
    const { limit, kinds } = page.frame.config;
    let text = "";
    try {
      const data = file.size > 4 * limit ? new ArrayBuffer(0) : await file.arrayBuffer();
      const [a, b] = new Uint8Array(data); // UTF-16 where its signature says so, as `loopviz/text_file.py` reads files
      const coded = a === 0xff && b === 0xfe ? "utf-16le" : a === 0xfe && b === 0xff ? "utf-16be" : "utf-8";
      text = new TextDecoder(coded, { fatal: true }).decode(data);
    } catch {
      return this.refuse("text", page.text("teach.file.coded", { name: file.name }));
    }
    const n = text.length || file.size;
    if (n > limit) return this.refuse("text", page.text("teach.file.large", { name: file.name, n, limit }));
    this.text.value = text;
    this.ours = false;
    this.kind.value = /\.jsonl?$/i.test(file.name) ? kinds[1] : kinds[0];
    this.file = { name: file.name, n };
    return this.label();
  }

  /** Whether it learns from prompts and responses, which are put in a template. */
  get prompted() {
    return this.kind.value === this.page.frame.config.kinds[1];
  }

  /** What is filled in. */
  values() {
    const { template } = this;
    /** @type {Record<string, any>} */
    const values = { kind: this.kind.value, template: this.prompted ? template.value : template.control.choices[0] };
    for (const [name, field] of this.numbers) values[name] = field.value;
    return values;
  }

  /** Words in the page's language; what was refused is not any more. */
  label() {
    const { page } = this;
    this.intro.textContent = page.text("teach.intro");
    this.model.label(page.text("model.label"));
    this.model.show({ info: page.text("model.info") });
    for (const field of [this.text, this.prompt, this.kind]) {
      field.label(page.text(`teach.${field.control.name}`), (choice) => page.text(`teach.kind.${choice}`));
      field.show({ info: page.text(`teach.${field.control.name}.info`) });
    }
    const called = (/** @type {string} */ choice) => page.text(choice === "own" ? "teach.template.own" : `template.${choice}`);
    this.template.label(page.text("teach.template"), called);
    this.template.show({ info: page.text("teach.template.info"), on: this.prompted });
    this.open.textContent = page.text("teach.file");
    this.opened.textContent = this.file ? page.text("teach.file.opened", this.file) : "";
    this.moreTitle.textContent = page.text("teach.more");
    const layers = this.known?.layers ?? null;
    for (const [name, field] of this.numbers) {
      const { low, high } = field.control;
      const ofModel = name === "first" || name === "last";
      let info = name === "last" && layers === null ? "" : page.text(`teach.${name}.info`, { layers, end: layers - 1 });
      if (!ofModel) info += ` ${page.text("teach.between", { low: low.toLocaleString("en", { maximumFractionDigits: 6 }), high: high.toLocaleString("en") })}`;
      field.label(page.text(`teach.${name}`));
      field.show({ info });
    }
  }

  /**
   * A refusal beside its field; none beside any.
   * @param {string} [name]
   * @param {string} [reason]
   */
  refuse(name, reason = "") {
    this.label();
    const field = this.fields.get(name);
    if (!field) return;
    field.show({ info: reason, bad: true });
    if (this.more.contains(field.node)) this.more.open = true;
    field.node.scrollIntoView({ block: "nearest" });
  }
}
