// A stand-in for Gradio's layout: what the page opens with can be seen a second or two before Gradio has built its part.

import { PAGES } from "../core/contract.js";
import { el } from "../core/dom.js";

const BUILDING = "lv-building";

/**
 * Show `root` where it will stand once the page is whole; returns what is to be removed then.
 * @param {HTMLElement} root
 * @param {Record<string, string>} texts
 */
export function stage(root, texts) {
  const ways = Object.entries(PAGES).map(([to, href]) => Object.assign(el("a", "lv-way", texts[`nav.${to}`]), { href }));
  ways[0].setAttribute("aria-current", "page");
  const head = el("div", "lv-early-head", el("h1", "", "LoopViz"), el("nav", "lv-nav", ...ways), el("p", "", texts["page.tagline"]));
  const page = el("div", "lv-early-page", el("div", "lv-early-ask"), el("div", "lv-early-settings"), el("div", "lv-early-live", root));
  const host = el("div", "lv-early", el("div", "lv-early-width", head, page));
  document.body.append(host);
  // what Gradio builds meanwhile is not seen: it comes in pieces that push each other about
  document.documentElement.classList.add(BUILDING);
  return host;
}

/**
 * The page is whole: `root` takes its place in it, `place`, and what stood in goes.
 * @param {HTMLElement} host
 * @param {HTMLElement} root
 * @param {HTMLElement} place
 */
export function unstage(host, root, place) {
  const { scrollTop } = host;
  place.replaceWith(root);
  host.remove();
  document.documentElement.classList.remove(BUILDING);
  window.scrollTo(0, scrollTop);
}
