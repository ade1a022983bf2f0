// The text of a run: a word a token, coloured by its loops; the word held, what else could follow it, and pinned words.

import { MOST_PINS } from "../core/contract.js";
import { el, fill, name, press, shown, textOr } from "../core/dom.js";
import { tint } from "../widgets/loop_tint.js";

const MOST_SWATCHES = 6;

/** @import { TokenRow } from "../core/contract.js" */

export class TextView {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;
  /** @type {HTMLElement | null} the token chosen and not read yet */
  unread = null;
  /** @type {HTMLElement | null} the word held */
  selected = null;
  /** @type {boolean | null} whether its end is in sight, so that it stays there as words come; null: to be measured */
  atEnd = null;
  /** @type {boolean} whether it goes to its end with the next frame, unless something else is to be seen meanwhile */
  ending = false;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.legend = el("div", "lv-legend");
    this.region = el("div", "lv-text");
    this.region.tabIndex = 0;
    this.region.setAttribute("role", "listbox");
    this.region.setAttribute("aria-orientation", "horizontal");
    this.region.addEventListener("scroll", () => (this.atEnd = this.nearEnd), { passive: true });
    new ResizeObserver(() => (this.atEnd = null)).observe(this.region);
    this.idle = el("p", "lv-idle");
    this.chosen = el("span", "lv-chosen-words");
    this.pinning = press("lv-quiet lv-pin", () => page.pin());
    this.follow = press("lv-quiet lv-follow", () => page.look({ token: null, step: null }));
    this.next = el("div", "lv-next");
    this.pins = el("div", "lv-pins");
    this.region.addEventListener("click", (event) => {
      /** @type {HTMLElement | null} */
      const token = event.target instanceof Element ? event.target.closest("[data-i]") : null;
      if (token) page.look({ token: Number(token.dataset.i), step: null });
    });
    this.held = el("div", "lv-held", el("div", "lv-chosen", this.chosen, this.pinning, this.follow), this.next, this.pins);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.idle.textContent = texts["live.idle"];
    this.region.setAttribute("aria-label", texts["live.region"]);
    this.follow.textContent = texts["live.follow"];
    this.showLegend();
    this.showHeld();
    if (this.unread) this.unread.title = texts["live.unread"];
  }

  /** Keep only the first words. @param {number} count */
  cut(count) {
    const last = () => /** @type {HTMLElement | null} */ (this.region.lastElementChild);
    while (last() && !(Number(last().dataset.i) < count)) last().remove();
    this.unread = this.atEnd = null;
    if (this.selected && Number(this.selected.dataset.i) >= count) this.selected = null;
  }

  /**
   * @param {TokenRow[]} rows
   * @param {string | null} next
   */
  add(rows, next) {
    const { region, page } = this;
    this.atEnd ??= this.nearEnd;
    this.unread?.remove();
    this.unread = null;
    const made = document.createDocumentFragment();
    const first = page.tokens.length - rows.length;
    rows.forEach((row, i) => made.append(this.word(row, first + i)));
    region.append(made);
    this.idle.hidden = page.tokens.length > 0;
    if (next !== null && next !== undefined && page.tokens.length) {
      this.unread = this.piece(next);
      this.unread.classList.add("lv-unread");
      this.unread.title = this.texts["live.unread"];
      region.append(this.unread);
    }
    if (this.atEnd && rows.length) this.toEnd();
    this.showHeld();
  }

  get nearEnd() {
    const { region } = this;
    return region.scrollHeight - region.scrollTop - region.clientHeight < 60;
  }

  /** Its end comes into sight, with the next frame: where it is must be measured, and more words may come until then. */
  toEnd() {
    if (this.ending) return;
    this.ending = true;
    requestAnimationFrame(() => {
      if (this.ending && this.atEnd) this.region.scrollTop = this.region.scrollHeight;
      this.ending = false;
    });
  }

  /** @param {string} text */
  piece(text) {
    const span = el("span", "lv-tok", text);
    if (text === "" || text === " ") span.classList.add("lv-blank");
    if (/^\s*\n/.test(text)) span.classList.add("lv-newline");
    if (!text.trim()) span.setAttribute("aria-label", shown(text).replaceAll(" ", "␣") || "…"); // else it would have no name
    return span;
  }

  /**
   * @param {TokenRow} row
   * @param {number} i
   */
  word(row, i) {
    const span = this.piece(row[0]);
    const loops = Math.max(0, ...row[1]);
    span.dataset.i = String(i);
    span.id = `lv-word-${i}`;
    span.setAttribute("role", "option");
    if (row[3]) span.classList.add("lv-prompt");
    if (loops) {
      span.dataset.loops = row[1].join("+");
      this.colour(span, loops);
    }
    return span;
  }

  /**
   * @param {HTMLElement} span
   * @param {number} loops
   */
  colour(span, loops) {
    tint(span, this.page.palette ?? [], loops);
  }

  /** The colours of the loops are others now. */
  recolour() {
    for (const span of /** @type {NodeListOf<HTMLElement>} */ (this.region.querySelectorAll("[data-loops]"))) {
      this.colour(span, Math.max(...span.dataset.loops.split("+").map(Number)));
    }
  }

  /** The word held, what else could come after it, and the pins. */
  showHeld() {
    const { focus } = this.page;
    /** @type {HTMLElement | null} */
    const now = focus.token === null ? null : this.region.querySelector(`[data-i="${focus.token}"]`);
    if (this.selected !== now) {
      this.selected?.classList.remove("lv-selected");
      this.selected?.removeAttribute("aria-selected");
      now?.classList.add("lv-selected");
      now?.setAttribute("aria-selected", "true");
      if (now) this.region.setAttribute("aria-activedescendant", now.id);
      else this.region.removeAttribute("aria-activedescendant");
      this.reveal(now);
      this.selected = now;
    }
    const pinned = new Set(focus.pins);
    for (const word of /** @type {NodeListOf<HTMLElement>} */ (this.region.querySelectorAll(".lv-pinned"))) {
      if (!pinned.has(Number(word.dataset.i))) word.classList.remove("lv-pinned");
    }
    for (const pin of pinned) this.region.querySelector(`[data-i="${pin}"]`)?.classList.add("lv-pinned");
    if (!this.texts) return;
    this.showChosen();
    this.showNext();
    this.showPins();
  }

  /** Scroll to the text's beginning, as far as the word held can still be seen. */
  toBeginning() {
    this.region.scrollTop = 0;
    this.ending = false;
    this.atEnd = null;
    this.reveal(this.selected);
  }

  /** Scroll the text, and not the page, until the word can be seen. @param {HTMLElement | null} word */
  reveal(word) {
    if (!word) return;
    const { region } = this;
    this.ending = false;
    const top = word.offsetTop - region.offsetTop;
    if (top < region.scrollTop) region.scrollTop = top;
    else if (top + word.offsetHeight > region.scrollTop + region.clientHeight) {
      region.scrollTop = top + word.offsetHeight - region.clientHeight;
    }
  }

  showChosen() {
    const { focus, tokens } = this.page;
    const row = focus.token === null ? null : tokens[focus.token];
    this.follow.hidden = focus.token === null;
    this.pinning.hidden = !tokens.length;
    const pinned = focus.pins.includes(this.page.current());
    this.pinning.textContent = this.texts[pinned ? "live.unpin" : "live.pin"];
    this.pinning.setAttribute("aria-pressed", String(pinned));
    this.chosen.textContent = "";
    if (row) {
      const reason = [...new Set(row[2])].map((key) => textOr(this.texts, `live.reason.${key}`, key)).join(", ");
      this.chosen.textContent = fill(this.texts["live.selected"], {
        t: focus.token,
        text: shown(row[0]),
        loops: row[1].join(" + ") || "0",
        reason: reason || this.texts["live.plain"],
        logp: row[4] ?? "–",
      });
    } else if (tokens.length) this.chosen.textContent = this.texts["live.newest"];
  }

  showNext() {
    const { focus, alternatives: found } = this.page;
    this.next.replaceChildren();
    if (focus.token === null && this.page.end) this.next.append(el("span", "lv-hint", this.texts["live.hint"]));
    if (!found || found.token !== focus.token) return;
    const label = el("span", "lv-next-label", this.texts["live.next"]);
    label.title = this.texts["live.next.hint"];
    this.next.append(label);
    for (const [piece, logp, came] of found.rows) {
      const share = logp === null ? "" : ` ${Math.round(100 * Math.exp(logp))} %`;
      const chip = press("lv-chip", () => this.page.again.force(found.token, piece), shown(piece.trim() || piece), el("small", "", share));
      // a token that is a part of a character cannot be typed
      chip.disabled = piece === "" || piece.includes("\ufffd");
      chip.classList.toggle("lv-came", came);
      name(chip, `${piece} ${share}`, came ? this.texts["live.chosen"] : fill(this.texts["live.force"], { text: shown(piece) }));
      this.next.append(chip);
    }
  }

  showPins() {
    const { focus, tokens } = this.page;
    this.pins.replaceChildren();
    if (!focus.pins.length) return;
    this.pins.append(el("span", "lv-next-label", this.texts["live.pinned"]));
    for (const pin of focus.pins) {
      const text = `${pin} “${shown(tokens[pin]?.[0] ?? "")}”`;
      const chip = press("lv-chip", () => this.page.look({ token: pin, step: null }), text);
      const drop = press("lv-icon", () => this.page.pin(pin), "×");
      name(drop, `${this.texts["live.unpin"]} ${text}`);
      this.pins.append(el("span", "lv-pinned-chip", chip, drop));
    }
  }

  /** Whether one more word may be pinned; says so when not. */
  roomForPin() {
    const room = this.page.focus.pins.length < MOST_PINS;
    if (!room) this.chosen.textContent = fill(this.texts["live.pins_full"], { most: MOST_PINS });
    return room;
  }

  /** From few loops to many, by the numbers of loops that words of this run took; of many only some. */
  showLegend() {
    if (!this.texts || !this.page.run) return;
    const colours = this.page.palette ?? [];
    this.legend.replaceChildren();
    const taken = [...colours.keys()].filter((i) => colours[i]).map((i) => i + 1);
    if (!taken.length) {
      this.legend.append(this.texts["live.plain"]);
      return;
    }
    const ways = MOST_SWATCHES - 1;
    const few = [...new Set(Array.from({ length: MOST_SWATCHES }, (_, k) => taken[Math.round((k * (taken.length - 1)) / ways)]))];
    const scale = el("span", "lv-scale");
    for (const loops of few) {
      const swatch = el("span", "lv-swatch", String(loops));
      tint(swatch, colours, loops);
      scale.append(swatch);
    }
    scale.setAttribute("role", "img");
    name(scale, fill(this.texts["live.hero.scale"], { least: taken[0], most: taken[taken.length - 1] }));
    this.legend.append(el("span", "", this.texts["live.hero.few"]), scale, el("span", "", this.texts["live.hero.many"]));
  }
}
