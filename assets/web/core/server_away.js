// What a page says, near its top, while its server cannot be reached, and when it is back. What is on the page stays.

import { el, press } from "./dom.js";

const SAID_MS = 8_000; // that the server is back is said for so long

/** @import { Reach } from "./page_globals.js" */

export class ServerAway {
  /** @type {Reach} */
  state = "here";
  /** @type {boolean} whether that it is back is being said */
  welcome = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  clock = undefined;

  /**
   * @param {(key: string) => string} text in the page's language
   * @param {{ away(): void, back(): void }} page told that it went, and that it is back
   */
  constructor(text, page) {
    this.text = text;
    this.page = page;
    this.words = el("span");
    this.reload = press("lv-quiet", () => location.reload());
    this.node = el("div", "lv-away", this.words, this.reload);
    this.node.setAttribute("role", "status");
    document.body.prepend(this.node); // before anything is said: what appears with its words is not read aloud
    this.show();
    window.loopvizReach?.follow((state) => this.turn(state));
  }

  /** @param {Reach} state */
  turn(state) {
    const before = this.state;
    this.state = state;
    clearTimeout(this.clock);
    this.welcome = state === "here";
    if (before === "here") this.page.away();
    if (state === "here") {
      this.clock = setTimeout(() => {
        this.welcome = false;
        this.show();
      }, SAID_MS);
      this.page.back();
    }
    this.show();
  }

  /** Say how it stands; also when the language has changed. */
  show() {
    const { state, welcome } = this;
    const key = state === "here" ? (welcome ? "back" : "") : state;
    this.words.textContent = key ? this.text(`page.server.${key}`) : "";
    this.reload.textContent = this.text("page.server.reload");
    this.reload.hidden = state !== "changed";
    this.node.dataset.state = key;
  }
}
