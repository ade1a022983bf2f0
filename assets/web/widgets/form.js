// Fields of a form from plain descriptions: `{name, kind, low, high, step, choices, value, limit}`; words come from the page.
// Kinds: whole, number, choice, flag, name and line (a line of text), long (a text), file (a text file, as {name, data}: its bytes in base64).

import { el } from "../core/dom.js";

const base64 = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

/** One field. `changed(value)` is told what the visitor chose; a number that is none is told as it stands, for the server to refuse. */
export class Field {
  constructor(control, changed) {
    this.control = control;
    this.input = this.make(control);
    this.title = el("span", "lv-field-title");
    this.info = el("span", "lv-field-info");
    this.node = el("label", "lv-field", this.title, this.input, this.info);
    this.node.dataset.field = control.name;
    if (control.kind === "flag") this.node.classList.add("lv-field-flag");
    this.file = null;
    this.input.addEventListener(control.kind === "long" ? "input" : "change", async () => {
      if (control.kind === "file") await this.read();
      changed(this.value);
    });
  }

  make({ kind, low, high, step, choices }) {
    if (kind === "choice") return el("select", "lv-input", ...choices.map((choice) => Object.assign(el("option"), { value: choice })));
    if (kind === "long") return Object.assign(el("textarea", "lv-input"), { rows: 3 });
    const input = el("input", "lv-input");
    if (kind === "flag") input.type = "checkbox";
    else if (kind === "file") input.type = "file";
    else if (kind === "whole" || kind === "number") {
      input.type = "number";
      Object.assign(input, { min: low ?? "", max: high ?? "", step: kind === "whole" ? 1 : step ?? "any" });
    } else input.type = "text";
    return input;
  }

  /** A chosen file: its bytes, which the server reads as it reads every text file, and its text, to count; one too long is not read. */
  async read() {
    const [chosen] = this.input.files;
    this.file = null;
    if (!chosen) return;
    const fits = chosen.size <= 4 * this.control.limit; // bytes; the server counts characters
    this.file = { name: chosen.name, text: fits ? await chosen.text() : "", data: fits ? await base64(chosen) : "", size: chosen.size, fits };
  }

  get value() {
    const { kind } = this.control;
    if (kind === "file") return this.file;
    if (kind === "flag") return this.input.checked;
    if (kind === "whole" || kind === "number") return this.input.value.trim() === "" ? null : Number(this.input.value);
    return this.input.value;
  }

  set value(value) {
    if (this.control.kind === "file") return;
    if (this.control.kind === "flag") this.input.checked = Boolean(value);
    else if (document.activeElement !== this.input) this.input.value = value ?? "";
  }

  /** Put words in place: the title, and for a choice what each is called. */
  label(title, called = (choice) => choice) {
    this.title.textContent = title;
    if (this.control.kind === "choice") for (const option of this.input.options) option.textContent = called(option.value);
  }

  /** How it stands: the line under it, whether it applies, whether it is refused. */
  show({ info, on = true, bad = false }) {
    this.info.textContent = info;
    this.input.disabled = !on;
    this.node.classList.toggle("lv-field-off", !on);
    this.node.classList.toggle("lv-field-bad", bad);
  }
}
