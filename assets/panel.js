// One panel of the live part: its words, its plot, and the edits that keep its figure's data up to date.
// Knows no panel by name. Text reaches the page through textContent only.

// A finger scrolls the page, where a mouse zooms the plot.
const TOUCH = window.matchMedia("(hover: none)").matches;

const PLOT_CONFIG = {
  displaylogo: false,
  displayModeBar: TOUCH ? false : "hover",
  responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud", "sendDataToCloud"],
  // Plotly 4 offers to upload the chart to its makers' cloud: not from this page
  showSendToCloud: false,
  plotlyServerURL: "",
};

/** A new element with a class and children; strings become text. */
export function el(tag, cls, ...children) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Fold packed edits into a figure; throws when a path is not in it. The Python fold is loopviz.panels.apply. */
export function applyOps(figure, packed) {
  let path = [];
  for (const [code, shared, ...rest] of packed) {
    const value = rest.pop();
    path = path.slice(0, shared).concat(rest);
    let place = figure;
    for (const key of path.slice(0, -1)) place = place[key];
    const last = path[path.length - 1];
    if (code === 1) place[last].push(...value);
    else if (code === 0) place[last] = value;
    else throw new Error(`unknown op ${code}`);
  }
}

/** A copy of a trace's containers, sharing its arrays: Plotly writes into, and prunes, the containers it is given. */
function containers(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, containers(inner)]));
}

/** One panel: its frame on the page, its figure's data, and when it was last drawn. */
export class Panel {
  constructor(name, page) {
    this.name = name;
    this.page = page;
    this.figure = null;
    this.dirtySince = null; // when it first differed from what is drawn
    this.seq = -1; // frames in the figure
    this.drawn = -1; // frames in what is drawn
    this.revision = 0;
    this.onScreen = true;
    this.dragging = false;
    this.wired = false;
    this.title = el("h3");
    this.question = el("p", "lv-question");
    this.tools = el("div", "lv-tools");
    this.plot = el("div", "lv-plot");
    this.empty = el("p", "lv-empty");
    this.summary = el("p", "lv-sr");
    this.summary.setAttribute("aria-live", "polite");
    this.detailsTitle = el("summary");
    this.detailsBody = el("div", "lv-how");
    const head = el("div", "lv-panel-head", el("div", "", this.title, this.question), this.tools);
    const details = el("details", "", this.detailsTitle, this.detailsBody);
    this.node = el("section", "lv-panel", head, el("div", "lv-plot-wrap", this.empty, this.plot), this.summary, details);
    this.node.dataset.panel = name;
    this.plot.addEventListener("pointerdown", () => (this.dragging = true));
    window.addEventListener("pointerup", () => {
      if (this.dragging) setTimeout(() => ((this.dragging = false), page.wake()), 50);
    });
  }

  /** Put the panel's words in place. */
  label(words, texts) {
    this.title.textContent = words.title;
    this.question.textContent = words.question;
    this.empty.textContent = words.no_data;
    this.plot.setAttribute("aria-label", `${words.title}. ${words.question}`);
    this.plot.setAttribute("role", "img");
    this.detailsTitle.textContent = texts["live.details"];
    const formula = el("div", "lv-formula", words.formula);
    formula.dataset.formula = this.name;
    const row = (name, value) => el("p", "", el("b", "", `${name} `), value);
    this.detailsBody.replaceChildren(
      el("p", "", words.how),
      formula,
      row(texts["live.units"], words.units),
      row(texts["live.source"], words.source),
    );
    this.tools.replaceChildren();
    if (words.metrics) this.tools.append(this.metricSelect(words.metrics, texts));
    this.page.adoptFormulas();
  }

  metricSelect(metrics, texts) {
    const select = el("select", "lv-metric");
    select.setAttribute("aria-label", texts["live.metric"]);
    for (const [value, name] of Object.entries(metrics)) {
      const option = el("option", "", name);
      option.value = value;
      select.append(option);
    }
    select.value = this.page.focus.metric;
    select.addEventListener("change", () => this.page.look({ metric: select.value }));
    this.select = select;
    return select;
  }

  /** Take a whole figure. */
  take(figure, seq) {
    this.figure = figure;
    this.touch(seq);
  }

  touch(seq) {
    this.seq = seq;
    this.dirtySince ??= performance.now();
  }

  async draw(Plotly) {
    const seq = this.seq;
    this.dirtySince = null;
    const { page, figure } = this;
    const layout = structuredClone({ ...figure.layout, template: page.config.templates[page.theme()] });
    if (TOUCH) layout.dragmode = false;
    Object.assign(layout, { autosize: true, uirevision: page.run, datarevision: ++this.revision });
    const data = figure.data.map(containers);
    await Plotly.react(this.plot, data, layout, PLOT_CONFIG);
    this.empty.hidden = true;
    this.drawn = seq;
    this.wire();
  }

  wire() {
    if (this.wired) return;
    this.wired = true;
    this.plot.on("plotly_click", (event) => this.clicked(event.points[0]));
  }

  /** What a click selects is said by the figure itself (see loopviz/panels/__init__.py). */
  clicked(point) {
    const select = this.figure.data[point?.curveNumber]?.meta?.select ?? this.figure.layout.meta?.select;
    if (!select) return;
    const change = {};
    for (const key of ["token", "step"]) {
      const at = parseInt(point[select[key]], 10);
      if (select[key] && Number.isFinite(at)) change[key] = at;
    }
    this.page.look(change);
  }
}
