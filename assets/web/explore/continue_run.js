// Going on from a run: more of it, its text to edit, another word at one place; and the same once more.

import { ELEMENTS, PAGES, QUERIES } from "../core/contract.js";

/** @import { Act } from "../core/contract.js" */

export class Again {
  /** @param {import("./page.js").Page} page */
  constructor(page) {
    this.page = page;
  }

  /** The run's text as a prompt; null when it cannot be had. @param {{ token?: number, piece?: string }} question */
  async textOf(question) {
    const { run } = this.page;
    const answer = await this.page.ask("text_until", () => ({ run, ...question }));
    return answer?.kind === "text" ? answer.prompt : null;
  }

  async goOn() {
    const prompt = await this.textOf({});
    if (prompt !== null) this.run(prompt);
  }

  async edit() {
    const prompt = await this.textOf({});
    if (prompt === null) return;
    this.page.tell.retype({ prompt });
    /** @type {HTMLTextAreaElement | null} */
    const box = document.querySelector(`#${ELEMENTS.prompt} textarea`);
    box?.scrollIntoView({ block: "center" });
    box?.focus();
  }

  /**
   * Run again up to `token`, with `piece` after it.
   * @param {number} token
   * @param {string} piece
   */
  async force(token, piece) {
    const prompt = await this.textOf({ token, piece });
    if (prompt !== null) this.run(prompt);
  }

  /** Run a text as the prompt, with the controls as they stand. @param {string} prompt */
  run(prompt) {
    this.page.player.pause();
    this.page.tell.again({ prompt });
  }

  /**
   * What a button offers as the way out (`act` of a figure, or of a refusal): a model that has what is lacking, what is set in another
   * precision, or this run again, as it was or with another threshold of its exit gate; or a measurement of the Lab.
   * @param {Act} way
   */
  act({ model, precision, exit_threshold, task, values }) {
    if (task !== undefined) return void window.open(this.measurement(task, values), "_blank"); // the run stays
    if (model === undefined && precision === undefined && exit_threshold === undefined) return this.same();
    this.page.player.pause();
    if (precision !== undefined) return this.page.form.turn({ precision }, true);
    if (model === undefined) return this.page.tell.adopt({ run: this.page.run, exit_threshold });
    return this.page.tell.adopt({ model });
  }

  /**
   * The Lab's address where it makes a measurement at once. What is asked goes along where no server sees it, and the Lab believes it of
   * a page of ours alone.
   * @param {string} task
   * @param {Record<string, any>} values
   */
  measurement(task, values) {
    const { model, precision } = this.page.form;
    const sent = new URLSearchParams({ ...(model ? { model } : {}), ...(precision ? { precision } : {}), values: JSON.stringify(values) });
    return `${PAGES.lab}?${QUERIES.task}=${task}#${sent}`;
  }

  /** The run on screen once more, with its own settings and the panels that are on now. */
  same() {
    this.page.player.pause();
    this.page.tell.adopt({ run: this.page.run });
  }
}
