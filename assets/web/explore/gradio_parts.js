// What Gradio builds, and this page makes fit for its visitors: names of its fields; parts that come when they come.

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

/**
 * Do something with a part that Gradio builds, now or as soon as it has: a button may come later than its row, and than our functions.
 * @param {string} selector
 * @param {(part: HTMLElement) => void} act
 */
export function whenBuilt(selector, act) {
  const find = () => /** @type {HTMLElement | null} */ (document.querySelector(selector));
  const there = find();
  if (there) {
    act(there);
    return;
  }
  const watch = new MutationObserver(() => {
    const built = find();
    if (!built) return;
    watch.disconnect();
    act(built);
  });
  watch.observe(document.body, { childList: true, subtree: true });
}
