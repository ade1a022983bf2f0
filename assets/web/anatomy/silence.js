// Whether anything is still heard of what was begun: messages whose way breaks off end without a word.

const LONG_MS = 15_000; // then the server is asked whether it is there

export class Silence {
  /** @type {boolean} whether nothing was heard for a while, of a server that is there: it may be begun once more */
  long = false;
  /** @type {number} when something was heard */
  heard = 0;

  /**
   * @param {import("./main.js").Page} page
   * @param {{ ticket: string | null, running: boolean, quiet(kind: string, again: boolean): void, lost(words: string): void }} begun
   *   told that it is quiet, with the kind of what the server says of the run, and whether it was quiet before; or that nobody answers
   */
  constructor(page, begun) {
    this.page = page;
    this.begun = begun;
    setInterval(() => this.watch(), 1000);
  }

  /** Something was heard, or begun. */
  hear() {
    this.heard = performance.now();
    this.long = false;
  }

  /** Where nothing was heard for a while, the server is asked whether it is there at all; what it computes may take its time. */
  async watch() {
    const { page, begun } = this;
    if (!begun.running || performance.now() - this.heard < LONG_MS) return;
    this.heard = performance.now();
    const { ticket: ours } = begun;
    const found = await page.frame.ask("show", { run: page.run.run, lang: page.frame.lang });
    if (!begun.running || ours !== begun.ticket) return;
    if (!found) return begun.lost(page.text("anatomy.lost"));
    const again = this.long;
    this.long = true;
    begun.quiet(found.kind, again);
  }
}
