// Tensors as the server packs them (loopviz/app/anatomy/packing.py), and numbers as people read them.

/** @import { PackedNumbers } from "../core/contract.js" */

/** @type {Float32Array | null} the value of every float16 */
let halves = null;

/** All of them once: a look in a table is quicker than taking each apart. */
function halfValues() {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const [exponent, share] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent === 31 ? (share ? NaN : Infinity) : exponent ? 2 ** (exponent - 15) * (1 + share / 1024) : 2 ** -14 * (share / 1024);
    halves[bits] = bits & 32768 ? -size : size;
  }
  return halves;
}

/** A tensor of one or two or three axes. */
export class Tensor {
  /**
   * @param {number[]} shape
   * @param {Float32Array} data
   */
  constructor(shape, data) {
    this.shape = shape;
    this.data = data;
    let [least, most] = [Infinity, -Infinity];
    for (const value of data) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
    this.least = data.length ? least : 0;
    this.most = data.length ? most : 0;
  }

  /** The largest number by size. */
  get largest() {
    return Math.max(Math.abs(this.least), Math.abs(this.most)) || 0;
  }

  /** One of the first axis. @param {number} place */
  at(place) {
    const rest = this.shape.slice(1);
    const size = rest.reduce((a, b) => a * b, 1);
    return new Tensor(rest, this.data.subarray(place * size, (place + 1) * size));
  }
}

/** @param {PackedNumbers} packed */
export function unpack({ shape, dtype, scale, data }) {
  const view = new DataView(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).buffer);
  const [values, wide] = [halfValues(), dtype === "float32"];
  const found = new Float32Array(view.byteLength / (wide ? 4 : 2));
  for (let i = 0; i < found.length; i++) found[i] = (wide ? view.getFloat32(4 * i, true) : values[view.getUint16(2 * i, true)]) * scale;
  return new Tensor(shape, found);
}

/** A number in a few digits; "–" of one that is not known. @param {number | null | undefined} value */
export function written(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value).replace("-", "−");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(digits - 1).replace("-", "−").replace("e+", "e").replace("e-", "e−");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

/** A share as percent: 100 % is said of nothing but the whole. @param {number | null | undefined} value */
export function percent(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const off = value - 1;
  if (Math.abs(off) < 5e-7) return "100 %"; // a sum of shares that is 1 but for rounding
  const said = written(100 * value);
  if (said !== "100") return `${said} %`;
  if (Math.abs(off) < 1e-4) return off < 0 ? "> 99.99 %" : "< 100.01 %";
  return `${((off < 0 ? Math.floor(1e4 * value) : Math.ceil(1e4 * value)) / 100).toFixed(2)} %`;
}
