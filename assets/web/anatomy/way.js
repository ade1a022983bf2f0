// Which stages are walked through, in their order: a plain Llama's, or what the layer that is shown has.

/** @import { AnatomyConfig, AnatomyStage } from "../core/contract.js" */

export class Way {
  /** @param {Pick<AnatomyConfig, "stages" | "others">} config */
  constructor({ stages, others }) {
    /** @type {AnatomyStage[]} until a layer is here, a plain Llama's */
    this.stages = stages;
    /** @type {AnatomyStage[]} those that any model has */
    this.every = [...stages, ...others];
    this.byKey = new Map(this.every.map((stage) => [stage.key, stage]));
    /** @type {boolean} whether a layer of the model that made the run is known */
    this.known = false;
  }

  /** Whether any model has a stage of this name. @param {string | null} name */
  knows(name) {
    return this.every.some((stage) => stage.name === name);
  }

  /** The stage of this name; where there is none here, the one that it would follow. @param {string} name @returns {AnatomyStage} */
  at(name) {
    const found = this.stages.find((stage) => stage.name === name);
    return found ?? this.at(this.every.find((stage) => stage.name === name)?.reads[0] ?? "state");
  }

  /** A layer has these; the name of its stage where somebody reads about one. @param {string[]} keys @param {string} name */
  take(keys, name) {
    this.known = true;
    this.stages = keys.map((key) => this.byKey.get(key));
    return this.at(name).name;
  }
}
