// The live part of the page: text and panels of one run, kept up to date from messages (see loopviz/app/live.py).
// Text from a visitor or a model reaches the page through textContent only.

import { Panel, applyOps, el } from "./panel.js";

const DRAW_SHARE = 0.5; // at most this share of the time goes into drawing
const SILENCE_MS = 3000; // then the server is asked whether something got lost
/** Fill `{name}` places of our own texts. */
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");

/** Messages come with their two kinds of quotes exchanged (see loopviz.app.live.wire). */
const unwire = (text) => JSON.parse(text.replace(/["']/g, (quote) => (quote === '"' ? "'" : '"')));

let plotlyLoading = null;

/** Our own Plotly: Gradio's bundle may put another version at window.Plotly later, so the reference is kept here. */
function loadPlotly(url) {
  plotlyLoading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("plotly"));
    document.head.append(script);
  });
  return plotlyLoading;
}

class Page {
  constructor({ element, server, loaded }) {
    this.loaded = loaded;
    this.root = element.querySelector(".lv") ?? element;
    this.server = server;
    this.focus = { token: null, block: 0, step: null, metric: "cosine", lang: "en" };
    this.panels = new Map();
    this.config = null;
    this.Plotly = null;
    this.held = [];
    this.asking = false;
    this.lastDraw = 0;
    this.lastCost = 0;
    this.lastMessage = 0;
    this.watcher = null;
    this.offline = 0;
    this.line = null;
    this.reset(null);
    this.build();
  }

  reset(run) {
    this.run = run;
    this.epoch = -1;
    this.seq = 0;
    this.end = null;
    this.tokens = [];
    this.began = performance.now();
    this.generatedAt = null;
  }

  // --- building --------------------------------------------------------------------------------------------------

  build() {
    this.modelLine = el("span", "lv-model");
    this.statusLine = el("span", "lv-status");
    this.statusLine.setAttribute("role", "status");
    this.legend = el("div", "lv-legend");
    this.text = el("div", "lv-text");
    this.text.tabIndex = 0;
    this.text.setAttribute("role", "listbox");
    this.idle = el("p", "lv-idle");
    this.chosen = el("span");
    this.follow = el("button", "lv-follow");
    this.follow.type = "button";
    this.follow.hidden = true;
    this.grid = el("div", "lv-grid");
    const card = el(
      "section",
      "lv-card",
      el("div", "lv-bar", this.statusLine, this.modelLine),
      this.idle,
      this.text,
      el("div", "lv-foot", this.legend, el("div", "lv-chosen", this.chosen, this.follow)),
    );
    this.root.replaceChildren(card, this.grid);
    this.text.addEventListener("click", (event) => {
      const token = event.target.closest?.("[data-i]");
      if (token) this.look({ token: Number(token.dataset.i), step: null });
    });
    this.text.addEventListener("keydown", (event) => this.key(event));
    this.follow.addEventListener("click", () => this.look({ token: null, step: null }));
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const panel = this.panels.get(entry.target.dataset.panel);
        if (panel) panel.onScreen = entry.isIntersecting;
      }
      this.wake();
    });
    this.dark = document.body.classList.contains("dark");
    new MutationObserver(() => {
      const dark = document.body.classList.contains("dark");
      if (dark === this.dark) return;
      this.dark = dark;
      for (const panel of this.panels.values()) if (panel.figure) panel.touch(panel.seq);
      this.wake();
    }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    setInterval(() => this.watch(), 1000);
    this.mark();
  }

  theme() {
    return document.body.classList.contains("dark") ? "dark" : "light";
  }

  /** The page's words, panels and templates; sent at the start and when the language changes. */
  configure(config) {
    this.config = config;
    this.texts = config.texts;
    document.documentElement.lang = config.lang;
    this.idle.textContent = this.texts["live.idle"];
    this.text.setAttribute("aria-label", this.texts["live.region"]);
    this.follow.textContent = this.texts["live.follow"];
    for (const { name, words } of config.panels) {
      let panel = this.panels.get(name);
      if (!panel) {
        panel = new Panel(name, this);
        this.panels.set(name, panel);
        this.grid.append(panel.node);
        this.observer.observe(panel.node);
      }
      panel.label(words, this.texts);
    }
    loadPlotly(new URL(config.plotly, document.baseURI).href).then(
      (Plotly) => {
        this.Plotly = Plotly;
        this.mark();
        this.wake();
      },
      () => this.say(this.texts["live.noplot"], true),
    );
    if (this.run && this.focus.lang !== config.lang) this.look({ lang: config.lang });
    this.focus.lang = config.lang;
    this.showLegend();
    this.showStatus();
    this.showChosen();
    this.watchModel();
    this.mark();
  }

  /** Gradio's own KaTeX typesets the formulas, in a place nobody sees; here they get a copy. */
  adoptFormulas() {
    for (const [name, panel] of this.panels) {
      const place = panel.detailsBody.querySelector("[data-formula]");
      const made = document.querySelector(`#lv-formula-${name} .katex`);
      if (place && made && !place.querySelector(".katex")) place.replaceChildren(made.cloneNode(true));
    }
    const left = [...this.panels.values()].some((p) => p.detailsBody.querySelector("[data-formula]:not(:has(.katex))"));
    clearTimeout(this.formulaTimer);
    if (left && (this.formulaTries = (this.formulaTries ?? 0) + 1) < 60) {
      this.formulaTimer = setTimeout(() => this.adoptFormulas(), 500);
    }
  }

  // --- messages --------------------------------------------------------------------------------------------------

  receive(message) {
    this.lastMessage = performance.now();
    if (message.kind === "config") this.configure(message);
    else if (message.kind === "status") this.say(message.text, message.bad);
    else if (message.kind === "snapshot") this.snapshot(message);
    else if (message.kind === "frames") this.frames(message);
    this.mark();
  }

  /** Listen to a run's own line; where there is none, Gradio brings the frames too. */
  listen(run) {
    this.line?.close();
    const line = new EventSource(new URL(`${this.config.line}/${run}`, document.baseURI).href);
    line.onmessage = (event) => {
      if (run === this.run) this.receive(JSON.parse(event.data));
    };
    line.onerror = () => line.close(); // the run is over, or something is in the way: no second try
    this.line = line;
  }

  frames(message) {
    if (this.asking) {
      this.held.push(message);
      return;
    }
    if (message.run !== this.run || message.first > this.seq || message.epoch > this.epoch) {
      this.held.push(message);
      this.resync(message.run);
      return;
    }
    if (message.first < this.seq || message.epoch < this.epoch) {
      // a snapshot overtook it; it can only still bring the news that the run has ended
      if (message.last > this.seq) this.resync(message.run);
      else if (message.last === this.seq && message.end) this.finish(message.end);
      return;
    }
    for (const [name, ops] of Object.entries(message.ops)) {
      const panel = this.panels.get(name);
      if (panel?.figure) applyOps(panel.figure, ops);
    }
    this.addTokens(message.tokens, message.next);
    this.seq = message.last;
    for (const panel of this.panels.values()) if (panel.figure && message.last > message.first) panel.touch(this.seq);
    this.summaries(message.summaries);
    this.finish(message.end);
    this.wake();
  }

  snapshot(message) {
    if (message.run === this.run && message.epoch < this.epoch) return;
    if (message.run !== this.run) {
      this.reset(message.run);
      this.text.replaceChildren();
      this.unread = null;
      this.say("");
      if (!message.end && this.config) this.listen(message.run);
    }
    Object.assign(this, { epoch: message.epoch, seq: message.seq, palette: message.palette });
    // what the visitor asked for meanwhile outranks what the server knew
    if (!this.wanted) this.focus = { ...message.focus };
    this.addTokens(message.tokens.slice(this.tokens.length), message.next);
    for (const [name, figure] of Object.entries(message.figures)) this.panels.get(name)?.take(figure, this.seq);
    this.summaries(message.summaries);
    this.finish(message.end);
    this.showLegend();
    this.showSelection();
    this.wake();
    if (this.config && message.focus.lang !== this.config.lang) this.look({ lang: this.config.lang });
  }

  summaries(summaries) {
    for (const [name, text] of Object.entries(summaries ?? {})) {
      const panel = this.panels.get(name);
      if (panel) panel.summary.textContent = text;
    }
  }

  finish(end) {
    this.end = end ?? null;
    if (this.end) this.line?.close();
    this.showStatus();
  }

  /** Ask the server something; one question at a time, messages wait for the answer. */
  async ask(name, question) {
    this.asking = true;
    let answer = null;
    try {
      answer = await this.server[name](JSON.stringify(question));
    } catch {
      answer = null;
    }
    this.asking = false;
    if (typeof answer === "string") {
      if (this.offline > 2) this.say("");
      this.offline = 0;
      this.answer(JSON.parse(answer));
    } else {
      this.offline += 1;
      if (this.offline > 2) this.say(this.texts["live.offline"], true);
    }
    const held = this.held.splice(0);
    for (const message of held) this.receive(message);
    return answer !== null && answer !== undefined;
  }

  answer(message) {
    if (message.kind === "snapshot") this.snapshot(message);
    else if (message.kind === "current") this.finish(message.end);
    else if (message.kind === "gone") {
      this.held = [];
      if (!this.end) this.finish("stopped");
    }
    this.mark();
  }

  resync(run = this.run) {
    if (this.asking || !run) return;
    const same = run === this.run;
    this.ask("resync", { run, epoch: same ? this.epoch : -1, seq: same ? this.seq : -1 });
  }

  /** The server may have gone on without us (hidden tab, lost connection): silence is looked into. */
  watch() {
    if (!this.run || this.end || this.asking) return;
    const patience = SILENCE_MS * (1 + this.offline);
    if (performance.now() - Math.max(this.lastMessage, this.lastAsked ?? 0) < patience) return;
    this.lastAsked = performance.now();
    this.resync();
  }

  /** Look elsewhere: another token, step, metric or language. The latest wish is asked for when the last is answered. */
  async look(change) {
    const before = JSON.stringify(this.focus);
    this.focus = { ...this.focus, ...change };
    for (const panel of this.panels.values()) if (panel.select) panel.select.value = this.focus.metric;
    this.showSelection();
    if (!this.run || JSON.stringify(this.focus) === before) return;
    this.wanted = true;
    if (this.looking) return;
    this.looking = true;
    while (this.wanted) {
      while (this.asking) await new Promise((resolve) => setTimeout(resolve, 10));
      this.wanted = false;
      await this.ask("focus", { run: this.run, focus: this.focus });
    }
    this.looking = false;
  }

  // --- text ------------------------------------------------------------------------------------------------------

  addTokens(rows, next) {
    const nearEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 60;
    this.unread?.remove();
    this.unread = null;
    if (rows.length || this.tokens.length) this.idle.hidden = true;
    const made = document.createDocumentFragment();
    for (const row of rows) made.append(this.token(row, this.tokens.push(row) - 1));
    this.text.append(made);
    const generated = this.tokens.length - this.tokens.filter((row) => row[3]).length;
    if (generated && this.generatedAt === null) this.generatedAt = [performance.now(), generated];
    if (next !== null && next !== undefined && this.tokens.length) {
      this.unread = this.piece(next);
      this.unread.classList.add("lv-unread");
      this.unread.title = this.texts["live.unread"];
      this.text.append(this.unread);
    }
    if (nearEnd && rows.length) this.text.scrollTop = this.text.scrollHeight;
    this.showSelection();
    this.showStatus();
  }

  piece(text) {
    const span = el("span", "lv-tok", text);
    if (text === "" || text === " ") span.classList.add("lv-blank");
    if (/^\s*\n/.test(text)) span.classList.add("lv-newline");
    return span;
  }

  token(row, i) {
    const span = this.piece(row[0]);
    const loops = Math.max(0, ...row[1]);
    span.dataset.i = i;
    span.setAttribute("role", "option");
    if (row[3]) span.classList.add("lv-prompt");
    if (loops) {
      span.dataset.loops = row[1].join("+");
      span.style.setProperty("--tint", this.palette?.[loops - 1] ?? "transparent");
    }
    return span;
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.look({ token: null, step: null });
    if (!step || !this.tokens.length) return;
    event.preventDefault();
    const at = (this.focus.token ?? this.tokens.length - 1) + step;
    this.look({ token: Math.min(Math.max(at, 0), this.tokens.length - 1), step: null });
  }

  showSelection() {
    const at = this.focus.token;
    const now = at === null ? null : this.text.querySelector(`[data-i="${at}"]`);
    if (this.selected !== now) {
      this.selected?.classList.remove("lv-selected");
      this.selected?.removeAttribute("aria-selected");
      now?.classList.add("lv-selected");
      now?.setAttribute("aria-selected", "true");
      this.selected = now;
    }
    this.root.dataset.focus = at ?? "";
    this.showChosen();
  }

  showChosen() {
    if (!this.texts) return;
    const row = this.focus.token === null ? null : this.tokens[this.focus.token];
    this.follow.hidden = this.focus.token === null;
    this.chosen.textContent = "";
    if (row) {
      const reason = [...new Set(row[2])].map((name) => this.texts[`live.reason.${name}`] ?? name).join(", ");
      this.chosen.textContent = fill(this.texts["live.selected"], {
        t: this.focus.token,
        text: row[0].replace(/\n/g, "↵"),
        loops: row[1].join(" + ") || "0",
        reason: reason || this.texts["live.plain"],
        logp: row[4] ?? "–",
      });
    } else if (this.tokens.length) this.chosen.textContent = this.texts["live.newest"];
  }

  showLegend() {
    if (!this.texts || !this.run) return;
    const colours = this.palette ?? [];
    this.legend.replaceChildren();
    if (!colours.length) {
      this.legend.append(this.texts["live.plain"]);
      return;
    }
    const shown = colours.length <= 12 ? colours.map((_, i) => i) : [0, ...[1, 2, 3].map((k) => Math.round((k * (colours.length - 1)) / 3))];
    this.legend.append(el("span", "", this.texts["live.legend"]));
    for (const i of shown) {
      const swatch = el("span", "lv-swatch", String(i + 1));
      swatch.style.setProperty("--tint", colours[i]);
      this.legend.append(swatch);
    }
    this.legend.append(el("span", "lv-swatch lv-unread", this.texts["live.unread"]));
  }

  // --- status ----------------------------------------------------------------------------------------------------

  say(text, bad = false) {
    this.said = text;
    this.statusLine.classList.toggle("lv-bad", Boolean(bad));
    this.showStatus();
  }

  showStatus() {
    if (!this.texts) return;
    if (this.said) {
      this.statusLine.textContent = this.said;
      return;
    }
    const n = this.tokens.length;
    if (!this.run || !n) {
      this.statusLine.textContent = "";
      return;
    }
    const generated = n - this.tokens.filter((row) => row[3]).length;
    if (!this.end) this.clock = performance.now();
    const [since, had] = this.generatedAt ?? [this.began, 0];
    const rate = generated > had ? (((generated - had) * 1000) / Math.max(1, (this.clock ?? since) - since)).toFixed(1) : "–";
    const loops = this.tokens.reduce((sum, row) => sum + row[1].reduce((a, b) => a + b, 0), 0) / n;
    const counts = fill(this.texts["live.running"], { n, rate, loops: loops.toFixed(2).replace(/\.?0+$/, "") });
    const end = this.end ? `${this.texts[`live.end.${this.end}`] ?? this.end} · ` : "";
    this.statusLine.textContent = end + counts;
  }

  /** Follow the loading of the model until it is there. */
  async watchModel() {
    if (this.watcher) return;
    this.watcher = true;
    for (let tries = 0; ; tries++) {
      let status = null;
      try {
        status = JSON.parse(await this.server.model_status(JSON.stringify({ lang: this.config.lang })));
      } catch {
        status = null;
      }
      if (status) {
        this.modelLine.textContent = status.text;
        this.modelLine.dataset.state = status.state;
        this.root.dataset.model = status.state;
        if (status.state === "ready" && !this.modelSeen) {
          this.modelSeen = true;
          this.loaded?.();
        }
        if ((status.state === "ready" || status.state === "failed") && status.lang === this.config.lang) break;
      } else if (tries > 20) break;
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
    this.watcher = null;
  }

  /** What tests and tools read. */
  mark() {
    const data = this.root.dataset;
    data.ready = this.config && this.Plotly ? "1" : "0";
    data.run = this.run ?? "";
    data.t = String(this.seq);
    data.end = this.end ?? "";
    const drawn = [...this.panels.values()].map((panel) => (panel.dirtySince === null ? panel.drawn : -1));
    data.drawn = String(drawn.length ? Math.min(...drawn) : -1);
  }

  // --- drawing ---------------------------------------------------------------------------------------------------

  wake() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => this.tick());
  }

  /** Draw the panel that has waited longest, then leave the browser at least as much time as that took. */
  async tick() {
    this.scheduled = false;
    if (!this.Plotly || !this.config) return;
    const due = [...this.panels.values()].filter((panel) => panel.figure && panel.dirtySince !== null && !panel.dragging);
    // off screen counts only when nothing comes any more: then scrolling finds every panel drawn
    const visible = due.filter((panel) => panel.onScreen);
    const next = (visible.length ? visible : this.end ? due : []).sort((a, b) => a.dirtySince - b.dirtySince)[0];
    if (!next) return;
    const now = performance.now();
    // once the run has ended nobody else needs the time
    const rest = this.end ? 0 : this.lastCost * (1 / DRAW_SHARE - 1) - (now - this.lastDraw);
    if (rest > 1) {
      this.scheduled = true;
      setTimeout(() => requestAnimationFrame(() => this.tick()), rest);
      return;
    }
    try {
      await next.draw(this.Plotly);
    } catch (error) {
      console.error(`panel ${next.name}`, error);
    }
    this.lastDraw = performance.now();
    this.lastCost = this.lastDraw - now;
    this.mark();
    this.wake();
  }
}

/** Called by the component's js_on_load. */
export function mount({ element, server, props, watch, loaded }) {
  const page = new Page({ element, server, loaded });
  const take = () => {
    if (typeof props.value !== "string" || !props.value) return;
    let message;
    try {
      message = unwire(props.value);
    } catch (error) {
      console.error("unreadable message", error);
      return;
    }
    page.receive(message);
  };
  watch("value", take);
  take();
  page.root.page = page; // for tests, and for whoever looks with the browser's tools
  return page;
}
