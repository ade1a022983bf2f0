// Talking with the server: questions, one after the other, and the line on which a run sends its events. While an answer is
// awaited, what the line brings waits too: it may belong after it.

const OFFLINE = 2; // questions without an answer that nobody needs to hear of

/** @import { ExploreMessage, ExploreQuestions } from "./contract.js" */
/** @import { Functions } from "./page_globals.js" */

/**
 * @typedef {{ [Q in keyof ExploreQuestions]: ExploreQuestions[Q]["answer"] }[keyof ExploreQuestions]} Answer
 *
 * Who is told: `receive(message)` of a message, `answered(answer, question, name)` of an answer, `reached()` that the server
 * is there again, `unreached(again)` that there was no answer, `again` when that has happened more than twice.
 * @typedef {{
 *   receive(message: ExploreMessage): void, answered(answer: Answer, question: any, name: keyof ExploreQuestions): void,
 *   reached(): void, unreached(again: boolean): void,
 * }} Listener
 */

export class Server {
  /** @type {Functions | null} what it answers, by name; null until Gradio is there */
  functions = null;
  /** @type {boolean} whether an answer is awaited */
  asking = false;
  /** @type {ExploreMessage[]} messages that wait for it */
  held = [];
  /** @type {number} questions without an answer, one after the other */
  offline = 0;
  /** @type {EventSource | null} */
  line = null;
  /** @type {Promise<unknown>} settles when the last question has been answered */
  turn = Promise.resolve();

  /**
   * @param {string} address where runs have their lines, relative to the document
   * @param {Listener} listener
   */
  constructor(address, listener) {
    this.address = address;
    this.listener = listener;
    /** @type {() => void} */
    this.connecting = null;
    /** @type {Promise<void>} questions wait for it */
    this.connected = new Promise((resolve) => (this.connecting = resolve));
  }

  /** Questions can be asked from now on. @param {Functions} functions */
  connect(functions) {
    this.functions = functions;
    this.connecting();
  }

  /**
   * Ask something. Null when no answer came.
   * @template {keyof ExploreQuestions} Q
   * @param {Q} name
   * @param {() => ExploreQuestions[Q]["asked"]} question made when its turn comes
   * @returns {Promise<ExploreQuestions[Q]["answer"] | null>}
   */
  ask(name, question) {
    const asked = this.turn.then(() => this.askNow(name, question()));
    this.turn = asked.catch(() => {});
    return asked;
  }

  /**
   * @template {keyof ExploreQuestions} Q
   * @param {Q} name
   * @param {ExploreQuestions[Q]["asked"]} question
   * @returns {Promise<ExploreQuestions[Q]["answer"] | null>}
   */
  async askNow(name, question) {
    await this.connected;
    this.asking = true;
    let answer = null;
    try {
      answer = JSON.parse(await this.functions[name](JSON.stringify(question)));
      if (this.offline > OFFLINE) this.listener.reached();
      this.offline = 0;
      this.listener.answered(answer, question, name);
    } catch {
      this.offline += 1;
      this.listener.unreached(this.offline > OFFLINE);
    }
    this.asking = false;
    for (const message of this.held.splice(0)) this.listener.receive(message);
    return answer;
  }

  /** A message comes again once the answer is there. @param {ExploreMessage} message */
  hold(message) {
    this.held.push(message);
  }

  /** What waits is of no use any more. */
  dropHeld() {
    this.held = [];
  }

  /** @param {string} run */
  lineOf(run) {
    return new URL(`${this.address}/${run}`, document.baseURI).href;
  }

  /**
   * Listen to a run's own line, while it is `wanted(run)`.
   * @param {string} run
   * @param {(run: string) => boolean} wanted
   */
  listen(run, wanted) {
    const line = new EventSource(this.lineOf(run));
    line.onmessage = (event) => {
      if (wanted(run)) this.listener.receive(JSON.parse(event.data));
    };
    line.onerror = () => line.close(); // the run is over, or something is in the way: no second try
    this.line = line;
  }

  close() {
    this.line?.close();
  }

  /** Tell a run to stop at once: Gradio's Stop goes through its queue. @param {string} run */
  stop(run) {
    fetch(this.lineOf(run), { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }).catch(() => {});
  }
}
