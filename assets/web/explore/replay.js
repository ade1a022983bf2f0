// Replay of a finished run: play, pause, a scrubber over its tokens, and a speed.

import { STORED } from "../core/contract.js";
import { el, fill, kept, name, press, sleep } from "../core/dom.js";

const RATE = 4; // tokens a second at 1×: as fast as people read
const SPEEDS = [0.25, 0.5, 1, 2, 4];
const AHEAD = 10; // steps still to be shown when the next are asked for

export class Player {
  /** @type {boolean} */
  playing = false;
  /** @type {number | null} where the scrubber was last dragged to */
  want = null;
  /** @type {boolean} whether the way there is being asked for */
  moving = false;
  /** @type {Record<string, string> | undefined} words, once they are known */
  texts = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.button = press("lv-play", () => this.toggle());
    this.bar = el("input", "lv-scrub");
    Object.assign(this.bar, { type: "range", min: 1, max: 1, value: 1, step: 1 });
    this.bar.addEventListener("input", () => this.go(Number(this.bar.value)));
    this.place = el("span", "lv-place");
    this.speed = el("select", "lv-choice lv-speed");
    for (const speed of SPEEDS) {
      const option = el("option", "", `${speed}×`);
      option.value = String(speed);
      this.speed.append(option);
    }
    const remembered = kept.get(STORED.speed, 1);
    this.speed.value = String(SPEEDS.includes(remembered) ? remembered : 1);
    this.speed.addEventListener("change", () => kept.set(STORED.speed, Number(this.speed.value)));
    this.more = press("lv-quiet", () => page.again.goOn());
    this.edit = press("lv-quiet", () => page.again.edit());
    this.recorded = press("lv-quiet lv-show-recorded", () => page.showRecorded());
    this.back = press("lv-quiet lv-back", () => page.showOwn());
    this.node = el("div", "lv-player", el("div", "lv-track", this.button, this.bar, this.place, this.speed));
    // those that come and go stand last: nothing moves
    this.actions = el("div", "lv-actions", page.share.menu.node, page.share.stored.chosen, this.more, this.edit, this.back, page.share.back, this.recorded);
  }

  /** @param {Record<string, string>} texts */
  configure(texts) {
    this.texts = texts;
    this.bar.setAttribute("aria-label", texts["live.scrub"]);
    name(this.speed, texts["live.speed"], `${texts["live.speed"]}: ${fill(texts["live.speed.hint"], { rate: RATE })}`);
    for (const [node, key] of /** @type {[HTMLElement, string][]} */ ([[this.more, "continue"], [this.edit, "edit"]])) {
      node.textContent = texts[`live.${key}`];
      node.title = texts[`live.${key}.hint`];
    }
    this.recorded.textContent = texts["live.show_recorded"];
    this.back.textContent = texts["live.back"];
    this.show();
  }

  /** Whether there is a finished run to move through. */
  get can() {
    const { page } = this;
    return Boolean(page.run && page.end && page.total > 1 && !page.lost);
  }

  show() {
    const { page, texts } = this;
    if (!texts) return;
    this.node.hidden = this.actions.hidden = !page.run;
    name(this.button, texts[this.playing ? "live.pause" : "live.play"]);
    this.button.dataset.playing = this.playing ? "1" : "0";
    for (const node of [this.button, this.bar, this.speed]) node.disabled = !this.can;
    this.bar.max = String(Math.max(1, page.total));
    if (this.want === null && !this.moving) this.bar.value = String(page.seq);
    const n = Number(this.bar.value);
    this.bar.style.setProperty("--share", String(page.total > 1 ? (n - 1) / (page.total - 1) : 1));
    const said = fill(texts["live.position"], { n, total: page.total });
    this.place.textContent = `${n} / ${page.total}`;
    this.place.title = said;
    this.bar.setAttribute("aria-valuetext", said);
    this.more.hidden = this.edit.hidden = !page.end || page.lost || !page.total;
    this.more.disabled = page.end === "context";
    this.recorded.hidden = !page.opening || page.onRecorded || !page.end;
    this.back.hidden = !page.own || page.run === page.own || !page.end;
    page.share.show();
  }

  /** How long a word is shown, in milliseconds. */
  get wordMs() {
    return 1000 / (RATE * Number(this.speed.value));
  }

  /** Where a replay begins: the prompt has been read. */
  beginning() {
    return Math.max(1, Math.min(this.page.promptTokens, this.page.total - 1));
  }

  /** Show the run as it was after `place` tokens; while that is being asked for, only the latest wish counts. @param {number} place */
  async go(place) {
    if (!this.can) return;
    this.pause();
    this.want = Math.min(Math.max(place, 1), this.page.total);
    this.show();
    if (this.moving) return;
    this.moving = true;
    while (this.want !== null) {
      const to = this.want;
      this.want = null;
      await this.page.moveTo(to);
    }
    this.moving = false;
    this.page.hero.tell();
    this.show();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.show();
    this.page.screen.wake(); // what was off screen can now be drawn
    this.page.hero.tell();
    this.page.mark();
  }

  async play() {
    const { page } = this;
    if (!this.can || this.playing) return;
    this.playing = true;
    this.show();
    const { run } = page;
    if (page.seq >= page.total) await page.moveTo(this.beginning());
    else if (page.focus.token !== null) await page.look({ token: null, step: null });
    try {
      await this.steps(() => this.playing && page.run === run && page.seq < page.total);
    } finally {
      if (page.run === run) this.pause();
      this.playing = false;
      this.show();
    }
  }

  /** Show token after token, asking for the next ones before they are due. @param {() => boolean} goesOn */
  async steps(goesOn) {
    const { page } = this;
    /** @typedef {import("./run_view.js").Edits} Edits */
    let waiting = /** @type {Edits[]} */ ([]);
    let coming = /** @type {Promise<Edits[] | null> | null} */ (null);
    let { epoch } = page;
    let due = performance.now();
    while (goesOn()) {
      if (page.epoch !== epoch) [waiting, coming, epoch] = [[], null, page.epoch]; // drawn anew: other figures, other edits
      if (page.looking) {
        await sleep(15);
        continue;
      }
      if (!waiting.length) {
        const asked = page.epoch;
        const found = await (coming ?? page.fetchSteps(page.seq));
        coming = null;
        if (page.epoch !== asked) continue;
        if (!found?.length) return;
        waiting = found;
        continue;
      }
      const last = waiting[waiting.length - 1].last;
      if (!coming && waiting.length < AHEAD && last < page.total) coming = page.fetchSteps(last);
      const now = performance.now();
      if (now < due) {
        await sleep(Math.min(due - now, 50));
        continue;
      }
      due = Math.max(due, now - 200) + this.wordMs;
      const step = waiting.shift();
      if (coming && !waiting.length) {
        waiting = (await coming) ?? [];
        coming = null;
      }
      if (!page.step(step)) waiting = [];
    }
  }
}
