// A link may name a model that is not on the server: nothing is fetched or opened until the visitor agrees.

import { QUERIES } from "../core/contract.js";
import { el, press } from "../core/dom.js";

export class AskModel {
  /** @type {boolean} whether the page was opened by a link */
  byLink = new URLSearchParams(location.search).has(QUERIES.link);
  /** @type {Set<string>} models that the visitor agreed to */
  agreed = new Set();
  /** @type {string | undefined} the model asked for */
  name = undefined;

  /** @param {() => void} load the visitor agrees to the model that was asked for */
  constructor(load) {
    this.said = el("p");
    this.button = press("lv-quiet lv-load-model", () => {
      this.agree(this.name);
      load();
    });
    this.node = el("div", "lv-ask-model", this.said, this.button);
    this.node.setAttribute("role", "status");
    this.node.hidden = true;
  }

  /**
   * Whether the model is the link's, and not one that the visitor chose or agreed to.
   * @param {string} name
   * @param {boolean} chosen
   */
  linked(name, chosen) {
    return this.byLink && !chosen && !this.agreed.has(name);
  }

  /** @param {string} [name] */
  agree(name) {
    if (name !== undefined) this.agreed.add(name);
  }

  /**
   * What the server says of the model: it is asked for, or it is not (any more).
   * @param {string} name
   * @param {{ state: string, text: string }} status
   * @param {string} label
   */
  show(name, { state, text }, label) {
    this.name = name;
    this.node.hidden = state !== "ask";
    this.said.textContent = text;
    this.button.textContent = label;
  }
}
