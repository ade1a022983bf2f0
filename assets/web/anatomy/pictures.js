// The pictures of a stage: of every one its tensors, of some what makes them plain to see.

import { Attention } from "./attention.js";
import { curves, triangle } from "./diagrams.js";
import { Heats } from "./heat.js";
import { unpack } from "./numbers.js";
import { Rope } from "./rope.js";
import { Sampling } from "./sampling.js";

/** @import { AnatomyStage } from "../core/contract.js" */
/** @import { LayerData } from "./layer_data.js" */

const ONE_SCALE = ["between", "result", "rope"]; // of which the tensors are to be compared by strength
const AT_A_NORM = ["norm_attended", "norm_down"]; // what is said goes through it before it is added
const AT_AN_END = "result_then"; // something follows the second sum before the state leaves

export class Pictures {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    this.heats = new Heats(page);
    this.attention = new Attention(page, this.heats);
    this.rope = new Rope(page);
    this.sampling = new Sampling(page);
  }

  /**
   * @param {AnatomyStage} stage
   * @param {LayerData | null} layer
   * @param {LayerData | null} other the loop step beside it
   * @returns {Node[]}
   */
  of(stage, layer, other) {
    if (!this.page.look) return [];
    if (!stage.within) return this.ofToken(stage);
    if (!layer) return [];
    if (stage.name === "keys") return this.attention.kept(layer, other);
    if (stage.name === "swish") return this.swish(layer, other);
    return [...this.extra(stage.name, layer), ...this.tensors(stage.drawn, layer, other, ONE_SCALE.includes(stage.name))];
  }

  /** What a stage has beside its tensors. @param {string} stage @param {LayerData} layer @returns {Node[]} */
  extra(stage, layer) {
    if (stage === "query" || stage === "key") return [this.attention.heads(layer)];
    if (stage === "rope") return this.rope.of(layer);
    if (stage === "scores" || stage === "weights") return [this.attention.text(layer)];
    if (stage === "between") return [triangle(this.page, layer.facts.between)];
    if (stage === "result") return [triangle(this.page, layer.facts.result)];
    return [];
  }

  /**
   * Tensors, each with the other loop step's under it, in the same colours.
   * @param {string[]} names
   * @param {LayerData} layer
   * @param {LayerData | null} other
   * @param {boolean} together whether all have one scale
   */
  tensors(names, layer, other, together) {
    const pair = [layer, other].filter((one) => one?.has(names[0])); // a stage of one loop step may not be one of the other
    const shown = names.map((name) => ({ name, tensors: pair.map((one) => one.get(name)) }));
    const largest = shown.map(({ tensors }) => Math.max(...tensors.map((tensor) => tensor.largest)));
    const all = Math.max(...largest);
    /** @type {Node[]} */
    const made = shown.flatMap(({ name, tensors }, i) =>
      tensors.map((tensor, k) => {
        const step = other ? ` · ${this.page.text("anatomy.beside.step", { step: pair[k].step })}` : "";
        const label = this.label(name) + step;
        return this.heats.draw(tensor, { label, most: together ? all : largest[i], each: layer.each(name), ...this.attention.axes(name, pair[k]) });
      }),
    );
    made.push(this.heats.key(together || shown.length === 1 ? all : null, pair.length > 1));
    return made;
  }

  /** What a tensor is called: what is said, or summed, is not yet what is added, or leaves, where a norm follows. @param {string} name */
  label(name) {
    const { page } = this;
    const key = ["layer_norm", "gain", "swish"].find((one) => name.startsWith(one)) ?? name;
    const then = ["attended", "down"].includes(name) ? page.stages.some((stage) => AT_A_NORM.includes(stage.name)) : name === "result" && page.stages.some(({ title }) => title === AT_AN_END);
    const called = then ? `${key}.then` : key;
    return page.text(`anatomy.picture.${called}`, { beta: name.split("swish_")[1] ?? 1 });
  }

  /** @param {LayerData} layer @param {LayerData | null} other @returns {Node[]} */
  swish(layer, other) {
    const { betas } = this.page.frame.config;
    const names = ["gate", ...betas.map((beta) => `swish_${beta}`)];
    return [curves(this.page, layer.get("gate"), betas), ...this.tensors(names, layer, other, true)];
  }

  /** A stage before the first layer or after the last. @param {AnatomyStage} stage @returns {Node[]} */
  ofToken({ name: stage, drawn: names }) {
    const { look } = this.page;
    if (stage === "sampling" || stage === "head") return this.sampling.of(stage);
    const made = names.map((name) => ({ name, tensor: unpack(look.tensors[name]) }));
    const drawn = made.map(({ name, tensor }) => this.heats.draw(tensor, { label: this.label(name), each: look.each[name] ?? 1 }));
    return [...drawn, this.heats.key(made.length === 1 ? made[0].tensor.largest : null)];
  }
}
