// From Explore to Anatomy: the run on show goes along, and is kept there although this page is left.

import { QUERIES, RECORDED, TAKEN } from "../core/contract.js";

const PATIENCE_MS = 10000; // of a busy server; who presses again does not wait

export class ToAnatomy {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    for (const kind of ["click", "auxclick"]) document.addEventListener(kind, (event) => this.pressed(/** @type {MouseEvent} */ (event)));
  }

  /** @param {MouseEvent} event */
  async pressed(event) {
    /** @type {HTMLAnchorElement | null} */
    const way = event.target instanceof Element ? event.target.closest('.lv-way[data-page="anatomy"]') : null;
    const { page } = this;
    if (!way || !page.run || event.button > 1) return;
    const { run, focus } = page;
    const address = new URL(way.href);
    [address.search, address.hash] = ["", run === RECORDED ? "" : `${TAKEN}=${run}`];
    if (Number.isInteger(focus.token)) address.searchParams.set(QUERIES.token, String(focus.token));
    if (focus.step) address.searchParams.set(QUERIES.step, String(focus.step));
    way.href = address.href; // another tab, too, opens with it
    if (run === RECORDED) return;
    const carried = page.server?.carry(JSON.stringify({ run })).catch(/** @returns {null} */ () => null);
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (way.getAttribute("aria-busy")) return; // pressed again: as it is
    event.preventDefault();
    way.setAttribute("aria-busy", "true");
    await Promise.race([carried, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
    way.removeAttribute("aria-busy"); // the page may be come back to as it was left
    location.href = address.href;
  }
}
