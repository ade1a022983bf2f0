// What Gradio builds, and this page makes fit for its visitors: names of its fields, and the formulas that it typesets.

import { ELEMENTS } from "../core/contract.js";

// Names of sliders and number fields for a screen reader: Gradio has them in English whatever the page speaks.
const OF_GRADIO = /^(number input|range slider) for (.+)$/s;

/**
 * Rename the fields inside `node`, now and whenever Gradio names one anew.
 * @param {HTMLElement} node
 * @param {() => Record<string, string> | null} texts the page's words, null before they came
 */
export function nameFields(node, texts) {
  const rename = () => {
    if (!texts()) return;
    for (const field of node.querySelectorAll("[aria-label]")) {
      const found = OF_GRADIO.exec(field.getAttribute("aria-label"));
      if (!found) continue;
      const kind = found[1] === "number input" ? "page.field.number" : "page.field.slider";
      field.setAttribute("aria-label", `${found[2]} · ${texts()[kind]}`);
    }
  };
  new MutationObserver(rename).observe(node, { attributes: true, attributeFilter: ["aria-label"], childList: true, subtree: true });
  rename();
}

const AGAIN_MS = 500;
const TRIES = 60;

/** Gradio's own KaTeX typesets the formulas, in a place nobody sees; the panels get a copy. */
export class Formulas {
  /** @type {number} */
  tries = 0;
  /** @type {number | undefined} */
  timer = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
  }

  adopt() {
    const { config, panels } = this.page;
    for (const [name, panel] of panels) {
      const place = panel.detailsBody.querySelector("[data-formula]");
      const made = document.querySelector(`#${ELEMENTS.formula}${config.lang}-${name} .katex`);
      if (place && made && !place.querySelector(".katex")) place.replaceChildren(made.cloneNode(true));
    }
    const left = [...panels.values()].some((p) => p.detailsBody.querySelector("[data-formula]:not(:has(.katex))"));
    clearTimeout(this.timer);
    if (left && (this.tries += 1) < TRIES) this.timer = setTimeout(() => this.adopt(), AGAIN_MS);
  }
}
