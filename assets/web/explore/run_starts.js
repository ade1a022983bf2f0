// Starting and stopping: a run that is asked for takes the place of the one before, and news of an earlier start are none.

import { visitor } from "../core/visitor.js";

/** @import { ExploreSnapshot, ExploreStatus } from "../core/contract.js" */

export class RunStarts {
  /** @type {number} of the latest start */
  n = 0;
  /** @type {boolean} whether that one has nothing to show yet */
  starting = false;
  /** @type {boolean} whether it is to end, and has not ended yet */
  halting = false;
  /** @type {boolean} whether the latest start waits for what a link sets */
  held = false;
  /** @type {Set<string>} runs that a later start has replaced */
  past = new Set();

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
  }

  /** Ask for a run of what the controls show. It takes the place of the one that is being made, or waits to be. */
  start() {
    const { page } = this;
    if (!page.tell && page.share.opened) return;
    if (page.away.state === "changed") {
      page.old(true); // nobody would hear of it
      return;
    }
    page.player.pause();
    page.model.agree();
    this.n += 1;
    this.starting = true;
    this.halting = false;
    page.form.refuse(null);
    page.linked.close();
    page.say(page.texts["live.state.starting"]);
    page.mark();
    if (page.share.opened) this.tell(this.n);
    else this.hold(this.n);
  }

  /** What was begun is not waited for any more. */
  drop() {
    this.starting = this.halting = this.held = false;
  }

  /** Whoever opens a link and runs it at once means what the link holds, and not what the controls show until it is there. @param {number} n */
  async hold(n) {
    const { page } = this;
    this.held = true;
    await page.share.settled;
    if (!this.held || n !== this.n) return;
    this.held = false;
    this.tell(n);
  }

  /** The server is asked for it. @param {number} n */
  tell(n) {
    this.page.tell.start({ n, wishes: this.page.wishes(), visitor: visitor() });
  }

  /** Stop was pressed: up to which start. It is being stopped until the server says that it has ended. */
  stop() {
    const { page } = this;
    page.model.rest();
    if (this.held) {
      this.held = this.starting = false; // the server knows nothing of it yet
      page.say(page.texts["live.end.stopped"]);
    } else if (this.starting || (page.run && !page.end)) {
      this.halting = true;
      page.say(page.texts["live.state.stopping"]);
    }
    page.mark();
    return this.n;
  }

  /** Whether a message is of an earlier start than the latest. @param {{ n?: number }} message */
  stale({ n }) {
    return n !== undefined && n < this.n;
  }

  /** What the server says of a start; whether that is news. @param {ExploreStatus} message */
  heard(message) {
    if (this.stale(message)) return false;
    if (message.over) this.starting = this.halting = false;
    return message.over || !this.halting; // where it waits is no news any more
  }

  /** The server has a run for us; whether it is to be shown: one that a later start has replaced meanwhile is not. @param {ExploreSnapshot} message */
  begun(message) {
    if (this.stale(message) && message.run !== this.page.run) {
      this.past.add(message.run);
      return false;
    }
    if (message.n === this.n) this.starting = false;
    return true;
  }

  /** `idle`, `starting`, `running` or `stopping`. */
  get state() {
    const { run, end } = this.page;
    return this.halting ? "stopping" : this.starting ? "starting" : run && !end ? "running" : "idle";
  }
}
