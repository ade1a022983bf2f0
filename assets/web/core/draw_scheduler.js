// Drawing within a budget: one panel an animation frame, the one that has waited longest, with pauses for all the rest.

const DRAW_SHARE = 0.5; // of the time, at most, goes into drawing while a run is made or replayed,
const LONGEST_REST = 25; // ms; but a draw that took long is not waited for as long again: the panels fall behind
const SETTLED = 500; // ms after a visitor looked elsewhere, and may again, until what is not on screen is drawn

export class Screen {
  /** @type {boolean} whether it looks again by itself */
  scheduled = false;
  /** @type {number} when something was drawn */
  lastDraw = 0;
  /** @type {number} ms that it took */
  lastCost = 0;

  /** @param {import("../explore/page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const panel = page.panels.get(/** @type {HTMLElement} */ (entry.target).dataset.panel);
        if (panel) panel.onScreen = entry.isIntersecting;
      }
      this.wake();
    });
    let dark = page.theme();
    new MutationObserver(() => {
      if (page.theme() === dark) return;
      dark = page.theme();
      for (const panel of page.panels.values()) if (panel.figure) panel.touch(panel.seq);
      this.wake();
    }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  }

  wake() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => this.tick());
  }

  /** Look again in `ms`. @param {number} ms */
  later(ms) {
    this.scheduled = true;
    setTimeout(() => requestAnimationFrame(() => this.tick()), ms);
  }

  /** The panel to draw now, if any, or the ms to wait before one is. */
  next() {
    const { page } = this;
    const quiet = page.end && !page.player.playing; // nobody else needs the time
    if (quiet && page.looking) return null; // another picture is on its way, and must not find the page busy
    const due = [...page.panels.values()].filter((panel) => panel.figure && panel.dirtySince !== null && !panel.dragging && !panel.waiting);
    due.sort((a, b) => a.dirtySince - b.dirtySince);
    const visible = due.find((panel) => panel.onScreen);
    const past = performance.now() - this.lastDraw;
    if (visible) {
      const rest = quiet ? 0 : Math.min(this.lastCost * (1 / DRAW_SHARE - 1), LONGEST_REST) - past;
      return rest > 1 ? rest : visible;
    }
    window.loopvizLater?.(); // nothing is to be seen here: Gradio may take the time it needs
    // off screen counts only when nothing comes any more: then scrolling finds every panel drawn
    if (!quiet || !due.length) return null;
    const looked = performance.now() - page.lookedAt;
    return looked < SETTLED ? SETTLED - looked : due[0];
  }

  async tick() {
    this.scheduled = false;
    const { page } = this;
    if (!page.Plotly || !page.config) return;
    const next = this.next();
    if (next === null) return;
    if (typeof next === "number") {
      this.later(next);
      return;
    }
    const began = performance.now();
    try {
      await next.draw();
      window.loopvizLater?.(); // one picture is there: what Gradio needs is fetched while the others are drawn
    } catch (error) {
      console.error(`panel ${next.name}`, error);
    }
    this.lastDraw = performance.now();
    this.lastCost = this.lastDraw - began;
    page.mark();
    if (next.onScreen) this.wake();
    else {
      // nobody sees it: no frame to wait for
      this.scheduled = true;
      setTimeout(() => this.tick());
    }
  }
}
