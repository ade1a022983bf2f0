// Lists that Gradio builds, each under a button of its own: prompts to try, ways to loop. A press opens one, whatever is chosen
// in it, Escape, or a press elsewhere closes it.

import { CLASSES, ELEMENTS } from "../core/contract.js";
import { whenBuilt } from "./gradio_parts.js";

const OPEN = "lv-dropped";

export class Drops {
  constructor() {
    document.addEventListener("click", ({ target }) => {
      const at = target instanceof Element ? target : null;
      const opener = at?.closest(`.${CLASSES.opens}`);
      const group = /** @type {HTMLElement | null} */ (opener?.closest(`.${CLASSES.drop}`));
      const open = group && !group.classList.contains(OPEN);
      this.close();
      if (open) this.show(group, true);
    });
    document.addEventListener("keydown", (event) => this.pressed(event));
    document.addEventListener("focusin", ({ target }) => {
      const open = this.opened;
      if (open && target instanceof Node && !open.contains(target)) this.close();
    });
  }

  /** The list that is open. */
  get opened() {
    return /** @type {HTMLElement | null} */ (document.querySelector(`.${OPEN}`));
  }

  /** Gradio builds them: what can be opened says so. */
  connect() {
    for (const id of [ELEMENTS.tries, ELEMENTS.ways]) {
      whenBuilt(`#${id} .${CLASSES.opens}`, (opener) => this.show(opener.closest(`.${CLASSES.drop}`), false));
    }
  }

  /**
   * @param {HTMLElement} group
   * @param {boolean} on
   */
  show(group, on) {
    group.classList.toggle(OPEN, on);
    const opener = group.querySelector(`.${CLASSES.opens}`);
    opener?.setAttribute("aria-expanded", String(on));
    opener?.setAttribute("aria-haspopup", "true");
    if (!on) return;
    // under its button
    const list = this.items(group)[0]?.parentElement;
    if (!list) return;
    list.style.left = "0";
    const edge = group.parentElement.getBoundingClientRect().right;
    const box = list.getBoundingClientRect();
    const over = Math.min(box.right - edge, box.left - 8); // as far as the row is wide, and there is room
    if (over > 0) list.style.left = `${-over}px`;
  }

  close() {
    const open = this.opened;
    if (open) this.show(open, false);
  }

  /** What can be chosen in a list. @param {HTMLElement} group */
  items(group) {
    const found = /** @type {HTMLButtonElement[]} */ ([...group.querySelectorAll("button")]);
    return found.filter((button) => !button.classList.contains(CLASSES.opens) && button.checkVisibility());
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const group = this.opened;
    if (!group) return;
    const opener = /** @type {HTMLElement} */ (group.querySelector(`.${CLASSES.opens}`));
    const items = this.items(group);
    const at = items.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at < 0 ? -1 : at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Escape") {
      this.close();
      opener.focus({ preventScroll: true });
    } else if (to !== undefined && group.contains(document.activeElement) && items.length) items.at(to % items.length).focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
