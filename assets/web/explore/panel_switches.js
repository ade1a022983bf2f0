// Which panels are on: a switch each, remembered in this browser. A panel that is off costs nothing, here or on the server.

import { STORED } from "../core/contract.js";
import { el, fill, kept, press } from "../core/dom.js";

const NOTED_MS = 12_000; // that a note stays; what it says also stands in the panel

/** @import { ExploreConfig, PanelEntry } from "../core/contract.js" */

export class Shelf {
  /** @type {Record<string, boolean>} what the visitor switched, by name */
  wishes = kept.get(STORED.panels, {});
  /** @type {Set<string>} on for a while, whatever was switched */
  lent = new Set();
  /** @type {Set<string>} on because of what the run does, unless switched off */
  brought = new Set();
  /** @type {Set<string> | null | undefined} on because a link says so; else nothing */
  linked = undefined;
  /** @type {boolean} whether some are lent */
  lending = false;
  /** @type {number | undefined} until a note goes */
  noted = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.title = el("span", "lv-shelf-title");
    this.switches = el("div", "lv-switches");
    this.note = el("p", "lv-shelf-note");
    this.note.setAttribute("aria-live", "polite");
    this.node = el("section", "lv-shelf", this.title, this.switches, this.note);
    this.node.setAttribute("role", "group");
  }

  /** Whether a panel is on: as the visitor switched it, else as the run asks for it or the server usually has it. @param {PanelEntry} panel */
  isOn({ name, usual }) {
    return this.lent.has(name) || (this.linked?.has(name) ?? this.wishes[name] ?? (usual || this.brought.has(name)));
  }

  /** A link says which panels are on (null: it does not). What the visitor chose here stays remembered. @param {string[] | null} panels */
  follow(panels) {
    this.linked = panels && new Set(panels);
    this.show();
  }

  /** The names of the panels that are on. */
  on() {
    return this.page.config.panels.filter((panel) => this.isOn(panel)).map(({ name }) => name);
  }

  /** @param {ExploreConfig} config */
  configure({ panels, texts }) {
    this.title.textContent = texts["live.panels"];
    this.node.setAttribute("aria-label", texts["live.panels"]);
    this.switches.replaceChildren(
      ...panels.map(({ name, words }) => {
        const node = press("lv-switch", () => this.turn(name, !this.isOn(this.find(name))), words.name);
        node.dataset.name = name;
        node.title = [words.question, words.cost].filter(Boolean).join("\n");
        return node;
      }),
    );
    this.show();
  }

  /** @param {string} name */
  find(name) {
    return this.page.config.panels.find((panel) => panel.name === name);
  }

  /** Have these panels on until others are lent; what the visitor switched is kept. @param {string[]} names */
  lend(names) {
    const fresh = names.find((name) => !this.isOn(this.find(name)));
    this.lent = new Set(names);
    if (!fresh && !this.lending) return;
    this.lending = names.length > 0;
    this.show();
    this.tellCost(fresh);
  }

  /** The run has something to say in these panels. Whether one of them is on now that was not. @param {string[]} names */
  bring(names) {
    const before = new Set(this.on());
    this.brought = new Set(names);
    const after = this.on();
    if (after.length === before.size && after.every((name) => before.has(name))) return false;
    this.show();
    return after.some((name) => !before.has(name));
  }

  /**
   * @param {string} name
   * @param {boolean} on
   */
  turn(name, on) {
    this.lent.delete(name);
    this.wishes = { ...this.wishes, [name]: on };
    this.linked?.[on ? "add" : "delete"](name);
    kept.set(STORED.panels, this.wishes);
    this.show();
    this.tellCost(on ? name : null);
    if (!on) this.nodes.find((node) => node.dataset.name === name).focus({ preventScroll: true });
    this.page.redraw();
  }

  /** The switches. */
  get nodes() {
    return /** @type {HTMLButtonElement[]} */ ([...this.switches.children]);
  }

  /** What a panel costs is said where it is switched on, under its name, and for a while. @param {string | null} name */
  tellCost(name) {
    const words = name && this.find(name).words;
    clearTimeout(this.noted);
    this.note.textContent = words?.cost ? fill(this.page.texts["live.cost.of"], { panel: words.name, cost: words.cost }) : "";
    if (words?.cost) this.noted = setTimeout(() => this.tellCost(null), NOTED_MS);
  }

  show() {
    for (const node of this.nodes) node.setAttribute("aria-pressed", String(this.isOn(this.find(node.dataset.name))));
    for (const panel of this.page.config.panels) {
      const on = this.isOn(panel);
      const shown = this.page.panels.get(panel.name);
      if (shown.on !== on) shown.turn(on);
    }
    // the last of an odd number takes the whole row
    const on = [...this.page.panels.values()].filter((panel) => panel.on);
    for (const panel of this.page.panels.values()) panel.node.classList.remove("lv-last");
    if (on.length % 2) on[on.length - 1].node.classList.add("lv-last");
  }
}
