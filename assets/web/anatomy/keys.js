// The keys that walk: stages, layers, loop steps. They are left alone while somebody types, chooses or uses a list.

const TAKEN = "input, textarea, select, [contenteditable], dialog, [role=listbox], .lv-table, .lv-attention-text[tabindex='0'], .lv-stage-formula[tabindex='0']";

export class Keys {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || !this.page.run) return;
    const at = event.target instanceof Element ? event.target : document.body;
    if (at.closest(TAKEN) || document.querySelector("dialog[open]")) return;
    const { page } = this;
    /** @type {Record<string, () => boolean>} whether one went */
    const acts = {
      ArrowLeft: () => page.walk(-1),
      ArrowRight: () => page.walk(1),
      ArrowUp: () => page.layerBy(1),
      ArrowDown: () => page.layerBy(-1),
      PageUp: () => page.stepBy(1),
      PageDown: () => page.stepBy(-1),
      "]": () => page.stepBy(1),
      "[": () => page.stepBy(-1),
    };
    if (!(event.key in acts)) return;
    if (acts[event.key]()) event.preventDefault(); // else the key does what it always does
  }
}
