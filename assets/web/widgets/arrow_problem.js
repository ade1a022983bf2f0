// Problems of the task "follow the arrows", as loopviz/train/arrows.py makes them: `b>c f>a a>b ... f?`. Where a node ends is
// worked out here by following the arrows, and tests hold that to the task's own answers. Nothing here draws.

import { cut, shuffled } from "../core/dom.js";

/** @typedef {[string, string]} Arrow from, to */
/** @typedef {{ arrows: Arrow[], start: string | null }} Problem the arrows in their order, and the node asked about, once there is one */
/** @typedef {{ nodes: number, arrows: number, hops: number }} Task what the model was trained on: letters, arrows a problem, the deepest chain */
/** @typedef {{ key: string, values: Record<string, string | number> }} Word a text of ours (`arrows.` and the key), and what fills its places */
/** @typedef {{ path: string[], end: string | null, back: string | null }} Walk the nodes passed, the start first; where it ends, or the node at which it comes round */
/** @typedef {{ node: string | null, kind: "hop" | "stay" | "jump" | "none", from: string }} Move what a loop's guess did: a guess that is no node is none */

/** The nodes' names. @param {number} nodes */
export const letters = (nodes) => Array.from({ length: nodes }, (_, i) => String.fromCharCode(97 + i));

/**
 * A prompt as a problem; why it is none.
 * @param {string} prompt
 * @param {Task} task
 * @returns {{ problem: Problem, wrong?: undefined } | { problem?: undefined, wrong: Word }}
 */
export function parse(prompt, { nodes }) {
  const names = letters(nodes);
  /** @type {(key: string, values?: Word["values"]) => { wrong: Word }} */
  const none = (key, values = {}) => ({ wrong: { key: `wrong.${key}`, values } });
  /** @type {Problem} */
  const problem = { arrows: [], start: null };
  for (const word of prompt.split(/\s+/).filter(Boolean)) {
    const [, from, to] = /^(\w)>(\w)$/.exec(word) ?? [];
    const [, asked] = /^(\w)\?$/.exec(word) ?? [];
    if (![from ?? asked, to ?? asked].every((name) => names.includes(name))) return none("word", { word: cut(word, 24), last: names[nodes - 1] });
    if (problem.start !== null) return none(asked ? "questions" : "after", { start: problem.start, word });
    if (asked) problem.start = asked;
    else if (from === to) return none("self", { node: from });
    else {
      const earlier = problem.arrows.find(([node]) => node === from);
      if (earlier) return none("twice", { node: from, first: earlier[1], second: to });
      problem.arrows.push([from, to]);
    }
  }
  return { problem };
}

/** A problem as one types it. @param {Problem} problem */
export const write = ({ arrows, start }) => [...arrows.map((arrow) => arrow.join(">")), ...(start === null ? [] : [`${start}?`])].join(" ");

/**
 * Follow the arrows from a node, to the one that has none: where it ends. Arrows that come round end nowhere, and the task has
 * no answer to them.
 * @param {Arrow[]} arrows
 * @param {string} start
 * @returns {Walk}
 */
export function walk(arrows, start) {
  const leads = new Map(arrows);
  const path = [start];
  while (leads.has(path[path.length - 1])) {
    const next = leads.get(path[path.length - 1]);
    if (path.includes(next)) return { path, end: null, back: next };
    path.push(next);
  }
  return { path, end: path[path.length - 1], back: null };
}

/** Whether arrows go round somewhere. @param {Arrow[]} arrows */
export const round = (arrows) => arrows.some(([from]) => walk(arrows, from).end === null);

/**
 * What of a problem the model never met as it was trained.
 * @param {Problem} problem
 * @param {Task} task
 * @returns {Word[]}
 */
export function outside({ arrows, start }, task) {
  /** @type {Word[]} */
  const found = [];
  /** @type {(key: string, values?: Word["values"]) => number} */
  const add = (key, values = {}) => found.push({ key: `outside.${key}`, values: { ...values, trained: task.arrows } });
  const way = start === null ? null : walk(arrows, start);
  const hops = way ? way.path.length - 1 : 0;
  if (way?.back) add("cycle", { start, back: way.back });
  else if (round(arrows)) add("round");
  if (way && !hops) add("none", { start });
  if (way?.end && hops > task.hops) add("deep", { hops, most: task.hops });
  if (arrows.length !== task.arrows) add(arrows.length < task.arrows ? "few" : "many", { n: arrows.length });
  return found;
}

/**
 * What each loop's guess did, from the start on: one arrow, none, or a jump to where no arrow of its place leads.
 * @param {Arrow[]} arrows
 * @param {string} start
 * @param {string[]} guesses the likeliest word after each loop
 * @param {Task} task
 * @returns {Move[]}
 */
export function moves(arrows, start, guesses, { nodes }) {
  const leads = new Map(arrows);
  const names = letters(nodes);
  let at = start;
  return guesses.map((guess) => {
    const said = guess.trim();
    const from = at;
    /** @type {Move} */
    const none = { node: null, kind: "none", from };
    if (!names.includes(said)) return none;
    at = said;
    return { node: said, kind: said === from ? "stay" : leads.get(from) === said ? "hop" : "jump", from };
  });
}

/**
 * The problem with as many arrows as the model was trained on: more of them elsewhere, or into the way, that neither make the way
 * longer nor go round; in any order.
 * @param {Problem} problem
 * @param {Task} task
 * @returns {Problem}
 */
export function filled({ arrows, start }, task, random = Math.random) {
  const end = start === null ? null : walk(arrows, start).end;
  const made = [...arrows];
  const taken = new Set([end, ...arrows.map(([from]) => from)]);
  const free = shuffled(letters(task.nodes).filter((name) => !taken.has(name)), random);
  while (made.length < task.arrows && free.length) {
    const from = free.pop();
    const targets = letters(task.nodes).filter((to) => to !== from && !walk(made, to).path.includes(from));
    if (targets.length) made.push([from, targets[Math.floor(random() * targets.length)]]);
  }
  return { arrows: shuffled(made, random), start };
}

/** Another problem of the kind the model was trained on. @param {Task} task @returns {Problem} */
export function puzzle(task, random = Math.random) {
  const hops = 1 + Math.floor(random() * task.hops);
  const way = shuffled(letters(task.nodes), random).slice(0, hops + 1);
  /** @type {Arrow[]} */
  const arrows = way.slice(1).map((to, i) => [way[i], to]);
  return filled({ arrows, start: way[0] }, task, random);
}
