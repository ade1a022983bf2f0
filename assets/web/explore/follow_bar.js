// A bar that stays in reach when the text is above the window: the words around the one shown, the replay, Run and Stop, and
// how often and how far the loop goes. It lies over the page, so nothing moves when it comes. On a narrow page it stands at the
// window's foot, over the buttons that are there already.

import { el, press, shown } from "../core/dom.js";
import { RealSlider } from "./real_slider.js";

const AROUND = 6; // words to each side
const HIGH = 48; // pixels of the window that it takes: a text of which no more is seen would lie under it

export class FollowBar {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;
  /** @type {boolean} whether the text lies above the window */
  past = false;
  /** @type {boolean} whether the keyboard is in it: gone, it would take the focus along, and Tab would begin anew */
  held = false;
  /** @type {string} all that its words show */
  looks = "";

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.play = press("lv-play", () => page.player.toggle());
    this.words = el("div", "lv-reach-words");
    this.words.setAttribute("aria-hidden", "true"); // the text is read above; ← and → go through it from anywhere
    this.words.addEventListener("click", ({ target }) => {
      const word = target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest("[data-word]")) : null;
      if (word) page.look({ token: Number(word.dataset.word), step: null });
    });
    /** @param {string} control */
    const named = (control) => `live.reach.${control}`;
    this.sliders = [new RealSlider(page, () => page.hero.dials.counted, named), new RealSlider(page, () => "loop_damping", named)];
    this.run = press("lv-reach-run", () => page.start());
    this.stop = press("lv-reach-stop", () => page.halt());
    const row = el("div", "lv-reach-row", this.play, this.words, ...this.sliders.map((slider) => slider.node), this.run, this.stop);
    this.node = el("div", "lv-reach", row);
    this.node.hidden = true;
    this.node.addEventListener("focusin", ({ target }) => (this.held = target instanceof Element && target.matches(":focus-visible")));
    this.node.addEventListener("focusout", ({ relatedTarget }) => {
      this.held &&= relatedTarget instanceof Node && this.node.contains(relatedTarget);
      if (!this.held) this.show();
    });
    this.node.setAttribute("role", "region");
    new IntersectionObserver(([entry]) => {
      const { bottom, height } = entry.boundingClientRect;
      this.past = !entry.isIntersecting && bottom <= HIGH && height > 0;
      this.show();
    }, { rootMargin: `-${HIGH}px 0px 0px` }).observe(page.text);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.node.setAttribute("aria-label", texts["live.reach"]);
    this.run.textContent = texts["live.reach.run"];
    this.stop.textContent = texts["live.reach.stop"];
    for (const slider of this.sliders) slider.configure(texts);
    this.show();
  }

  /** Whether it is there; and when it is, all that it shows. */
  show() {
    const { page, texts } = this;
    this.node.hidden = !((this.past || this.held) && texts && page.run) || page.tour.on; // the tour's card has the window
    if (this.node.hidden) return;
    const { playing, can } = page.player;
    this.play.disabled = !can;
    this.play.dataset.playing = playing ? "1" : "0";
    this.play.setAttribute("aria-label", texts[playing ? "live.pause" : "live.play"]);
    const { state } = page.root.dataset;
    this.run.dataset.state = state;
    this.stop.disabled = state === "idle" || state === "stopping";
    for (const slider of this.sliders) slider.follow();
    this.showWords();
  }

  showWords() {
    const { page } = this;
    const { tokens, focus, palette } = page;
    const at = page.current();
    const look = [page.run, tokens.length, at, focus.token, palette].join();
    if (look === this.looks) return;
    this.looks = look;
    /** @param {number} i */
    const word = (i) => {
      const span = page.words.piece(shown(tokens[i][0]));
      span.dataset.word = String(i);
      const loops = Math.max(0, ...tokens[i][1]);
      if (loops) {
        span.dataset.loops = String(loops);
        page.words.colour(span, loops);
      }
      return span;
    };
    /** @type {(from: number, to: number) => HTMLElement} */
    const half = (from, to) => {
      const some = Array.from({ length: Math.max(0, to - from) }, (_, i) => word(from + i));
      return el("span", "lv-reach-half", ...some);
    };
    if (at < 0 || !tokens[at]) {
      this.words.replaceChildren();
      return;
    }
    const now = word(at);
    now.classList.add("lv-selected");
    this.words.replaceChildren(half(Math.max(0, at - AROUND), at), now, half(at + 1, Math.min(tokens.length, at + 1 + AROUND)));
  }
}
