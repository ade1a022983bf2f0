// Messages from the server: how they come, and how the edits in them are folded into figures.

import { OPS } from "./contract.js";

/** Messages come with their two kinds of quotes exchanged (see loopviz.app.sessions.messages.wire). @param {string} text */
export const unwire = (text) => JSON.parse(text.replace(/["']/g, (quote) => (quote === '"' ? "'" : '"')));

/**
 * Fold packed edits (loopviz.figures.edits.pack) into a figure; throws when a path is not in it. The Python fold is
 * loopviz.figures.edits.apply.
 * @param {object} figure plain data
 * @param {any[][]} packed
 */
export function applyOps(figure, packed) {
  /** @type {(string | number)[]} */
  let path = [];
  for (const [code, shared, ...rest] of packed) {
    const value = rest.pop();
    path = path.slice(0, shared).concat(rest);
    /** @type {any} */
    let place = figure;
    for (const key of path.slice(0, -1)) place = place[key];
    const last = path[path.length - 1];
    const until = code === OPS.append ? 0 : Number(last) + (code === OPS.splice ? value.length : 1);
    if (Array.isArray(place) && !(until <= place.length)) throw new RangeError(`${path} is not in this figure`);
    if (code === OPS.append) place[last].push(...value);
    else if (code === OPS.set) place[last] = value;
    else if (code === OPS.splice) place.splice(last, value.length, ...value);
    else throw new Error(`unknown op ${code}`);
  }
}
