// llama.py, function by function: a sentence each and its place in the code.

import { el } from "../core/dom.js";

export class Article {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h2");
    this.about = el("p", "lv-question");
    this.entries = page.frame.config.article.map(({ name, at, url }) => {
      const link = el("a", "", name);
      [link.href, link.target, link.rel, link.title] = [url, "_blank", "noopener", at];
      const words = el("span");
      return { name, words, node: el("li", "", link, el("small", "", at.split("/").at(-1)), words) };
    });
    this.node = el("section", "lv-card lv-article", this.title, this.about, el("ol", "", ...this.entries.map(({ node }) => node)));
  }

  label() {
    this.title.textContent = this.page.text("anatomy.article");
    this.about.textContent = this.page.text("anatomy.article.about");
    for (const { name, words } of this.entries) words.textContent = this.page.text(`anatomy.article.${name}`);
  }
}
