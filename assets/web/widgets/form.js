// Fields of a form from plain descriptions: `{name, kind, low, high, step, choices, value, limit}`; words come from the page.
// Kinds: whole, number, choice, flag, name and line (a line of text), long (a text), file (a text file, as {name, data}: its bytes in base64).

import { el } from "../core/dom.js";

/** @import { Face } from "../core/contract.js" */
/** @typedef {{ name: string, kind: string, low?: number, high?: number, step?: number, choices?: string[] | null, value?: any, limit?: number }} Described a field, as a page describes it */
/** @typedef {{ name: string, text: string, data: string, size: number, fits: boolean }} Chosen a file, with its text and its bytes in base64 */

/** @type {(blob: Blob) => Promise<string>} */
const base64 = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

/**
 * One field. `changed(value)` is told what the visitor chose; a number that is none is told as it stands, for the server to refuse.
 * @template {Described} Control
 */
export class Field {
  /** @type {Chosen | null} */
  file = null;

  /**
   * @param {Control} control
   * @param {(value: any) => void} changed
   */
  constructor(control, changed) {
    this.control = control;
    /** @type {HTMLInputElement} a select and a textarea have what is used of one */
    this.input = /** @type {any} */ (this.make(control));
    this.title = el("span", "lv-field-title");
    this.info = el("span", "lv-field-info");
    this.node = el("label", "lv-field", this.title, this.input, this.info);
    this.node.dataset.field = control.name;
    if (control.kind === "flag") this.node.classList.add("lv-field-flag");
    this.input.addEventListener(control.kind === "long" ? "input" : "change", async () => {
      if (control.kind === "file") await this.read();
      changed(this.value);
    });
  }

  /** @param {Described} control */
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

  /** @returns {any} a text, a number or null, a flag, a file: as its kind is */
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

  /**
   * Put words in place: the title, and for a choice what each is called.
   * @param {string} title
   */
  label(title, called = (/** @type {string} */ choice) => choice) {
    this.title.textContent = title;
    if (this.control.kind === "choice") for (const option of this.node.querySelectorAll("option")) option.textContent = called(option.value);
  }

  /** How it stands: the line under it, whether it applies, whether it is refused. @param {Partial<Face>} face */
  show({ info, on = true, bad = false }) {
    this.info.textContent = info;
    this.input.disabled = !on;
    this.node.classList.toggle("lv-field-off", !on);
    this.node.classList.toggle("lv-field-bad", bad);
  }
}
