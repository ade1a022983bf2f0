// The tour: steps that are data (see loopviz/app/texts/tour.py), played on the recorded run. A step looks at the run in its
// way, rings the element it explains and puts its card beside it. The page stays usable meanwhile; whoever was looking at a
// run of their own gets it back. Where it was left is remembered in this browser.

import { PAGES, STORED } from "../core/contract.js";
import { el, fill, kept, name, press } from "../core/dom.js";
import { termed } from "../widgets/glossary.js";

const GAP = 14; // pixels between what is explained and the card
const EDGE = 10; // between either and the edge of the window
const SETTLES = 2500; // milliseconds in which panels that are being drawn may still move what is explained

/** @import { ExploreConfig, Focus, Tour as Told, TourStep } from "../core/contract.js" */

export class Tour {
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;
  /** @type {string | undefined} the page's language */
  wanted = undefined;
  /** @type {TourStep[]} */
  steps = [];
  /** @type {string | null} the language of the steps that are there */
  lang = null;
  /** @type {boolean} whether it is taken now */
  on = false;
  /** @type {boolean} whether it is about to begin */
  beginning = false;
  /** @type {number} the step shown */
  at = 0;
  /** @type {number} counts the steps taken, so that one left meanwhile does nothing more */
  turn = 0;
  /** @type {number} when what is explained stands still */
  until = 0;
  /** @type {string} all that its buttons show */
  looks = "";
  /** @type {boolean} whether steps are read aloud */
  aloud = false;
  /** @type {{ run: string | null, focus: Focus, shown: number, all: boolean, top: number } | null} what the visitor looked at */
  before = null;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    /** @type {{ at: number, seen: boolean }} */
    this.kept = { at: 0, seen: false, ...kept.get(STORED.tour, {}) };
    this.button = press("lv-quiet lv-tour-open", () => (this.on ? this.leave() : this.begin()));
    this.offered = el("span");
    this.accept = press("lv-quiet", () => this.begin());
    this.refuse = press("lv-icon", () => this.remember({ seen: true }), "×");
    this.offer = el("div", "lv-offer", this.offered, this.accept, this.refuse);
    this.build();
    new ResizeObserver(() => this.place()).observe(document.body);
    window.addEventListener("resize", () => this.place());
    document.addEventListener("scroll", (event) => event.target !== document && this.place(), true);
    for (const kind of ["wheel", "pointerdown", "touchmove"]) {
      window.addEventListener(kind, () => (this.until = 0), { passive: true }); // the visitor scrolls
    }
    document.addEventListener("keydown", (event) => this.pressed(event), true);
  }

  build() {
    this.ring = el("div", "lv-tour-ring");
    this.title = el("h2");
    this.words = el("p", "lv-tour-words");
    this.count = el("span", "lv-tour-place");
    this.back = press("lv-quiet", () => this.go(this.at - 1));
    this.next = press("lv-quiet lv-tour-next", () => this.forward());
    this.quit = press("lv-icon", () => this.leave(), "×");
    this.question = el("div", "lv-tour-question");
    this.told = el("p", "lv-tour-told");
    this.told.setAttribute("role", "status");
    this.voice = press("lv-icon lv-tour-voice", () => this.speak(), "🔈");
    this.voice.hidden = !("speechSynthesis" in window); // the browser's own: nothing is sent anywhere by us
    this.card = el("section", "lv-tour", this.title, this.words, this.question, this.told, this.voice, el("div", "lv-tour-row", this.count, this.back, this.next), this.quit);
    this.card.setAttribute("role", "dialog");
    this.card.tabIndex = -1;
    this.title.id = "lv-tour-title";
    this.words.id = "lv-tour-words";
    this.card.setAttribute("aria-labelledby", this.title.id);
    this.card.setAttribute("aria-describedby", this.words.id);
  }

  /** @param {ExploreConfig} config */
  configure({ texts, lang }) {
    this.texts = texts;
    this.wanted = lang;
    this.offered.textContent = texts["live.tour.offer"];
    name(this.refuse, texts["live.tour.refuse"]);
    this.back.textContent = texts["live.tour.back"];
    name(this.quit, texts["live.tour.leave"], texts["live.tour.leave.hint"]);
    this.nameVoice();
    this.show();
    if (this.on && this.lang !== lang) this.fetch().then((there) => there && this.on && this.write());
  }

  /** @param {{ at?: number, seen?: boolean }} change */
  remember(change) {
    this.kept = { ...this.kept, ...change };
    kept.set(STORED.tour, this.kept);
    this.show();
  }

  /** Whether it can begin: there is a recorded run, and no run is being made that would take the page back. */
  get can() {
    const { page } = this;
    return page.opening && (page.onRecorded || !page.run || Boolean(page.end));
  }

  show() {
    const { page, texts } = this;
    if (!texts) return;
    const key = this.on ? "leave" : this.kept.at ? "resume" : "take";
    const look = [key, this.can, page.opening, this.kept.seen, page.onRecorded, texts["live.tour.take"]].join();
    if (look === this.looks) return; // this is asked at every message
    this.looks = look;
    this.button.hidden = !page.opening;
    this.button.disabled = this.accept.disabled = !this.can;
    this.button.textContent = texts[`live.tour.${key}`];
    this.button.title = texts[this.can ? `live.tour.${key}.hint` : "live.tour.wait"];
    this.button.classList.toggle("lv-first", !this.kept.seen);
    this.accept.textContent = texts["live.tour.take"];
    // it stays while the first runs are made: nothing below it moves because of them
    this.offer.hidden = this.kept.seen || this.on || !page.opening;
  }

  // --- beginning and end -------------------------------------------------------------------------------------------

  /** Fetch the steps in the page's language; whether they are there. */
  async fetch() {
    const lang = this.wanted;
    if (this.lang === lang) return true;
    try {
      const answer = await fetch(new URL(`../tour.${lang}.json`, import.meta.url));
      /** @type {Told} */
      const { steps } = await answer.json();
      this.steps = steps;
      this.lang = lang;
    } catch {
      this.page.say(this.texts["live.tour.failed"], true);
      return false;
    }
    return this.steps.length > 0;
  }

  /** Begin, or go on where it was left. */
  async begin() {
    const { page } = this;
    if (this.on || this.beginning || !this.can) return;
    this.beginning = true;
    await page.connected;
    const there = await this.fetch();
    this.beginning = false;
    if (!there || !this.can) return;
    this.on = true;
    this.before = { run: page.run, focus: { ...page.focus }, shown: page.seq, all: page.seq === page.total, top: window.scrollY };
    this.remember({ seen: true });
    if (!page.onRecorded) await page.showRecorded();
    if (!page.onRecorded) {
      this.close(); // the server did not answer, and the page says so
      return;
    }
    document.body.append(this.ring, this.card);
    await this.go(Math.min(this.kept.at, this.steps.length - 1));
  }

  close() {
    this.on = false;
    this.turn += 1;
    this.hush();
    this.ring.remove();
    this.card.remove();
    this.page.shelf.lend([]);
    this.show();
  }

  /** End it, at its end or before, and give back what the visitor looked at. */
  async leave({ done = false } = {}) {
    const { page, before } = this;
    if (!this.on) return;
    this.close();
    this.remember({ at: done ? 0 : this.at });
    const focus = { ...before.focus, lang: page.focus.lang };
    page.player.pause();
    this.button.focus({ preventScroll: true });
    window.scrollTo(0, before.top);
    if (before.run === page.run) await page.look(focus, before.all ? page.total : before.shown);
    else await page.showRun(before.run, focus, before.all ? null : before.shown);
  }

  /** Another run came to the page; the visitor's own ends the tour. */
  moved() {
    if (!this.on || this.page.onRecorded) return;
    this.close();
    this.remember({ at: this.at });
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (!this.on || event.isComposing || document.querySelector("dialog[open], .lv-menu-list:not([hidden])")) return;
    if (event.key === "Escape") this.leave();
    else if (event.key === "Enter" && event.target === this.card) this.forward();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // --- a step ------------------------------------------------------------------------------------------------------

  forward() {
    if (this.at + 1 < this.steps.length) return this.go(this.at + 1);
    return this.leave({ done: true });
  }

  /** @param {number} at */
  async go(at) {
    const { page } = this;
    const turn = ++this.turn;
    this.at = Math.max(0, at);
    this.remember({ at: this.at });
    this.until = performance.now() + SETTLES;
    this.write();
    this.card.focus({ preventScroll: true });
    const step = this.steps[this.at];
    page.player.pause();
    page.shelf.lend(step.panels);
    this.place();
    await page.look({ ...step.focus }, step.shown ?? page.total);
    if (turn !== this.turn) return;
    this.place();
    if (step.play) page.player.play();
  }

  write() {
    const { texts, steps, at } = this;
    const { title, words } = steps[at];
    this.title.textContent = title;
    this.words.replaceChildren(...termed(words));
    this.words.scrollTop = 0;
    this.count.textContent = fill(texts["live.tour.place"], { n: at + 1, total: steps.length });
    this.back.disabled = at === 0;
    this.next.textContent = texts[at + 1 < steps.length ? "live.tour.next" : "live.tour.done"];
    this.ask();
    if (this.aloud) this.read();
    this.place();
  }

  // --- a question, and reading aloud ---------------------------------------------------------------------------------

  /** The answers of a step that asks, none chosen yet. */
  ask() {
    const { asks } = this.steps[this.at];
    this.told.replaceChildren();
    this.question.hidden = !asks;
    this.question.replaceChildren(...(asks?.answers ?? []).map((answer, i) => press("lv-quiet", () => this.answer(i), answer)));
  }

  /** The reader chose: what holds is marked with a sign, said, and shown in the run. @param {number} chosen */
  answer(chosen) {
    const { asks } = this.steps[this.at];
    [...this.question.children].forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i === chosen));
      button.textContent = `${i === asks.right ? "✓ " : i === chosen ? "✗ " : ""}${asks.answers[i]}`;
    });
    const lessons = el("a", "", this.texts["live.tour.lessons"]);
    lessons.href = PAGES.learn;
    this.told.replaceChildren(...termed(asks.told[chosen === asks.right ? "right" : "wrong"]), " ", lessons);
    if (this.aloud) this.read();
    this.page.look({ ...asks.focus }, this.page.total);
    this.place();
  }

  nameVoice() {
    name(this.voice, this.texts[this.aloud ? "live.tour.hush" : "live.tour.speak"]);
    this.voice.setAttribute("aria-pressed", String(this.aloud));
  }

  /** Read this step aloud and those that follow, or no more. */
  speak() {
    if (this.aloud) this.hush();
    else {
      this.aloud = true;
      this.read();
    }
    this.nameVoice();
  }

  /** What the card says now, by the browser's own voice. */
  read() {
    window.speechSynthesis.cancel();
    const said = new SpeechSynthesisUtterance(this.told.textContent || `${this.title.textContent}. ${this.words.textContent}`);
    said.lang = { en: "en-US", zh: "zh-CN" }[this.lang] ?? this.lang;
    window.speechSynthesis.speak(said);
  }

  hush() {
    if (this.aloud) window.speechSynthesis.cancel();
    this.aloud = false;
    if (this.texts) this.nameVoice();
  }

  /** What the step explains; the text where that is not on the page. */
  target() {
    const found = document.querySelector(this.steps[this.at].target);
    return found?.getClientRects().length ? found : this.page.text;
  }

  /** Put ring and card beside what is explained, never over it, and bring both into view. */
  place() {
    if (!this.on || !this.card.isConnected) return;
    const { card, ring } = this;
    const seen = this.target().getBoundingClientRect();
    const [wide, high] = [document.documentElement.clientWidth, window.innerHeight];
    const box = { left: seen.left + window.scrollX, top: seen.top + window.scrollY, width: seen.width, height: seen.height };
    Object.assign(ring.style, { left: `${box.left - 4}px`, top: `${box.top - 4}px`, width: `${box.width + 8}px`, height: `${box.height + 8}px` });
    const { offsetWidth: w, offsetHeight: h } = card;
    /** @type {Record<string, number>} */
    const room = { right: wide - seen.right, left: seen.left };
    const beside = box.height > h / 2 && ["right", "left"].find((side) => room[side] >= w + GAP + EDGE);
    const above = box.top - GAP - h; // where the card would be
    const tall = box.height + GAP + h + 2 * EDGE > high; // too tall to be seen together: what is seen of it is its top
    let left = Math.min(Math.max(box.left, EDGE), wide - w - EDGE);
    let top = tall && above >= EDGE ? above : box.top + box.height + GAP;
    if (beside) [left, top] = [beside === "right" ? box.left + box.width + GAP : box.left - GAP - w, box.top];
    Object.assign(card.style, { left: `${left}px`, top: `${top}px` });
    if (performance.now() < this.until) this.reveal(Math.min(box.top, top), Math.max(box.top + box.height, top + h), high);
  }

  /**
   * Scroll the page until `from` to `to` can be seen; when they are too far apart, from `from` on.
   * @param {number} from
   * @param {number} to
   * @param {number} high the window's height
   */
  reveal(from, to, high) {
    if (from >= window.scrollY + EDGE / 2 && to <= window.scrollY + high) return;
    const spare = high - (to - from);
    const top = Math.max(0, from - Math.max(EDGE, spare / 2));
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    window.scrollTo({ top, behavior: still ? "instant" : "smooth" });
  }
}
