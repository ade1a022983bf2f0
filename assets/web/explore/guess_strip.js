// The strip: what one word would have said after each loop, and why it stopped. A cell is a button: it selects its loop step.

import { el, fill, press, textOr } from "../core/dom.js";
import { bare } from "./loop_ring.js";

/** @import { Hero } from "../core/contract.js" */

/**
 * A probability, which comes in whole per cent: the server rounds it once, for this and for the paragraph.
 * @param {number | null} p
 * @param {Record<string, string>} texts
 */
export function share(p, texts) {
  if (p === null) return "–";
  if (p > 99) return texts["live.hero.over"];
  return p < 1 ? texts["live.hero.under"] : `${p} %`;
}

export class GuessStrip {
  /** @type {Record<string, string> | undefined} */
  texts = undefined;
  /** @type {HTMLButtonElement[]} */
  cells = [];
  /** @type {number[]} the loop step of each */
  steps = [];
  /** @type {HTMLElement | null} the cell that is to be seen with the next frame */
  revealed = null;
  /** @type {string} all that is drawn but for what is pointed at */
  drawn = "";

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("h3", "lv-strip-title");
    this.lens = el("span", "lv-lens");
    this.row = el("div", "lv-cells");
    this.row.setAttribute("role", "group");
    this.end = el("span", "lv-strip-end");
    this.node = el("section", "lv-strip", el("div", "lv-strip-head", this.title, this.lens), this.row, this.end);
    this.row.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
  }

  /**
   * @param {Hero} hero
   * @param {string} token the word it is about
   * @param {number} loops of the block looked at
   */
  show(hero, token, loops) {
    const { texts } = this;
    const look = JSON.stringify([hero, token, loops, this.page.palette, texts["live.hero.strip"]]);
    if (look === this.drawn) return this.select(); // whoever has come to a cell stays there
    this.drawn = look;
    this.title.textContent = fill(texts["live.hero.strip"], { word: bare(token) });
    this.row.setAttribute("aria-label", this.title.textContent);
    this.lens.textContent = hero.silent || !hero.says.length ? "" : texts[`live.hero.lens.${hero.lens}`];
    this.lens.dataset.lens = hero.lens;
    this.steps = hero.steps.length ? hero.steps : Array.from({ length: loops }, (_, i) => i + 1);
    this.row.replaceChildren();
    let said = "";
    let before = 0;
    this.cells = this.steps.map((step, i) => {
      const left = step - before - 1;
      if (left > 0) this.row.append(el("span", "lv-cells-left", fill(texts["live.hero.left"], { n: left })));
      before = step;
      const anew = hero.says[i] != null;
      said = hero.says[i] ?? said;
      const cell = this.cell(step, hero.says.length ? said : null, hero.p[i] ?? null, anew && i > 0);
      this.row.append(cell);
      return cell;
    });
    if (hero.silent) this.row.append(el("span", "lv-cells-left", hero.silent));
    this.end.textContent = loops ? `■ ${this.ending(hero)}` : "";
    this.end.title = this.end.textContent;
    this.select();
  }

  /**
   * @param {number} step
   * @param {string | null} said
   * @param {number | null} p
   * @param {boolean} anew
   */
  cell(step, said, p, anew) {
    const { texts, page } = this;
    const cell = press("lv-cell", () => page.look({ step: page.focus.step === step ? null : step }));
    cell.dataset.step = String(step);
    cell.style.setProperty("--tint", step ? page.hero.ring.colour(step) : "transparent");
    cell.style.setProperty("--p", String((p ?? 0) / 100));
    cell.classList.toggle("lv-anew", anew);
    cell.disabled = step === 0;
    const chance = share(p, texts);
    cell.append(el("small", "", step ? `↻${step}` : "–"));
    if (said !== null) cell.append(el("b", "", bare(said)), el("span", "lv-cell-p", chance));
    const kind = said === null ? "bare" : step === 0 ? "none" : anew ? "new" : "same";
    cell.setAttribute("aria-label", fill(texts[`live.hero.cell.${kind}`], { step, text: said === null ? "" : bare(said), p: chance }));
    return cell;
  }

  /** Why it stopped, with the number that settled it. @param {Hero} hero */
  ending({ why, measure, settled, limit }) {
    const { texts } = this;
    const values = { value: settled, limit, name: why };
    const known = settled !== null && limit !== null;
    if (why === "kl" || why === "cosine") return known ? fill(texts[`live.hero.end.${why}`], values) : texts[`live.reason.${why}`];
    if (why === "max") {
      const beyond = known && (measure === "kl" ? settled > limit : settled < limit);
      return beyond ? fill(texts[`live.hero.end.max.${measure}`], values) : texts["live.hero.end.max"];
    }
    return fill(textOr(texts, `live.hero.end.${why}`, texts["live.hero.end.other"]), values);
  }

  /** The cell of the step pointed at; one of them is reached by Tab, the arrows go on from it. */
  select() {
    const { step } = this.page.focus;
    const last = this.cells.length - 1;
    const chosen = this.steps.indexOf(step);
    this.cells.forEach((cell, i) => {
      cell.setAttribute("aria-pressed", String(i === chosen));
      cell.tabIndex = i === (chosen < 0 ? last : chosen) ? 0 : -1;
    });
    this.reveal(this.cells[chosen < 0 ? 0 : chosen]);
  }

  /** The word comes to a loop; 0: it is through. @param {number} step */
  at(step) {
    const now = step ? this.cells[this.steps.indexOf(step)] : undefined;
    for (const cell of this.cells) cell.classList.toggle("lv-now", cell === now);
    if (now) this.reveal(now);
  }

  /**
   * Scroll the row, and not the page, until a cell can be seen: with the next frame, for where it is must be measured, and more may
   * change until then.
   * @param {HTMLElement | undefined} cell
   */
  reveal(cell) {
    if (!cell) return;
    if (!this.revealed) requestAnimationFrame(() => this.scroll());
    this.revealed = cell;
  }

  scroll() {
    const { row, revealed: cell } = this;
    this.revealed = null;
    if (!cell?.isConnected) return;
    const left = cell.offsetLeft - row.offsetLeft;
    if (left < row.scrollLeft) row.scrollLeft = left - 4;
    else if (left + cell.offsetWidth > row.scrollLeft + row.clientWidth) row.scrollLeft = left + cell.offsetWidth - row.clientWidth + 4;
  }

  /** Arrows move along the row: they are the page's elsewhere. @param {KeyboardEvent} event */
  pressed(event) {
    const at = this.cells.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: this.cells.length - 1 }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // the page's own keys leave it alone
    event.stopPropagation();
    const cell = this.cells[Math.min(Math.max(to, 0), this.cells.length - 1)];
    cell.focus({ preventScroll: true });
    this.page.look({ step: Number(cell.dataset.step) });
  }
}
