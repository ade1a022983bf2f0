// A link may name a model that is not on the server: nothing is fetched or opened until the visitor agrees.

import { el, press } from "../core/dom.js";

export class AskModel {
  /** `load()`: the visitor agrees to the model that was asked for. */
  constructor(load) {
    this.byLink = new URLSearchParams(location.search).has("s");
    this.agreed = new Set();
    this.said = el("p");
    this.button = press("lv-quiet lv-load-model", () => {
      this.agree(this.name);
      load();
    });
    this.node = el("div", "lv-ask-model", this.said, this.button);
    this.node.setAttribute("role", "status");
    this.node.hidden = true;
  }

  /** Whether the model is the link's, and not one that the visitor chose or agreed to. */
  linked(name, chosen) {
    return this.byLink && !chosen && !this.agreed.has(name);
  }

  agree(name) {
    if (name !== undefined) this.agreed.add(name);
  }

  /** What the server says of the model: it is asked for, or it is not (any more). */
  show(name, { state, text }, label) {
    this.name = name;
    this.node.hidden = state !== "ask";
    this.said.textContent = text;
    this.button.textContent = label;
  }
}
