// What a layer computed in a loop step, as the server told it; and those that were asked for, with their neighbours.

import { unpack } from "./numbers.js";

const PATIENCE_MS = 10_000; // between two times that a word is read again because what was read is gone
const MOST = 64; // layers and loop steps that are kept of a token

/** @import { AnatomyLayer } from "../core/contract.js" */
/** @import { Tensor } from "./numbers.js" */

export class LayerData {
  /** @type {Map<string, Tensor>} unpacked */
  tensors = new Map();

  /** @param {AnatomyLayer} told */
  constructor(told) {
    this.told = told;
    this.facts = told.facts;
    this.shapes = told.shapes;
    this.columns = told.columns;
    this.layer = told.layer;
    this.step = told.step;
    this.stages = told.stages;
  }

  /** Whether there is such a tensor: not every model has all. @param {string} name */
  has(name) {
    return name in this.told.tensors;
  }

  /** @param {string} name */
  get(name) {
    if (!this.tensors.has(name)) this.tensors.set(name, unpack(this.told.tensors[name]));
    return this.tensors.get(name);
  }

  /** Of how many neighbours a number is the largest. @param {string} name */
  each(name) {
    return this.told.each[name] ?? 1;
  }
}

export class Layers {
  /** @type {Map<string, Promise<LayerData | string>>} by token, layer and loop step */
  known = new Map();
  /** @type {number} when a word was last read again by itself */
  readAt = -PATIENCE_MS;

  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
  }

  clear() {
    this.known.clear();
  }

  /**
   * A layer in a loop step, or words that say why not.
   * @param {number} layer
   * @param {number} step
   */
  get(layer, step) {
    const { page } = this;
    const key = `${page.look.look} ${layer} ${step}`;
    const found = this.known.get(key);
    if (found) return found;
    if (this.known.size >= MOST) this.known.delete(this.known.keys().next().value);
    const asked = this.ask(layer, step);
    this.known.set(key, asked);
    asked.then((answer) => typeof answer === "string" && this.known.delete(key)); // it may be had later
    return asked;
  }

  /** @param {number} layer @param {number} step @returns {Promise<LayerData | string>} */
  async ask(layer, step) {
    const { frame, look } = this.page;
    const answer = await frame.ask("layer", { look: look.look, layer, step, lang: frame.lang });
    if (answer?.kind === "layer") return new LayerData(answer);
    if (answer?.kind === "no") return answer.text;
    if (answer?.kind !== "gone") return frame.text("anatomy.lost");
    this.readAgain();
    return frame.text("anatomy.look_gone");
  }

  /** What the server had read made room for others: once more, unless it went at once. */
  readAgain() {
    if (performance.now() - this.readAt < PATIENCE_MS || this.page.running) return;
    this.readAt = performance.now();
    this.page.begin();
  }
}
