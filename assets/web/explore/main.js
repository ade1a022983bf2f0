// The beginning of the Explore page: what is seen before Gradio is there, and what joins it when it is.

import { el, sleep, worded } from "../core/dom.js";
import { unwire } from "../core/messages.js";
import { stage, unstage } from "./first_paint.js";
import { Page } from "./page.js";

/** @import { ExploreMessage, Opening } from "../core/contract.js" */
/** @import { Functions, Props, Tell } from "../core/page_globals.js" */

const UNSETTLED_MS = 2500; // without any word from the server

/** @type {Page | null} */
let page = null; // the one of this document
/** @type {HTMLElement | null} */
let early = null; // what stands in for Gradio's layout

/** Called from the document's head: shows what the page opens with while Gradio is still on its way. */
export async function open() {
  const opening = await window.loopvizOpening;
  if (!opening || page) {
    window.loopvizLater();
    return;
  }
  const root = el("div", "lv");
  Object.assign(root.dataset, window.loopvizPlaces);
  early = stage(root, worded(opening.config.texts));
  page = root.page = new Page(root);
  page.open(opening);
}

/**
 * Called by the component's js_on_load: Gradio's layout is there.
 * @param {{ element: HTMLElement, server: Functions, props: Props, watch: (name: "value", act: () => void) => void, tell: Tell }} gradio
 */
export function mount({ element, server, props, watch, tell }) {
  /** @type {HTMLElement} */
  const place = element.querySelector(".lv-place");
  if (page) {
    // once the visit's language, settings and words are in Gradio's parts: until then these change their sizes
    Promise.race([page.share.settled, sleep(UNSETTLED_MS)]).then(() => {
      unstage(early, page.root, place);
      page.words.reveal(page.words.selected); // what is moved is scrolled to its beginning
    });
  } else {
    place.className = "lv";
    page = place.page = new Page(place);
    Promise.resolve(window.loopvizOpening ?? fetchOpening(place.dataset)).then((opening) => (opening ? page.open(opening) : page.config || take()));
  }
  page.connect({ server, tell });
  /** @param {(message: ExploreMessage) => boolean} wanted */
  const take = (wanted = () => true) => {
    if (typeof props.value !== "string" || !props.value) return;
    /** @type {ExploreMessage} */
    let message;
    try {
      message = unwire(props.value);
    } catch (error) {
      console.error("unreadable message", error);
      return;
    }
    if (wanted(message)) page.receive(message);
  };
  // the first value is in the server's first language: what the page opened with is in the visitor's
  watch("value", () => take());
  take((message) => "visit" in message); // the visit may have begun before this script was there
  return page;
}

/**
 * The recorded run, where the head has not asked for it.
 * @param {DOMStringMap} places
 * @returns {Promise<Opening | null> | null}
 */
function fetchOpening({ opening }) {
  const urls = JSON.parse(opening);
  const lang = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
  return urls[lang] ? fetch(new URL(urls[lang], document.baseURI)).then((answer) => answer.json()).catch(() => /** @type {null} */ (null)) : null;
}
