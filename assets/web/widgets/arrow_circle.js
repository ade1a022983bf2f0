// Where the letters of a problem of arrows stand, in a circle, and the lines between them. Numbers alone: nothing here draws.

/** @typedef {[number, number]} Point */
/** @typedef {"arrow" | "jump"} LineKind */

export const SIZE = 380;
export const NODE = 17; // radius of a node
const [AROUND, HEAD] = [158, 8]; // radius of the circle, length of an arrow's head
const REACH = 27; // from a node's middle: there it is meant
const BEND = { arrow: 0.11, jump: -0.24 }; // of the length: an arrow there and one back lie apart, and a jump lies on neither
// Between near nodes lines bend to the inside instead, away from the nodes they pass, by how many nodes on: there, and back.
/** @type {Record<number, Point>} */
const INSIDE = { 1: [6, 26], 2: [30, 50], 3: [14, 34] };
const FURTHER = 40; // and a jump by so much more
const ASIDE = 17; // of the number of a loop, where its arrow is no longer than that number

export class ArrowCircle {
  /** @param {string[]} names of the nodes, clockwise from the top */
  constructor(names) {
    this.names = names;
  }

  /** @param {string} node @returns {Point} */
  place(node) {
    const turn = (2 * Math.PI * this.names.indexOf(node)) / this.names.length - Math.PI / 2;
    return [SIZE / 2 + AROUND * Math.cos(turn), SIZE / 2 + AROUND * Math.sin(turn)];
  }

  /** How many nodes on a node is from another, the shorter way round: clockwise above 0. @param {string} from @param {string} to */
  steps(from, to) {
    const { names } = this;
    const on = (names.indexOf(to) - names.indexOf(from) + names.length) % names.length;
    return on > names.length / 2 ? on - names.length : on;
  }

  /**
   * From the middle between two nodes towards the middle of the picture.
   * @param {Point} from
   * @param {number} by
   * @returns {Point}
   */
  inward([x, y], by) {
    const [dx, dy] = [SIZE / 2 - x, SIZE / 2 - y];
    return [x + (by * dx) / Math.hypot(dx, dy), y + (by * dy) / Math.hypot(dx, dy)];
  }

  /**
   * What a line between two nodes is bent towards.
   * @param {string} from
   * @param {string} to
   * @param {LineKind} kind
   * @returns {Point}
   */
  bent(from, to, kind) {
    const [[ax, ay], [bx, by]] = [this.place(from), this.place(to)];
    /** @type {Point} */
    const between = [(ax + bx) / 2, (ay + by) / 2];
    const steps = this.steps(from, to);
    const near = INSIDE[Math.abs(steps)];
    if (near) return this.inward(between, near[steps > 0 ? 0 : 1] + (kind === "jump" ? FURTHER : 0));
    return [between[0] - BEND[kind] * (by - ay), between[1] + BEND[kind] * (bx - ax)];
  }

  /**
   * The line from a node to a node: its path, where its number stands, and its head.
   * @param {string} from
   * @param {string} to
   * @param {LineKind} kind
   */
  line(from, to, kind = "arrow") {
    const [[ax, ay], [bx, by]] = [this.place(from), this.place(to)];
    const [cx, cy] = this.bent(from, to, kind);
    /** @type {(x: number, y: number) => Point} */
    const unit = (x, y) => [x / Math.hypot(x, y), y / Math.hypot(x, y)];
    const [[ux, uy], [vx, vy]] = [unit(cx - ax, cy - ay), unit(bx - cx, by - cy)];
    const [sx, sy] = [ax + NODE * ux, ay + NODE * uy];
    const [tx, ty] = [bx - (NODE + 2) * vx, by - (NODE + 2) * vy];
    const [hx, hy] = [tx - HEAD * vx, ty - HEAD * vy];
    const wing = 0.55 * HEAD;
    const head = `${tx},${ty} ${hx - wing * vy},${hy + wing * vx} ${hx + wing * vy},${hy - wing * vx}`;
    /** @type {Point} */
    const on = [(sx + 2 * cx + hx) / 4, (sy + 2 * cy + hy) / 4];
    const middle = Math.abs(this.steps(from, to)) === 1 ? this.inward(on, ASIDE) : on;
    return { path: `M${sx},${sy} Q${cx},${cy} ${hx},${hy}`, whole: `M${ax},${ay} Q${cx},${cy} ${bx},${by}`, middle, head };
  }

  /** The node at a place, if there is one. @param {Point} point */
  near([x, y]) {
    return this.names.find((node) => {
      const [nx, ny] = this.place(node);
      return Math.hypot(nx - x, ny - y) <= REACH;
    });
  }
}
