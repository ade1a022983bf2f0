// Whether other pages of ours are open in this browser. It has six connections to a server for all of them together, and
// Gradio keeps two a page: a run's own line is a third, and two tabs that run with one each leave none to press Stop by.

const [WHO, HERE, GONE] = ["who", "here", "gone"];

export class Tabs {
  /** @type {boolean} whether no other page has answered */
  alone = true;

  /** @param {() => unknown} crowded called when another page is found */
  constructor(crowded = () => null) {
    /** @type {BroadcastChannel | null} */
    this.channel = "BroadcastChannel" in window ? new BroadcastChannel("loopviz.tabs") : null;
    this.channel?.addEventListener("message", ({ data }) => {
      if (data === GONE) return this.ask();
      if (data === WHO) this.channel.postMessage(HERE);
      this.alone = false;
      return crowded();
    });
    window.addEventListener("pagehide", () => this.channel?.postMessage(GONE));
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.ask());
    this.ask();
  }

  /** Whoever is there answers. */
  ask() {
    this.alone = true;
    this.channel?.postMessage(WHO);
  }
}
