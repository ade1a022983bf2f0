"""What `benchmarks/page.py` puts into the page: it counts and times there what a visitor would see."""

from __future__ import annotations

# Each panel's draws (tokens shown, ms); plot elements added after the first draw; when the last token came and when all was drawn; and, looked at in every
# animation frame, how long ago the oldest token came that some panel on screen does not show yet.
WATCH = """
() => {
  const root = document.querySelector('.lv'), page = root.page;
  const seen = (window.seen = { rebuilt: 0, began: null, ended: null, drawn: null, behind: 0, draws: {} });
  const came = new Map();
  for (const panel of page.panels.values()) {
    const draw = panel.draw.bind(panel), took = (seen.draws[panel.name] = []);
    panel.draw = async () => {
      const began = performance.now();
      await draw();
      if (root.dataset.run !== 'recorded' && seen.ended === null) took.push([panel.drawn, performance.now() - began]);
    };
  }
  new MutationObserver((records) => {
    const on = [...page.panels.values()].filter((panel) => panel.on);
    if (root.dataset.t === '0' || !on.every((panel) => panel.drawn > 0)) return;
    for (const record of records) for (const node of record.addedNodes)
      if (node.matches?.('.main-svg, .svg-container, .js-plotly-plot, canvas.gl-canvas')) seen.rebuilt += 1;
  }).observe(root, { childList: true, subtree: true });
  new MutationObserver(() => {
    const data = root.dataset, now = performance.now();
    if (data.run === 'recorded') return;
    if (!came.has(+data.t)) came.set(+data.t, now);
    if (seen.began === null && data.run && data.end === '') seen.began = [now, +data.t];
    if (seen.ended === null && data.run && data.end) seen.ended = [now, +data.t];
    if (seen.ended !== null && seen.drawn === null && data.drawn === data.t) seen.drawn = now;
  }).observe(root, { attributes: true });
  const look = () => {
    if (seen.ended !== null) return;
    requestAnimationFrame(look);
    if (seen.began === null) return;
    for (const panel of page.panels.values()) {
      if (!panel.on || !panel.onScreen || !panel.figure || panel.drawn < 1) continue;
      const next = [...came.keys()].filter((t) => t > panel.drawn).sort((a, b) => a - b)[0];
      if (next !== undefined) seen.behind = Math.max(seen.behind, performance.now() - came.get(next));
    }
  };
  look();
}
"""

# Select words of a finished run one after the other: ms until the answer is there, and until it is drawn.
CLICK = """
async (clicks) => {
  const page = document.querySelector('.lv').page, found = [];
  const until = (holds) => new Promise((resolve) => {
    const look = () => (holds() ? resolve() : requestAnimationFrame(look));
    look();
  });
  for (let i = 0; i < clicks; i++) {
    const token = Math.floor(((i + 0.5) * page.tokens.length) / clicks), { epoch } = page;
    const began = performance.now();
    document.querySelector(`.lv-tok[data-i="${token}"]`).click();
    await until(() => page.epoch > epoch);
    const answered = performance.now() - began;
    await until(() => [...page.panels.values()].every((p) => !p.on || !p.onScreen || !p.figure || p.dirtySince === null));
    found.push([answered, performance.now() - began]);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return found;
}
"""

# The convergence panel's figure as it is now, drawn again and again by Plotly alone in a place of its own, as large and on top of all:
# ms of each draw but the first, which makes the plot. None where the panel has no figure.
REACT = """
async (times) => {
  const page = document.querySelector('.lv').page, panel = page.panels.get('convergence'), took = [];
  if (!panel?.figure || !panel.drawer) return took;
  const { width, height } = panel.plot.getBoundingClientRect(), place = document.createElement('div');
  Object.assign(place.style, { position: 'fixed', left: 0, top: 0, zIndex: 1000, width: `${width}px`, height: `${height}px` });
  document.body.append(place);
  const template = page.config.templates[page.theme()];
  for (let i = 0; i < times; i++) {
    const data = structuredClone(panel.figure.data);
    const layout = { ...structuredClone({ ...panel.figure.layout, template }), width, height, datarevision: i + 1 };
    const began = performance.now();
    await panel.drawer.react(place, data, layout, { displayModeBar: false });
    if (i) took.push(performance.now() - began);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  panel.drawer.purge(place);
  place.remove();
  return took;
}
"""

# Press Stop in the middle of a run: ms until the page says so, and when it was pressed, ms since 1970.
STOP = """
(tokens) => new Promise((resolve) => {
  const root = document.querySelector('.lv');
  let pressed = null;
  new MutationObserver(() => {
    const { t, end, run } = root.dataset;
    if (run === 'recorded' || run === window.before) return;
    if (pressed === null && +t >= tokens) {
      pressed = Date.now();
      document.querySelector('#lv-stop').click();
    } else if (pressed !== null && end) resolve([Date.now() - pressed, pressed]);
  }).observe(root, { attributes: true });
  window.before = root.dataset.run;
  document.querySelector('#lv-run').click();
})
"""

# These panels switched on and this group open, as a visitor's browser remembers it.
PANELS_ON = """
localStorage.setItem('loopviz.panels', JSON.stringify(Object.fromEntries(%s.map((name) => [name, true]))));
localStorage.setItem('loopviz.group', JSON.stringify(%s));
"""


def limited(script: str, seconds: float) -> str:
    """A script, a function of one argument, that is refused after so many seconds: what it waits for may never come."""
    late = f"new Promise((_, refuse) => setTimeout(() => refuse(new Error('no end within {seconds:.0f} s')), {1000 * seconds:.0f}))"
    return f"(argument) => Promise.race([({script.strip()})(argument), {late}])"
