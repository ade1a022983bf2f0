// What the page knows of its form of settings beyond what stands in it: whose settings these are, what the visitor touched, what
// gave way to a model. It is known here alone, so that no answer that is on its way can be behind. Gradio's events call the
// methods (loopviz/app/explore/page.py): for what goes along with a question, and for what an answer puts into the form.

import { CLASSES, QUERIES } from "../core/contract.js";
import { unwire } from "../core/messages.js";
import { keepForm, keptForm } from "./kept_form.js";

/** @import { Brought, ExploreStatus, Visit } from "../core/contract.js" */

/** @param {object} props */
const update = (props) => ({ __type__: "update", ...props });

export class FormState {
  /** @type {import("./page.js").Page | null} the page; null until there is one */
  page = null;
  /** @type {string | undefined} the model that was chosen; undefined: the one the page began with */
  model = undefined;
  /** @type {string} what it is to be held in; "": as the server has it */
  precision = "";
  /** @type {string | undefined} the model whose settings the form holds, "" for none's; undefined until the visit has begun */
  suits = undefined;
  /** @type {string | null} the model whose prompt a link, or a run taken over, has set; null: a link is still being opened */
  linked = new URLSearchParams(location.search).has(QUERIES.link) ? null : "";
  /** @type {Set<string>} controls that the visitor has set */
  touched = new Set();
  /** @type {Record<string, unknown>} what of these gave way to the model, as it was */
  gave = {};
  /** @type {Brought | null} what a model, or a run that is taken over, brings; null when it stands in the form */
  brings = null;
  /** @type {string} the message that was put into the form last */
  brought = "";
  /** @type {boolean} whether a run of what was brought is to start */
  starting = false;
  /** @type {Record<string, unknown>} what the controls stand at that have a slider above the panels, and how the loop is stopped */
  dials = {};
  /** @type {Record<string, unknown>} what one of these sliders is to be set to */
  turned = {};
  /** @type {ExploreStatus | null} why the last start was refused */
  refusal = null;
  /** @type {() => void} called when the form has been kept */
  kept = () => {};

  /** What goes along with a question. */
  word() {
    return JSON.stringify({ touched: [...this.touched], gave: this.gave, suits: this.suits });
  }

  /** The visit has begun: what the form holds is for the model `suits`; a link has set the prompt for `linked`. @param {Visit} visit */
  visit({ suits, linked }) {
    this.suits = suits;
    this.linked = linked;
  }

  /** Something else stands in the prompt. @param {string} prompt */
  typed(prompt) {
    this.page?.arrows.typed(prompt);
  }

  /** The visitor has set these controls; what is to be put into them. @param {Record<string, unknown>} values */
  touch(values) {
    for (const name of Object.keys(values)) {
      this.touched.add(name);
      delete this.gave[name];
    }
    return Object.values(values);
  }

  /**
   * A slider above the panels was moved, or a way out was taken: the control is set by Gradio's own event.
   * @param {Record<string, unknown>} values
   * @param {boolean} [starting] whether a run of the form is to start once they are set
   */
  turn(values, starting = false) {
    if (!this.page?.tell) return;
    this.touch(values);
    this.starting ||= starting;
    this.turned = { ...this.turned, ...values }; // two may be moved before the first is asked for
    this.page.tell.dial();
  }

  /** What is to be put into the controls (`names`) that a slider was moved for. @param {string[]} names */
  dial(names) {
    const { turned } = this;
    this.turned = {};
    return names.map((name) => turned[name]);
  }

  /**
   * Somebody has set these controls: their sliders above the panels follow.
   * @param {string[]} names
   * @param {...unknown} values
   */
  follow(names, ...values) {
    names.forEach((name, i) => (this.dials[name] = values[i]));
    this.page?.hero.dials.show();
    this.page?.bar.show();
  }

  /** The model is to be held otherwise: where it is so is followed. @param {string} precision */
  hold(precision) {
    this.precision = String(precision ?? "");
    this.page?.model.watch(true);
  }

  /**
   * Another model stands in the form: where it is is followed, its own prompts are offered, and a suggested prompt gives way to
   * its suggestion. By a link, or with a run taken over, the prompt stays.
   * @param {{ offers: Record<string, string[]>, opening: string | null, shown: number }} known prompts by model, the one the page opens with, buttons
   * @param {string} prompt
   * @param {string} model
   * @returns {unknown[]}
   */
  choose({ offers, opening, shown }, prompt, model) {
    this.model = model;
    this.page?.arrows.follow(); // a model that is ready has nothing more to say by which the page would look
    this.page?.model.watch(true);
    const examples = offers[String(model)] ?? offers[""];
    const buttons = Array.from({ length: shown }, (_, i) => update({ value: examples[i] ?? "", visible: i < examples.length }));
    if (this.linked === null || (this.linked && this.linked === model)) return [undefined, ...buttons];
    this.linked = "";
    const suggested = [opening, ...Object.values(offers).flat()].includes(prompt) && !examples.includes(prompt);
    return [suggested ? examples[0] : undefined, ...buttons];
  }

  /** A model has brought its settings, or a run's own are taken over: `bring` puts them into the form. @param {Brought} message */
  take(message) {
    this.brings = message;
  }

  /**
   * What is to be put into the prompt and the controls (`names`), of what was brought; what the visitor touched meanwhile stays.
   * @param {string[]} names
   * @param {string} word
   * @param {unknown} chosen
   */
  bring(names, word, chosen) {
    const found = this.found(word);
    this.brings = null;
    if (!found || found.id === this.brought) return [];
    const { id, model, changes, gave, whole, prompt, suits = model } = found;
    this.brought = id;
    if (!whole && (model !== String(chosen).trim() || model === this.suits)) return []; // another one was chosen, or it has brought them
    if (whole) this.touched.clear();
    for (const name of Object.keys(gave)) this.touched.delete(name);
    this.gave = gave;
    this.suits = suits;
    if (whole) {
      this.linked = model;
      this.starting = true; // until it has: a model's settings may come between
    }
    return [prompt, ...names.map((name) => (name in changes && !this.touched.has(name) ? changes[name] : undefined))];
  }

  /**
   * What was brought last: it may stand in the live element still, or another message has come after it.
   * @param {string} word
   * @returns {Brought | null}
   */
  found(word) {
    try {
      const message = unwire(word);
      if (message.kind === "brought") return message;
    } catch {
      // no message
    }
    return this.brings;
  }

  /** What was brought, or set by a way out, stands in the form: if it was to be run, it is. */
  adopted() {
    if (this.starting) this.start();
    this.starting = false;
  }

  /** Begin a run of what the form shows: the page numbers it and asks for it. */
  start() {
    this.page?.start();
  }

  /**
   * The page is about to be loaded anew: this tab remembers what stands in the form.
   * @param {string[]} names of the controls
   * @param {string} prompt
   * @param {...unknown} values
   */
  keep(names, prompt, ...values) {
    keepForm({ prompt, values: Object.fromEntries(names.map((name, i) => [name, values[i]])), touched: [...this.touched] });
    this.kept();
  }

  /** What was kept, to be put into the prompt and the controls (`names`): this version may have others. @param {string[]} names */
  restore(names) {
    const found = keptForm();
    if (!found) return [];
    const { prompt, values, touched } = found;
    this.touched = new Set(names.filter((name) => touched.includes(name)));
    this.linked = this.suits = String(values.model ?? ""); // these are that model's settings, and its own prompt gives way to none
    return [prompt, ...names.map((name) => values[name])];
  }

  /** The last start was refused, or was not (null): its controls are to say so. @param {ExploreStatus | null} message */
  refuse(message) {
    this.refusal = message;
  }

  /**
   * A start has come to its end. What the refusal of the last one puts into Gradio's parts: the prompt, the button that shortens
   * it, the groups and the controls; nothing when it was not refused. It stands until the next start: a run that was made
   * meanwhile may end later.
   * @param {string[]} groups
   * @param {string[]} names
   */
  settled(groups, names) {
    const { refusal, page } = this;
    page?.model.watch(); // it may have, or have tried in vain
    if (!refusal) return undefined;
    page?.narrow.showRefused(); // what is wrong is beside a control, which may be far away
    const { beside, open, keep } = refusal;
    /** @param {string} name */
    const blamed = (name) => (name in beside ? update({ info: beside[name], elem_classes: [CLASSES.refused] }) : undefined);
    const opened = groups.map((group) => (open.includes(group) ? update({ open: true }) : undefined));
    return [blamed("prompt"), keep ? update({ value: keep, visible: true }) : undefined, ...opened, ...names.map(blamed)];
  }
}

/** The one of this document. */
export const form = new FormState();
window.loopvizForm = form;
