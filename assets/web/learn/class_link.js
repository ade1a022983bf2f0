// The link that a teacher gives a class: the lesson, a name to fill in, and the same as a QR code.

import { OWN_LESSON, QUERIES } from "../core/contract.js";
import { copied, el, press } from "../core/dom.js";
import { drawn } from "../core/svg.js";

/** @typedef {import("./main.js").Page} Page */

export class ClassLink {
  /** @type {number} of the newest link that was asked for */
  n = 0;

  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.summary = el("summary");
    this.hint = el("p", "lv-question");
    this.title = el("span", "lv-field-title");
    this.name = Object.assign(el("input", "lv-input"), { type: "text", maxLength: 80 });
    this.name.addEventListener("input", () => this.make());
    this.address = Object.assign(el("input", "lv-input"), { type: "text", readOnly: true });
    this.copy = press("lv-quiet", () => this.take());
    this.told = el("p", "lv-question");
    this.told.setAttribute("role", "status");
    this.code = el("div", "lv-code-square");
    const row = el("div", "lv-class-row", this.address, this.copy);
    this.node = el("details", "lv-class", this.summary, this.hint, el("label", "lv-field", this.title, this.name), row, this.told, this.code);
    this.node.addEventListener("toggle", () => this.node.open && this.make());
  }

  label() {
    const { page } = this;
    this.summary.textContent = page.text("lesson.class");
    this.hint.textContent = page.text("lesson.class.hint");
    this.title.textContent = page.text("lesson.class.name");
    this.copy.textContent = page.text("lesson.class.copy");
    this.address.setAttribute("aria-label", page.text("lesson.class"));
    if (this.node.open) this.make();
  }

  /** The address, or why there is none. @returns {Promise<{ url: string, told: string }>} */
  async link() {
    const { page } = this;
    const url = new URL(location.pathname, location.href);
    if (!page.source) url.searchParams.set(QUERIES.lesson, page.lesson.id);
    if (this.name.value.trim()) url.searchParams.set(QUERIES.name, this.name.value.trim());
    if (page.handing.name) url.searchParams.set(QUERIES.class, page.handing.folder); // what is answered by it can be handed in
    url.searchParams.set(QUERIES.lang, page.frame.lang);
    if (!page.source) return { url: url.href, told: "" };
    const packed = await page.frame.ask("pack", { source: page.source, lang: page.frame.lang });
    if (packed?.kind !== "packed" || !packed.word) return { url: "", told: packed?.text ?? "" };
    url.hash = `${OWN_LESSON}=${packed.word}`;
    return { url: url.href, told: "" };
  }

  async make() {
    const n = ++this.n;
    const { url, told } = await this.link();
    const found = url ? await this.page.frame.ask("code", { url, lang: this.page.frame.lang }) : null;
    if (n !== this.n) return; // another was asked for meanwhile
    this.address.value = url;
    this.copy.disabled = !url;
    const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) ? this.page.text("lesson.class.local") : "";
    this.told.textContent = [told, found?.text, local].filter(Boolean).join(" ");
    this.code.replaceChildren(...(found?.path ? [this.square(found.size, found.path)] : []));
  }

  /** @param {number} size @param {string} path */
  square(size, path) {
    const label = this.page.text("lesson.class.code");
    const node = drawn("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": label, "shape-rendering": "crispEdges" });
    node.append(drawn("rect", { width: size, height: size, fill: "#fff" }), drawn("path", { d: path, fill: "#000" }));
    return node;
  }

  async take() {
    this.address.select();
    if (await copied(this.address.value, this.address)) this.told.textContent = this.page.text("lesson.class.copied");
  }
}
