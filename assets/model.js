// The line that says where the chosen model is: waited for, loading, ready or refused.

import { el } from "./dom.js";

const AGAIN_MS = 700; // between two looks
const PATIENCE = 20; // looks in vain

export class ModelLine {
  constructor(page) {
    this.page = page;
    this.node = el("span", "lv-model");
    this.watcher = null; // the newest watch
    this.seen = false; // whether a model has been ready
  }

  show({ text, state }) {
    const { page, node } = this;
    node.textContent = node.title = text;
    node.dataset.state = page.root.dataset.model = state;
    if (state !== "ready" || this.seen) return;
    this.seen = true;
    // what the visit began with is in the controls by then: the model's own settings come on top of it
    page.share.visited.then(() => setTimeout(() => page.tell.loaded(), 50));
  }

  /** Follow the loading of the model that is chosen in the controls until it is there; the newest call does. */
  async watch() {
    const { config, server } = this.page;
    if (!config || !server) return;
    const watcher = (this.watcher = {});
    for (let tries = 0; ; tries++) {
      let status = null;
      try {
        const asked = { lang: config.lang, model: window.loopvizModel }; // see ExplorePage; left out until one was chosen
        status = JSON.parse(await server.model_status(JSON.stringify(asked)));
      } catch {
        status = null;
      }
      if (this.watcher !== watcher) return; // another model, or another language
      if (status) this.show(status);
      if (status?.state === "ready" || status?.state === "failed" || (!status && tries > PATIENCE)) return;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}
