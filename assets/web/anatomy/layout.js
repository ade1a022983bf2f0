// Where the boxes of a layer's drawing stand and how the ways between them run: down through attention, up through the MLP. Of a plain
// Llama it is always the same; what another model has more makes room for itself, and what it has not is passed by.

/** @import { AnatomyStage } from "../core/contract.js" */
/** @typedef {[x: number, y: number, width: number]} Box its middle */
/** @typedef {[from: string, to: string, path: string]} Way */
/** @typedef {{ key: string, rect: [x: number, y: number, width: number, height: number], word: string }} Half its words' key and place */
/** @typedef {{ boxes: Record<string, Box>, ways: Way[], again: string, round: string, halves: Half[], width: number, height: number }} Layout
 * `again`: the way to the next layer, or loop step; `round`: where its words stand */

export const TALL = 26; // a box
const [HALF, WIDTH, HEIGHT] = [TALL / 2, 400, 478];
const LEFT = 104; // the middle of what stands above attention
const RIGHT = 300; // of the MLP, and of what comes after it
/** What follows the second sum, from below: of these a layer has some. */
const AFTER = ["norm_result", "step_norm", "read_out", "left_norm", "final_norm", "head", "sampling"];
const [FIRST, NEXT] = [58, 44]; // its distances upwards
const LEAVES = ["result", "norm_result", "step_norm"]; // the last of these is what the next layer, or loop step, reads

/** The column of attention, and how far it is longer than a plain Llama's. @param {(name: string) => boolean} has */
function leftBoxes(has) {
  /** @type {Record<string, Box>} */
  const boxes = {};
  const [across, wide] = has("start") ? [52, 84] : [LEFT, 92];
  let down = 0;
  boxes.embedding = [across, 22, wide];
  if (has("scaled")) boxes.scaled = [across, 22 + (down += 42), wide];
  if (has("start")) boxes.start = [156, 22 + down, 84];
  boxes.state = [LEFT, 66 + down, 92];
  if (has("norm")) boxes.norm = [LEFT, 112 + down, 92];
  for (const [name, x] of /** @type {const} */ ([["query", 46], ["key", 106], ["value", 166]])) boxes[name] = [x, 162 + down, 56];
  if (has("norm_query")) {
    down += 42;
    for (const [name, x] of /** @type {const} */ ([["norm_query", 46], ["norm_key", 106]])) boxes[name] = [x, 162 + down, 56];
  }
  boxes.rope = [76, 206 + down, 100];
  if (has("rounded")) {
    boxes.rounded = [136, 250 + down, 104];
    down += 44;
  }
  boxes.keys = [136, 250 + down, 104];
  boxes.scores = [84, 294 + down, 92];
  boxes.weights = [84, 335 + down, 92];
  boxes.mixed = [106, 376 + down, 92];
  boxes.attended = [106, 416 + down, 92];
  if (has("norm_attended")) boxes.norm_attended = [106, 416 + (down += 40), 92];
  return { boxes, down };
}

/** The column of the MLP and what follows it, and how far it is longer than a plain Llama's. @param {(name: string) => boolean} has */
function rightBoxes(has) {
  /** @type {Record<string, Box>} */
  const boxes = {};
  if (has("norm_mlp")) boxes.norm_mlp = [RIGHT, 416, 92];
  boxes.gate = [262, 368, 70];
  boxes.up = [340, 368, 70];
  boxes.swish = [262, 324, 70];
  boxes.product = [RIGHT, 280, 46];
  boxes.down = [RIGHT, 236, 92];
  let y = 236;
  if (has("norm_down")) boxes.norm_down = [RIGHT, (y -= 42), 92];
  boxes.result = [RIGHT, (y -= 50), 46];
  AFTER.filter(has).forEach((name, i) => (boxes[name] = [RIGHT, (y -= i ? NEXT : FIRST), name === "head" || name === "sampling" ? 92 : 104]));
  return { boxes, up: 40 - y };
}

/** The ways of attention. @param {Record<string, Box>} boxes @param {Map<string, string[]>} reads */
function leftWays(boxes, reads) {
  const y = (/** @type {string} */ name) => boxes[name][1];
  /** Straight down. @type {(from: string, to: string, x?: number) => Way} */
  const down = (from, to, x = boxes[from][0]) => [from, to, `M${x} ${y(from) + HALF}V${y(to) - HALF}`];
  /** @type {Way[]} */
  const ways = [];
  const row = boxes.scaled ? "scaled" : "embedding";
  if (boxes.scaled) ways.push(down("embedding", "scaled"));
  /** Into the state from beside its middle. @type {(from: string, x: number) => Way} */
  const turned = (from, x) => [from, "state", `M${boxes[from][0]} ${y(from) + HALF}V${y("state") - 22}H${x}V${y("state") - HALF}`];
  if (!boxes.start) ways.push(down(row, "state"));
  else if (reads.get("state").includes("embedding")) ways.push(turned(row, 90));
  if (boxes.start) ways.push(turned("start", 118));
  const source = boxes.norm ? "norm" : "state";
  if (boxes.norm) ways.push(down("state", "norm"));
  for (const name of ["query", "key", "value"]) ways.push([source, name, `M${LEFT} ${y(source) + HALF}V${y(name) - 25}H${boxes[name][0]}V${y(name) - HALF}`]);
  for (const name of ["query", "key"]) {
    const normed = `norm_${name}`;
    if (boxes[normed]) ways.push(down(name, normed));
    ways.push(down(boxes[normed] ? normed : name, "rope"));
  }
  const kept = boxes.rounded ? "rounded" : "keys";
  ways.push(down("rope", kept, 106), down("value", kept));
  if (boxes.rounded) ways.push(down("rounded", "keys"));
  ways.push(down("rope", "scores", 60), down("keys", "scores", 108), ["scores", "weights", `M84 ${y("scores") + HALF}V${y("weights") - HALF}`]);
  ways.push(["weights", "mixed", `M84 ${y("weights") + HALF}V${y("mixed") - HALF}`], ["keys", "mixed", `M166 ${y("keys") + HALF}V${y("mixed")}H153`]);
  const said = boxes.norm_attended ? "norm_attended" : "attended";
  ways.push(down("mixed", "attended"));
  if (boxes.norm_attended) ways.push(down("attended", "norm_attended"));
  ways.push(down(said, "between"), ["state", "between", `M58 ${y("state")}H10V${y("between")}H82`]);
  return ways;
}

/** The ways of the MLP and of what follows it. @param {Record<string, Box>} boxes */
function rightWays(boxes) {
  const y = (/** @type {string} */ name) => boxes[name][1];
  /** Straight up. @type {(from: string, to: string) => Way} */
  const up = (from, to) => [from, to, `M${boxes[from][0]} ${y(from) - HALF}V${y(to) + HALF}`];
  /** @type {Way[]} */
  const ways = [];
  const stream = boxes.norm_stream ? "norm_stream" : "between";
  const [foot, out] = [y(stream), boxes.norm_stream ? 267 : 130];
  if (boxes.norm_stream) ways.push(["between", "norm_stream", `M130 ${foot}H161`]);
  if (boxes.norm_mlp) ways.push([stream, "norm_mlp", `M${out} ${foot}H300V${y("norm_mlp") + HALF + 1}`]);
  ways.push([stream, "result", `M${out} ${foot}H390V${y("result")}H324`]);
  for (const name of ["gate", "up"]) {
    const rest = `V${y(name) + 25}H${boxes[name][0]}V${y(name) + HALF}`;
    ways.push(boxes.norm_mlp ? ["norm_mlp", name, `M300 ${y("norm_mlp") - HALF}${rest}`] : [stream, name, `M${out} ${foot}H300${rest}`]);
  }
  ways.push(up("gate", "swish"), ["swish", "product", `M262 ${y("swish") - HALF}V${y("product")}H276`], ["up", "product", `M340 ${y("up") - HALF}V${y("product")}H324`]);
  const chain = ["product", "down", "norm_down", "result", ...AFTER].filter((name) => boxes[name]);
  for (const [i, name] of chain.entries()) if (i) ways.push(up(chain[i - 1], name));
  return ways;
}

/** The drawing of a layer with these stages. @param {AnatomyStage[]} stages @returns {Layout} */
export function layout(stages) {
  const reads = new Map(stages.map((stage) => [stage.name, stage.reads]));
  const has = (/** @type {string} */ name) => reads.has(name);
  const { boxes: left, down } = leftBoxes(has);
  const { boxes: right, up } = rightBoxes(has);
  const more = Math.max(down, up, 0);
  for (const box of Object.values(right)) box[1] += more;
  /** @type {Record<string, Box>} */
  const boxes = { ...left, between: [106, 456 + more, 46], ...right };
  if (has("norm_stream")) boxes.norm_stream = [214, 456 + more, 104];
  const y = (/** @type {string} */ name) => boxes[name][1];
  const last = LEAVES.filter(has).at(-1);
  const [top, foot] = [y("query") - 24, y(boxes.norm_attended ? "norm_attended" : "attended") + 22];
  const [high, low] = [y(boxes.norm_down ? "norm_down" : "down") - 29, y("gate") + 23];
  return {
    boxes,
    ways: [...leftWays(boxes, reads), ...rightWays(boxes)],
    again: `M${RIGHT - boxes[last][2] / 2 - 1} ${y(last)}H216V${y("state")}H151`,
    round: `translate(211 ${(y("state") + y(last)) / 2 + 2}) rotate(-90)`,
    halves: [
      { key: "anatomy.way.attention", rect: [14, top, 184, foot - top], word: `translate(188 ${y("weights") - 5}) rotate(-90)` },
      { key: "anatomy.way.mlp", rect: [222, high, 160, low - high], word: `translate(375 ${y("product") + 18}) rotate(-90)` },
    ],
    width: WIDTH,
    height: HEIGHT + more,
  };
}
