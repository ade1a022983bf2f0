// What a link of our own pages asks of Explore beyond what it holds: to run it at once, or to run the check of the instrument. From
// anywhere else nothing begins by itself: a link that is posted, and opened by thirty people, costs its server nothing until one of
// them presses Run it (see docs/sharing.md).

import { HASHES } from "../core/contract.js";

/** Whether the visitor came from a page of this very server: nobody else can make that so. */
const fromOurs = () => document.referrer.startsWith(`${location.origin}/`);

/** @param {import("./page.js").Page} page */
export async function followOwnLink(page) {
  const asked = Object.values(HASHES).find((hash) => `#${hash}` === location.hash);
  if (!asked) return;
  const ours = fromOurs();
  history.replaceState(history.state, "", location.pathname + location.search); // to load it again is not to ask again
  await page.share.settled; // the controls show what a link has set
  if (page.starts.n) return; // the visitor was quicker
  if (asked === HASHES.run && ours && page.linked.holds) page.start();
  if (asked !== HASHES.check) return;
  /** @type {HTMLElement | null} */
  const badge = document.querySelector(".lv-verified");
  if (badge) page.check(badge.dataset, ours);
}
