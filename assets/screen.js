// Drawing within a budget: one panel an animation frame, the one that has waited longest, and at most about half of the time.

const DRAW_SHARE = 0.5; // at most this share of the time goes into drawing while a run is made or replayed

export class Screen {
  constructor(page) {
    this.page = page;
    this.scheduled = false;
    this.lastDraw = 0;
    this.lastCost = 0;
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const panel = page.panels.get(entry.target.dataset.panel);
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

  /** Draw the panel that has waited longest, then leave the browser at least as much time as that took. */
  async tick() {
    this.scheduled = false;
    const { page } = this;
    if (!page.Plotly || !page.config) return;
    const quiet = page.end && !page.player.playing; // nobody else needs the time
    const due = [...page.panels.values()].filter((panel) => panel.figure && panel.dirtySince !== null && !panel.dragging);
    // off screen counts only when nothing comes any more: then scrolling finds every panel drawn
    const visible = due.filter((panel) => panel.onScreen);
    if (!visible.length) window.loopvizLater?.(); // the first sight is drawn: now Gradio may take the time it needs
    const next = (visible.length ? visible : quiet ? due : []).sort((a, b) => a.dirtySince - b.dirtySince)[0];
    if (!next) return;
    const now = performance.now();
    const rest = quiet ? 0 : this.lastCost * (1 / DRAW_SHARE - 1) - (now - this.lastDraw);
    if (rest > 1) {
      this.scheduled = true;
      setTimeout(() => requestAnimationFrame(() => this.tick()), rest);
      return;
    }
    try {
      await next.draw(page.Plotly);
    } catch (error) {
      console.error(`panel ${next.name}`, error);
    }
    this.lastDraw = performance.now();
    this.lastCost = this.lastDraw - now;
    page.mark();
    this.wake();
  }
}
