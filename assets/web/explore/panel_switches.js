// Which panels are drawn: a tab a group of them, and a switch each, both remembered in this browser. A panel that is off, or
// whose group is not open, costs nothing, here or on the server.

import { STORED } from "../core/contract.js";
import { el, fill, kept, press } from "../core/dom.js";

const NOTED_MS = 12_000; // that a note stays; what it says also stands in the panel
const PANELS_ID = "lv-panels"; // of the grid, which the tabs control

/** @import { ExploreConfig, PanelEntry } from "../core/contract.js" */

export class Shelf {
  /** @type {Record<string, boolean>} what the visitor switched, by name */
  wishes = kept.get(STORED.panels, {});
  /** @type {string | null} the group the visitor opened; null: the first */
  opened = kept.get(STORED.group, null);
  /** @type {string[]} there are */
  groups = [];
  /** @type {Set<string>} on for a while, whatever was switched */
  lent = new Set();
  /** @type {string | null} the group that is open for these */
  lentGroup = null;
  /** @type {Set<string>} on because of what the run does, unless switched off */
  brought = new Set();
  /** @type {Set<string>} groups that are closed, and in which a run has brought a panel */
  news = new Set();
  /** @type {Set<string> | null} on because a link says so; it speaks of the groups of `spoken` alone */
  linked = null;
  /** @type {Set<string>} */
  spoken = new Set();
  /** @type {number | undefined} until a note goes */
  noted = undefined;

  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
    this.tabs = el("div", "lv-tabs");
    this.tabs.setAttribute("role", "tablist");
    this.tabs.addEventListener("keydown", (event) => this.pressed(event));
    this.switches = el("div", "lv-switches");
    this.switches.setAttribute("role", "group");
    this.note = el("p", "lv-shelf-note");
    this.note.setAttribute("aria-live", "polite");
    this.none = el("p", "lv-shelf-none");
    this.node = el("section", "lv-shelf", this.tabs, this.switches, this.note, this.none);
  }

  // --- what is on --------------------------------------------------------------------------------------------------

  /** The group whose panels are drawn. */
  get group() {
    return this.lentGroup ?? (this.groups.includes(this.opened) ? this.opened : this.groups[0]);
  }

  /** Whether a panel is switched on: as the visitor did, else as the run asks for it or the server usually has it. @param {PanelEntry} panel */
  isOn({ name, group, usual }) {
    const linked = this.spoken.has(group) ? this.linked.has(name) : undefined;
    return this.lent.has(name) || (linked ?? this.wishes[name] ?? (usual || this.brought.has(name)));
  }

  /** The names of the panels that are on in any group: what they need is recorded, a report holds them. */
  chosen() {
    return this.page.config.panels.filter((panel) => this.isOn(panel)).map(({ name }) => name);
  }

  /** The names of those that are drawn: of the open group. */
  on() {
    return this.page.config.panels.filter((panel) => panel.group === this.group && this.isOn(panel)).map(({ name }) => name);
  }

  /** @param {string} name */
  find(name) {
    return this.page.config.panels.find((panel) => panel.name === name);
  }

  // --- who says so -------------------------------------------------------------------------------------------------

  /**
   * A link says which panels are on, and which group is open (null: it does not). Of groups that it does not name a panel of it
   * says nothing; what the visitor chose here stays remembered.
   * @param {string[] | null} panels
   * @param {string | null} group
   */
  follow(panels, group) {
    this.linked = panels && new Set(panels);
    this.spoken = new Set(panels && (panels.length ? panels.map((name) => this.find(name).group) : this.groups));
    this.opened = group ?? this.opened;
    this.show();
  }

  /** Have these panels on, and their group open, until others are lent; what the visitor switched is kept. @param {string[]} names */
  lend(names) {
    const fresh = names.find((name) => !this.isOn(this.find(name)));
    this.lent = new Set(names);
    this.lentGroup = names.length ? this.find(names[0]).group : null;
    this.show();
    this.tellCost(fresh);
    if (names.length) this.reach(names[0]);
  }

  /** The run has something to say in these panels. Whether one of them is drawn now that was not. @param {string[]} names */
  bring(names) {
    if (names.length === this.brought.size && names.every((name) => this.brought.has(name))) return false;
    const before = new Set(this.on());
    this.brought = new Set(names);
    this.news = new Set(names.map((name) => this.find(name)).filter((panel) => this.isOn(panel)).map(({ group }) => group));
    this.show();
    return this.on().some((name) => !before.has(name));
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
    if (on) this.reach(name);
    else this.nodes.find((node) => node.dataset.name === name).focus({ preventScroll: true });
    this.page.redraw();
  }

  /** Another group's panels, and these alone, are drawn. @param {string} group */
  open(group) {
    if (group === this.group) return;
    this.opened = group;
    this.lentGroup = null;
    kept.set(STORED.group, group);
    this.tellCost(null);
    this.show();
    this.page.grid.scrollLeft = 0;
    this.page.redraw();
  }

  /** Tabs are gone through by the arrows: the one that has the keyboard is open. @param {KeyboardEvent} event */
  pressed(event) {
    const at = this.groups.indexOf(this.group);
    const last = this.groups.length - 1;
    const to = { ArrowLeft: at ? at - 1 : last, ArrowRight: at < last ? at + 1 : 0, Home: 0, End: last }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.open(this.groups[to]);
    this.tab(this.group).focus();
  }

  // --- what is seen of it --------------------------------------------------------------------------------------------

  /** @param {ExploreConfig} config */
  configure({ groups, panels, texts }) {
    this.groups = groups;
    this.page.grid.id = PANELS_ID;
    this.page.grid.setAttribute("role", "tabpanel");
    this.tabs.setAttribute("aria-label", texts["live.panels"]);
    this.switches.setAttribute("aria-label", texts["live.panels.shown"]);
    this.none.textContent = texts["live.panels.none"];
    const held = document.activeElement?.id;
    this.tabs.replaceChildren(...groups.map((group) => this.makeTab(group, texts)));
    if (held?.startsWith("lv-tab-")) document.getElementById(held)?.focus(); // the words are others, the place is not
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

  /**
   * @param {string} group
   * @param {Record<string, string>} texts
   */
  makeTab(group, texts) {
    const node = press("lv-tab", () => this.open(group), texts[`live.group.${group}`]);
    node.id = `lv-tab-${group}`;
    node.setAttribute("role", "tab");
    node.setAttribute("aria-controls", PANELS_ID);
    return node;
  }

  /** @param {string} group */
  tab(group) {
    return /** @type {HTMLButtonElement} */ (this.tabs.children[this.groups.indexOf(group)]);
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

  /** Where panels lie side by side, as on a phone: this one is in the middle. @param {string} name */
  reach(name) {
    const { grid, panels } = this.page;
    const { node } = panels.get(name);
    if (grid.scrollWidth > grid.clientWidth) grid.scrollLeft = node.offsetLeft - (grid.clientWidth - node.offsetWidth) / 2;
  }

  show() {
    const { config, grid, panels } = this.page;
    for (const group of this.groups) {
      const tab = this.tab(group);
      tab.setAttribute("aria-selected", String(group === this.group));
      tab.tabIndex = group === this.group ? 0 : -1;
      if (group === this.group) this.news.delete(group);
      const said = this.news.has(group) ? this.page.texts["live.group.news"] : this.page.texts[`live.group.${group}.hint`];
      tab.classList.toggle("lv-news", this.news.has(group));
      tab.title = said;
      tab.setAttribute("aria-description", said);
    }
    grid.setAttribute("aria-labelledby", `lv-tab-${this.group}`);
    for (const node of this.nodes) {
      const panel = this.find(node.dataset.name);
      node.hidden = panel.group !== this.group;
      node.setAttribute("aria-pressed", String(this.isOn(panel)));
    }
    const on = new Set(this.on());
    for (const { name } of config.panels) {
      const shown = panels.get(name);
      if (shown.on !== on.has(name)) shown.turn(on.has(name));
      shown.node.classList.remove("lv-last");
      shown.node.classList.toggle("lv-alone", on.size === 1);
    }
    this.none.hidden = on.size > 0;
    // the last of an odd number takes the whole row
    if (on.size % 2) panels.get([...on][on.size - 1]).node.classList.add("lv-last");
  }
}
