// From Explore to the Compare page, with what is set up: the way there gets the word of a link, if one comes in time.

import { QUERIES } from "../core/contract.js";

const PATIENCE_MS = 1500;
const WISH = -1; // no number of the links that are copied

/** @import { LinkMade } from "../core/contract.js" */

export class Ways {
  /** @type {string | null} where to, while the word is awaited */
  to = null;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    document.addEventListener("click", (event) => {
      /** @type {HTMLAnchorElement | null} */
      const way = event.target instanceof Element ? event.target.closest('.lv-way[data-page="compare"]') : null;
      const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
      if (!way || elsewhere || !page.tell) return;
      event.preventDefault();
      this.to = way.href;
      setTimeout(() => this.go(""), PATIENCE_MS);
      page.tell.link({ n: WISH, run: null, view: "" });
    });
  }

  /** A link's word came; whether it was asked for here. @param {LinkMade} message */
  took({ n, word }) {
    if (n !== WISH) return false;
    this.go(word === null ? "" : `?${QUERIES.link}=${word}`);
    return true;
  }

  /** @param {string} search */
  go(search) {
    if (this.to === null) return;
    location.href = this.to + search;
    this.to = null;
  }
}
