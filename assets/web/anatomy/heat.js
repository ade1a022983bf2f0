// A tensor as a picture: a cell a number, blue below 0 and orange above, on a canvas of one pixel a cell.

import { el } from "../core/dom.js";
import { written } from "./numbers.js";

const GAMMA = 0.7; // small numbers are seen beside large ones
const WIDE = 64; // cells in a row of a vector
const VERY_WIDE = 128;

/** @import { Tensor } from "./numbers.js" */
/**
 * How a tensor is drawn. `rows`: what a row is called; `columns`: what a column is, for who points at a cell.
 * @typedef {{ label: string, most?: number, each?: number, rows?: (row: number) => string, columns?: (column: number) => string, plain?: boolean }} Wish
 */

/** Rows and columns of a tensor's picture. @param {Tensor} tensor */
function laid({ shape, data }) {
  if (shape.length > 1) return [shape[0], data.length / Math.max(1, shape[0])];
  const columns = Math.min(data.length, data.length > 1536 ? VERY_WIDE : WIDE);
  return [Math.ceil(data.length / Math.max(1, columns)), columns];
}

/** @param {string} colour `#rrggbb` */
const channels = (colour) => [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));

export class Heats {
  /** @param {import("./main.js").Page} page */
  constructor(page) {
    this.page = page;
    const { below, above } = page.frame.config.colours;
    this.below = channels(below);
    this.above = channels(above);
  }

  /**
   * A figure of a tensor with its words.
   * @param {Tensor} tensor
   * @param {Wish} wish
   */
  draw(tensor, wish) {
    const [rows, columns] = laid(tensor);
    const most = wish.most ?? tensor.largest;
    const canvas = el("canvas", "lv-heat");
    [canvas.width, canvas.height] = [Math.max(1, columns), Math.max(1, rows)];
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    tensor.data.forEach((value, i) => {
      const share = most && Number.isFinite(value) ? Math.min(1, Math.abs(value) / most) ** GAMMA : 0;
      const colour = value < 0 ? this.below : this.above;
      image.data.set([colour[0], colour[1], colour[2], Math.round(255 * share)], 4 * i);
    });
    context.putImageData(image, 0, 0);
    const tall = tensor.shape.length > 1 ? Math.max(6, Math.min(18, 150 / rows)) : Math.max(5, Math.min(12, 120 / rows));
    canvas.style.height = `${Math.round(rows * tall)}px`;
    canvas.setAttribute("role", "img");
    const values = { name: wish.label, shape: tensor.shape.join(" × "), least: written(tensor.least), most: written(tensor.most) };
    canvas.setAttribute("aria-label", this.page.text("anatomy.picture", values));
    const cell = el("span", "lv-heat-cell");
    canvas.addEventListener("pointermove", (event) => (cell.textContent = this.pointed(event, tensor, rows, columns, wish)));
    canvas.addEventListener("pointerleave", () => (cell.textContent = ""));
    const said = [el("b", "", wish.label), el("span", "lv-heat-ends", `${values.least} … ${values.most}`)];
    if ((wish.each ?? 1) > 1) said.push(el("span", "", this.page.text("anatomy.each", { n: wish.each })));
    return el("figure", "lv-heat-figure", el("figcaption", "", ...said, cell), canvas);
  }

  /**
   * What the cell under the pointer says.
   * @param {PointerEvent} event
   * @param {Tensor} tensor
   * @param {number} rows
   * @param {number} columns
   * @param {Wish} wish
   */
  pointed({ offsetX, offsetY, currentTarget }, tensor, rows, columns, wish) {
    const { clientWidth, clientHeight } = /** @type {HTMLCanvasElement} */ (currentTarget);
    const row = Math.min(rows - 1, Math.max(0, Math.floor((offsetY / clientHeight) * rows)));
    const column = Math.min(columns - 1, Math.max(0, Math.floor((offsetX / clientWidth) * columns)));
    const place = row * columns + column;
    if (place >= tensor.data.length) return "";
    const one = tensor.shape.length < 2 ? `[${place * (wish.each ?? 1)}]` : `${wish.rows?.(row) ?? row}, ${wish.columns?.(column) ?? column}`;
    return this.page.text("anatomy.cell", { at: one, value: written(tensor.data[place], 4) });
  }

  /**
   * What colours mean.
   * @param {number | null} most of all pictures; null: each has a scale of its own
   * @param {boolean} pairs whether each shares it with the other loop step's
   */
  key(most, pairs = false) {
    const { page } = this;
    const own = () => page.text(pairs ? "anatomy.scale.pair" : "anatomy.scale.each");
    return el("p", "lv-heat-key", most === null ? own() : page.text("anatomy.scale", { most: written(most) }));
  }
}
