// Messages from the server: how they come, and how the edits in them are folded into figures.

/** Messages come with their two kinds of quotes exchanged (see loopviz.app.sessions.messages.wire). */
export const unwire = (text) => JSON.parse(text.replace(/["']/g, (quote) => (quote === '"' ? "'" : '"')));

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
    else if (code === 2) place.splice(last, value.length, ...value);
    else throw new Error(`unknown op ${code}`);
  }
}
