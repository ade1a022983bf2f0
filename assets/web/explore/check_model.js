// Where a model is chosen, the way to have it looked over: the Lab's check, of the very model that stands there.

import { ELEMENTS, PAGES, QUERIES } from "../core/contract.js";
import { el } from "../core/dom.js";

export class CheckModel {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.link = el("a", "lv-check-model");
    this.link.target = "_blank"; // the run stays
    this.link.addEventListener("click", () => this.point());
    this.point();
  }

  /** Its address. The model, and what it is held in, goes along where no server sees it, and the Lab believes it of a page of ours alone. */
  point() {
    const { model, precision } = this.page.form;
    const sent = new URLSearchParams({ ...(model ? { model } : {}), ...(precision ? { precision } : {}) });
    this.link.href = `${PAGES.lab}?${QUERIES.task}=checkpoint${model || precision ? `#${sent}` : ""}`;
  }

  /** Its words, and its place once Gradio has built the group. @param {Record<string, string>} [texts] */
  show(texts) {
    if (!texts) return;
    this.link.textContent = texts["live.model.check"];
    this.link.title = texts["live.model.check.hint"];
    const group = document.getElementById(ELEMENTS.model);
    if (group && !this.link.isConnected) group.append(this.link);
  }
}
