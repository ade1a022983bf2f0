// The script inside a report: draws its figures, and moves through the run. Needs nothing from outside the file.
// Knows no panel by name. What it shows of a visitor's or a model's text is in the page already, or goes through textContent.
"use strict";

const CONFIG = {
  displaylogo: false,
  responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud", "sendDataToCloud"],
  showSendToCloud: false,
  plotlyServerURL: "",
};
const dark = window.matchMedia("(prefers-color-scheme: dark)");

/** The text packed (gzip, base64) in an element. */
async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** A copy of a trace's containers, sharing its arrays: Plotly writes into, and prunes, the containers it is given. */
function containers(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, containers(inner)]));
}

/** Fold edits into a figure. The Python fold is loopviz.panels.apply. */
function applyOps(figure, ops) {
  for (const [code, path, value] of ops) {
    let place = figure;
    for (const key of path.slice(0, -1)) place = place[key];
    const last = path[path.length - 1];
    if (code === 1) place[last].push(...structuredClone(value));
    else if (code === 2) place.splice(last, value.length, ...structuredClone(value));
    else place[last] = structuredClone(value);
  }
}

const UNDER_HEAD = 24; // as in core/plotly.js, and so the next two

/** What a figure says of itself in its title, as nodes; Plotly would cut it where the plot is narrow. */
function headline(layout) {
  const markup = new DOMParser().parseFromString((layout.title?.text ?? "").trim().replace(/<br>/g, "\n"), "text/html");
  return [...markup.body.childNodes].map((node) => {
    if (node.nodeName !== "SUB") return node.textContent;
    return Object.assign(document.createElement("sub"), { textContent: node.textContent });
  });
}

/** The layout without its title, and without the room that was for it. */
function untitled(layout) {
  if (layout.title?.text === undefined) return layout;
  const { title, margin, height, ...rest } = layout;
  const room = Math.max(0, margin.t - UNDER_HEAD);
  return { ...rest, margin: { ...margin, t: margin.t - room }, height: height - room };
}

class Panel {
  constructor(report, name, data) {
    Object.assign(this, { report, name, data, seen: false, waiting: true, drawing: null });
    this.node = document.querySelector(`article[data-panel="${name}"]`);
    this.plot = this.node.querySelector(".plot");
    this.said = this.node.querySelector(".headline");
    this.summary = this.node.querySelector(".summary");
    this.opening = this.summary.textContent;
    this.folded = 0;
    this.figure = null;
    new IntersectionObserver(([entry]) => {
      this.seen = entry.isIntersecting;
      if (this.seen && this.waiting) this.draw();
    }).observe(this.node);
  }

  /** The figure after `count` tokens were read; null: as the report opens. */
  at(count) {
    if (count === null) return this.data.figure;
    if (!this.figure || count < this.folded) {
      this.figure = structuredClone(this.data.empty);
      this.folded = 0;
    }
    for (; this.folded < count; this.folded += 1) applyOps(this.figure, this.data.ops[this.folded]);
    return this.figure;
  }

  show() {
    const count = this.report.count;
    this.summary.textContent = count === null ? this.opening : this.data.summaries[count];
    this.waiting = true;
    if (this.seen) this.draw();
  }

  async draw() {
    if (this.drawing) return; // one at a time; what is asked for meanwhile is drawn next
    this.waiting = false;
    const figure = this.at(this.report.count);
    const template = this.report.templates[dark.matches ? "dark" : "light"];
    const layout = structuredClone({ ...untitled(figure.layout), template, autosize: true });
    this.said.replaceChildren(...headline(figure.layout));
    layout.uirevision = 1;
    this.plot.style.height = `${layout.height}px`; // its own, as Plotly's part of it is 100 % high after a window's change of size
    const svg = { name: "SVG", icon: Plotly.Icons.disk, click: (plot) => this.save(plot) };
    const { lang, toolbar } = this.report;
    const config = { ...CONFIG, locale: lang, locales: { [lang]: { dictionary: toolbar, format: {} } }, modeBarButtonsToAdd: [svg], toImageButtonOptions: { filename: this.name, scale: 2 } };
    this.drawing = Plotly.react(this.plot, figure.data.map(containers), layout, config);
    await this.drawing;
    if (!this.wired) this.plot.on("plotly_click", (event) => this.clicked(event.points[0]));
    this.wired = true;
    this.drawing = null;
    this.node.dataset.drawn = String(this.report.count ?? "all");
    if (this.waiting && this.seen) this.draw();
  }

  save(plot) {
    Plotly.downloadImage(plot, { format: "svg", filename: this.name, width: plot.clientWidth, height: plot.clientHeight });
  }

  /** What a click selects is said by the figure itself (see loopviz/panels/__init__.py). */
  clicked(point) {
    const figure = this.at(this.report.count);
    const select = figure.data[point?.curveNumber]?.meta?.select ?? figure.layout.meta?.select;
    const token = select?.token ? parseInt(point[select.token], 10) : NaN;
    if (Number.isFinite(token)) this.report.go(token + 1);
  }
}

class Report {
  constructor(data) {
    this.templates = data.templates;
    this.toolbar = data.toolbar;
    this.lang = document.documentElement.lang === "zh" ? "zh-CN" : document.documentElement.lang;
    this.texts = data.texts;
    this.total = data.total;
    this.selected = data.selected; // token selected as the report opens
    this.count = null; // tokens read in what is shown; null: as the report opens
    this.tokens = [...document.querySelectorAll(".tok[data-i]")];
    this.panels = Object.entries(data.panels).map(([name, panel]) => new Panel(this, name, panel));
    dark.addEventListener("change", () => this.panels.forEach((panel) => panel.show()));
    if (data.replay && this.total) this.wire();
  }

  wire() {
    const bar = document.querySelector(".replay");
    [this.play, this.all] = bar.querySelectorAll("button");
    this.slider = bar.querySelector("input");
    this.said = bar.querySelector("output");
    this.slider.max = this.slider.value = this.total;
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.play.addEventListener("click", () => this.run(!this.timer));
    this.all.addEventListener("click", () => this.go(null));
    document.querySelector(".text").addEventListener("click", (event) => {
      const token = event.target.closest?.("[data-i]");
      if (token) this.go(Number(token.dataset.i) + 1);
    });
    document.body.classList.add("live");
    bar.hidden = false;
    this.mark();
  }

  /** Show the run as it was once `count` tokens had been read; null: as the report opens. */
  go(count, playing = false) {
    if (!playing) this.run(false);
    this.count = count === null ? null : Math.min(Math.max(count, 0), this.total);
    this.slider.value = this.count ?? this.total;
    this.mark();
    cancelAnimationFrame(this.asked);
    this.asked = requestAnimationFrame(() => this.panels.forEach((panel) => panel.show()));
  }

  mark() {
    const here = this.count === null ? this.selected : this.count - 1;
    this.tokens.forEach((token, i) => {
      token.classList.toggle("later", this.count !== null && i >= this.count);
      token.classList.toggle("here", i === here);
    });
    this.say();
  }

  say() {
    const token = this.count ? this.tokens[this.count - 1] : null;
    this.said.textContent = this.count === null ? this.texts.all : (token?.title ?? this.texts.none);
    this.play.textContent = this.timer ? this.texts.pause : this.texts.play;
    this.all.disabled = this.count === null;
  }

  run(on) {
    clearInterval(this.timer);
    this.timer = null;
    if (on) {
      if (this.count === null || this.count >= this.total) this.count = 0;
      this.timer = setInterval(() => {
        if (this.panels.some((panel) => panel.drawing)) return; // never faster than it can be drawn
        this.go(this.count + 1, true);
        if (this.count >= this.total) this.run(false);
      }, 250);
    }
    this.say();
  }
}

(async () => {
  try {
    const data = JSON.parse(await unpack("lv-data"));
    const script = document.createElement("script");
    script.textContent = await unpack("lv-plotly");
    document.head.append(script);
    window.report = new Report(data);
    document.body.dataset.ready = "1";
  } catch (error) {
    console.error(error);
    for (const plot of document.querySelectorAll(".plot")) plot.dataset.waiting = plot.dataset.failed;
  }
})();
