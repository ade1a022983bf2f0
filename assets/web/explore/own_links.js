// What a press on another page of ours asks of Explore as it opens: to run what the link holds (a card of a comparison, a row of a
// measurement), or the check of the instrument. From anywhere else nothing begins by itself: a link that is posted, and opened by
// thirty people, costs its server nothing until one of them presses Run it (see docs/sharing.md).

import { CHECK, PAGES } from "../core/contract.js";

/** The page of this very server that the visitor has just come from, by its path; "" for any other. Nobody else can make that so. */
function from() {
  const [entry] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
  if (entry?.type !== "navigate" || !document.referrer) return ""; // to load it again is not to ask again
  const { origin, pathname } = new URL(document.referrer);
  return origin === location.origin ? pathname : "";
}

/** @param {string} page */
const path = (page) => new URL(page, document.baseURI).pathname;

/** @param {import("./page.js").Page} page */
export async function followOwnLink(page) {
  const here = from();
  const check = location.hash === `#${CHECK}`;
  if (check) history.replaceState(history.state, "", location.pathname + location.search);
  const asked = [PAGES.compare, PAGES.lab].some((other) => here.replace(/\/$/, "") === path(other));
  if (!check && !(asked && page.share.word !== null)) return;
  await page.share.settled; // the controls show what a link has set
  await page.share.read;
  if (page.starts.n) return; // the visitor was quicker
  if (!check) {
    if (page.linked.holds) page.start();
    return;
  }
  /** @type {HTMLElement | null} */
  const badge = document.querySelector(".lv-verified");
  if (badge) page.check(badge.dataset, here !== "");
}
