// What is to be known of a model that is there: how many notes there are, and at a press the notes.

import { el, name } from "../core/dom.js";

/** @import { Notes } from "../core/contract.js" */

export class ModelNotes {
  constructor() {
    this.count = el("summary");
    this.list = el("ul", "lv-menu-list");
    this.node = el("details", "lv-menu lv-model-notes", this.count, this.list);
    this.node.hidden = this.list.hidden = true; // the list too: keys go by which menus are open
    this.foldable();
  }

  /** @param {Notes | null | undefined} notes */
  show(notes) {
    this.node.hidden = !notes;
    if (!notes) return;
    this.count.textContent = notes.count;
    name(this.count, `${notes.count}. ${notes.about}`, notes.about);
    const said = [...this.list.children].map((one) => one.textContent);
    if (JSON.stringify(said) !== JSON.stringify(notes.said)) this.list.replaceChildren(...notes.said.map((one) => el("li", "", one)));
  }

  /** What is opened over the text goes at a press elsewhere, or of Escape. */
  foldable() {
    const { node, list } = this;
    node.addEventListener("toggle", () => (list.hidden = !node.open));
    document.addEventListener("pointerdown", (event) => node.contains(/** @type {Node} */ (event.target)) || (node.open = false));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !node.open) return;
      node.open = false;
      this.count.focus();
      event.stopPropagation();
    });
  }
}
