// What Gradio asks of the server goes through here, so that a page outlives its server. Gradio's own script gives up at the first
// answer that fails: no event of the page does anything any more, and when the server is back it loads the page anew, so that all
// that was typed, set and shown is gone. Here what is asked waits until the server is back, what was being made is over, and the
// heartbeat, by which the server knows that the page is open, begins again. Who shows pages is told (core/server_away.js).
//
// A server that is back as another version answers nothing of an older page: its events may have other numbers.
//
// A classic script: it must have run before Gradio's own.
(() => {
  const [FIRST_MS, LONGEST_MS, PATIENCE_MS] = [500, 5_000, 5_000]; // between two looks for the server; for one look
  const TRIES = 3; // of a request that fails although the server is there
  const usual = window.fetch.bind(window);
  const own = /** @type {HTMLScriptElement} */ (document.currentScript).dataset;
  const health = new URL(own.health, document.baseURI).href;
  let server = own.server; // which process has made this page, or was seen last
  let leaving = false;
  /** @type {import("./page_globals.js").Reach} */
  let state = "here";
  /** @type {Promise<void> | null} settles when the server is there; null: it is */
  let back = null;
  /** @type {Set<(state: import("./page_globals.js").Reach) => void>} */
  const followers = new Set();
  /** @type {Set<string>} events that the server has taken and that are not over */
  const taken = new Set();

  const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));
  window.addEventListener("pagehide", () => (leaving = true));
  window.addEventListener("pageshow", () => (leaving = false));

  /** @param {import("./page_globals.js").Reach} now */
  function tell(now) {
    if (leaving || now === state) return;
    state = now;
    for (const follower of followers) follower(state);
  }

  /** Which server is there, and which version of the pages it has; throws when none is. */
  async function look() {
    const answer = await usual(health, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    const { server: there, pages } = await answer.json(); // a proxy's own words are none
    if (typeof there !== "string") throw new Error("no server of ours");
    return { there, pages };
  }

  async function search() {
    for (let wait = FIRST_MS; ; wait = Math.min(2 * wait, LONGEST_MS)) {
      try {
        const { there, pages } = await look();
        const restarted = there !== server;
        server = there;
        if (pages !== own.pages) {
          tell("changed");
          await new Promise(() => {}); // nothing of this page goes to it
        }
        if (restarted) tell("away"); // too quick to have been missed: what was being made is gone all the same
        return;
      } catch {
        tell("away");
      }
      await sleep(wait);
    }
  }

  /** Something has failed: look for the server. Settles when it is there. */
  function lost() {
    back ??= search().then(() => {
      back = null;
      tell("here");
    });
    return back;
  }

  /** Whether nobody waits for it any more. @param {unknown} error */
  const isLeft = (error) => leaving || (error instanceof Error && error.name === "AbortError");

  /** Whether an answer is a proxy's, whose server is away. @param {Response} answer */
  const isProxys = (answer) => answer.status >= 502 && answer.status <= 504 && !answer.headers.get("content-type")?.includes("json");

  /**
   * A call of an event: it waits for the server, and is made again when it failed.
   * @param {RequestInfo | URL} what
   * @param {RequestInit} [how]
   */
  async function call(what, how) {
    for (let tries = 1; ; tries += 1) {
      if (back) await back;
      try {
        const answer = await usual(what, how);
        if (!isProxys(answer) || tries >= TRIES) return answer;
      } catch (error) {
        if (how?.signal?.aborted || leaving || tries >= TRIES) throw error;
      }
      await lost();
    }
  }

  /**
   * An event joins the queue: until it is over its messages come by `queue/data`.
   * @param {RequestInfo | URL} what
   * @param {RequestInit} [how]
   */
  async function join(what, how) {
    const answer = await call(what, how);
    const told = await answer.clone().json().catch(() => ({}));
    if (typeof told.event_id === "string") taken.add(told.event_id);
    return answer;
  }

  /** What Gradio is told of events of which nothing comes any more: they are over, and so is the stream. */
  function ending() {
    const output = { data: /** @type {unknown[]} */ ([]) };
    const over = [...taken].map((id) => ({ msg: "process_completed", event_id: id, success: true, output }));
    taken.clear();
    return new TextEncoder().encode([...over, { msg: "close_stream", event_id: null }].map((said) => `data: ${JSON.stringify(said)}\n\n`).join(""));
  }

  /**
   * The messages of a session's events; one that breaks off ends as if they were over.
   * @param {RequestInfo | URL} what
   * @param {RequestInit} [how]
   */
  async function data(what, how) {
    /** @type {ReadableStreamDefaultReader<Uint8Array> | null} */
    let reader = null;
    try {
      const answer = await usual(what, how);
      if (answer.ok) reader = answer.body.getReader();
    } catch (error) {
      if (isLeft(error)) throw error;
    }
    const decoder = new TextDecoder();
    let rest = "";
    let closed = false;
    let broken = !reader;

    /** Note what a line says of events; whether Gradio may hear it. @param {string} line */
    const hears = (line) => {
      if (line.includes("process_completed")) taken.delete(JSON.parse(line.slice(5)).event_id);
      else if (line.includes('"close_stream"')) closed ||= JSON.parse(line.slice(5)).msg === "close_stream";
      else if (line.includes("session_not_found")) broken = JSON.parse(line.slice(5)).session_not_found === true;
      return !broken;
    };

    return new Response(
      new ReadableStream({
        async pull(out) {
          let piece = /** @type {{ done: boolean, value?: Uint8Array }} */ ({ done: true });
          try {
            if (reader) piece = await reader.read();
          } catch (error) {
            if (isLeft(error)) {
              out.error(error);
              return;
            }
            broken = true;
          }
          if (piece.value) {
            const lines = (rest + decoder.decode(piece.value, { stream: true })).split("\n");
            rest = lines.pop();
            if (lines.every((line) => !line.startsWith("data:") || hears(line))) out.enqueue(piece.value);
          }
          if (!piece.done && !broken) return;
          if (!closed) {
            void lost();
            if (broken) await reader?.cancel().catch(() => {});
            out.enqueue(ending());
          }
          out.close();
        },
        cancel: (why) => reader?.cancel(why),
      }),
      { headers: { "content-type": "text/event-stream" } },
    );
  }

  /**
   * The heartbeat of a session, begun again as often as it is cut off; Gradio has one that never ends.
   * @param {string} address
   * @param {AbortSignal | null | undefined} signal
   */
  function beat(address, signal) {
    /** @type {EventSource | null} */
    let source = null;
    const open = () => {
      if (signal?.aborted) return;
      source = new EventSource(address);
      source.onerror = async () => {
        source.close();
        if (leaving) return;
        await lost();
        await sleep(FIRST_MS);
        open();
      };
    };
    signal?.addEventListener("abort", () => source?.close());
    window.addEventListener("pageshow", ({ persisted }) => persisted && source?.readyState === EventSource.CLOSED && open());
    open();
    return new Response(new ReadableStream({}), { headers: { "content-type": "text/event-stream" } });
  }

  window.fetch = async (what, how) => {
    const address = what instanceof Request ? what.url : String(what);
    const path = new URL(address, document.baseURI).pathname;
    const signal = what instanceof Request ? what.signal : how?.signal;
    if (path.includes("/gradio_api/heartbeat/")) return beat(address, signal);
    if (path.endsWith("/gradio_api/queue/join")) return join(what, how);
    if (path.endsWith("/gradio_api/queue/data")) return data(what, how);
    if (path.includes("/gradio_api/run/predict")) return call(what, how);
    if (path.endsWith("/gradio_api/app_id")) return new Response("", { status: 503 }); // by its answer Gradio would load the page anew
    if (!path.endsWith("/gradio_api/component_server")) return usual(what, how);
    try {
      return await usual(what, how); // a question: who asks knows what to do without an answer
    } catch (error) {
      if (!leaving) void lost();
      throw error;
    }
  };

  window.loopvizReach = {
    get state() {
      return state;
    },
    follow(follower) {
      followers.add(follower);
      if (state !== "here") follower(state);
    },
  };
})();
