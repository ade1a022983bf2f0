// The line that says where the chosen model is: waited for, loading, ready or refused.

import { el } from "../core/dom.js";
import { AskModel } from "./model_consent.js";
import { ModelNotes } from "./model_notes.js";

const AGAIN_MS = 700; // between two looks
const [SOON, SOON_MS] = [40, 200]; // the first looks, by which a model that comes along is ready: its visitor waits for it
const PATIENCE = 20; // looks in vain, one after the other

/** @import { AskModel as Asked, ModelStatus } from "../core/contract.js" */

export class ModelLine {
  /** @type {object | null} the newest watch */
  watcher = null;
  /** @type {boolean} whether Stop was pressed while the model was on its way: it is looked for, and not wanted */
  resting = false;
  /** @type {string} of which model, and state, the server was asked what it means */
  told = "";

  /** @param {import("../explore/page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.node = el("span", "lv-model");
    this.notes = new ModelNotes();
    this.asking = new AskModel(() => this.watch(true));
  }

  /**
   * @param {ModelStatus} status
   * @param {string | undefined} asked the model's name
   */
  show({ text, state, notes }, asked) {
    const { page, node } = this;
    this.asking.show(asked, { text, state }, page.texts["live.model.load"]);
    node.textContent = node.title = text;
    node.dataset.state = page.root.dataset.model = state;
    this.notes.show(notes);
  }

  /** The model is there, or cannot be had: the server is asked what that means for the controls. @param {string} now */
  arrived(now) {
    const { page } = this;
    if (this.told === now) return;
    this.told = now;
    // what the visit began with is in the controls by then: the model's own settings come on top of it
    page.share.visited.then(() => setTimeout(() => page.tell.loaded(), 50));
  }

  /** The visitor runs it: that is to agree, and to want it again. */
  agree() {
    if (this.asking.node.hidden && !this.resting) return;
    this.asking.agree(this.page.form.model);
    this.watch(true);
  }

  /** Stop was pressed: what is being fetched for this visitor is not wanted any more. */
  rest() {
    this.resting = ["waiting", "importing", "loading"].includes(this.node.dataset.state);
  }

  /** Follow the loading of the model that is chosen in the controls until it is there; the newest call does. */
  async watch(again = false) {
    const { config, server, form } = this.page;
    if (!config || !server) return undefined;
    const watcher = (this.watcher = {});
    if (again) [this.told, this.resting] = ["", false];
    for (let tries = 0, vain = 0; ; tries++) {
      /** @type {ModelStatus | null} */
      let status = null;
      /** @type {Asked} */
      const asked = { lang: config.lang, precision: form.precision, again: again && !tries, linked: false, look: Boolean(this.resting), model: form.model }; // left out until one was chosen
      asked.linked = this.asking.linked(asked.model, form.touched.has("model"));
      try {
        status = JSON.parse(await server.model_status(JSON.stringify(asked)));
      } catch {
        status = null;
      }
      if (this.watcher !== watcher) return undefined; // another model, or another language
      if (status) this.show(status, asked.model);
      if (status?.state === "ask" || (asked.look && status?.state === "waiting")) return undefined; // until the visitor agrees
      if (status?.state === "ready" || status?.state === "failed") return this.arrived(JSON.stringify([asked.model, asked.precision, status.state]));
      vain = status ? 0 : vain + 1;
      if (vain > PATIENCE) return undefined;
      const wait = status && tries < SOON ? SOON_MS : AGAIN_MS;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}
