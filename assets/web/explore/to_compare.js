// From Explore to the Compare page, with what is set up: the way there gets the word of a link, if one comes in time.

import { QUERIES } from "../core/contract.js";

const PATIENCE_MS = 10000; // of a busy server; who presses again does not wait
const WISH = -1; // no number of the links that are copied

/** @import { LinkMade } from "../core/contract.js" */

export class Ways {
  /** @type {string | null} where to, while the word is awaited */
  to = null;

  /** @type {HTMLAnchorElement | null} the way that was pressed */
  way = null;

  /** @type {number | undefined} */
  timer = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    document.addEventListener("click", (event) => {
      /** @type {HTMLAnchorElement | null} */
      const way = event.target instanceof Element ? event.target.closest('.lv-way[data-page="compare"]') : null;
      const elsewhere = event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
      if (!way || elsewhere || !page.tell) return;
      if (this.to) return; // pressed again: as it is
      event.preventDefault();
      this.to = way.href;
      this.way = way;
      way.setAttribute("aria-busy", "true");
      this.timer = setTimeout(() => this.go(""), PATIENCE_MS);
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
    clearTimeout(this.timer); // else it would end the next one's patience
    this.way?.removeAttribute("aria-busy"); // the page may be come back to as it was left
    location.href = this.to + search;
    this.to = null;
  }
}
