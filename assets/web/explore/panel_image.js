// A panel as a picture of its own: what is drawn now, under its title, on the page's background instead of none.

import { MOST_SLUG } from "../core/contract.js";
import { drawn as element } from "../core/svg.js";

const LEAST = 640; // px; a phone's plot is drawn wider, so that the picture can be read elsewhere
const SIDE = 8;
const FONT = "system-ui, 'Noto Sans', 'Noto Sans CJK SC', 'PingFang SC', sans-serif";
const SHARP = 2; // pixels of a PNG a px

/** A name as part of a file's name (as loopviz.app.explore.files._slug). @param {string} name */
export const slug = (name) => name.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[-.]+/, "").slice(0, MOST_SLUG).replace(/[-.]+$/, "");

/**
 * A Blob of the panel's plot.
 * @param {import("./panel.js").Panel} panel
 * @param {string} kind "png" or "svg"
 * @param {[string, string]} lines its title, and what run it is of
 */
export async function picture(panel, kind, [title, about]) {
  const said = panel.said.innerText;
  if (panel.drawn < 0 || panel.dirtySince !== null) await panel.draw();
  const width = Math.max(LEAST, panel.plot.clientWidth);
  const height = panel.plot.clientHeight;
  const drawn = await panel.drawer.toImage(panel.plot, { format: "svg", width, height, imageDataOnly: true });
  const svg = compose(drawn, { width, height, title, about, said });
  const vector = new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" });
  return kind === "svg" ? vector : raster(vector, Number(svg.getAttribute("width")), Number(svg.getAttribute("height")));
}

/**
 * The plot's SVG under a heading, on an opaque background: it is read on white slides and on dark ones.
 * @param {string} drawn
 * @param {{ width: number, height: number, title: string, about: string, said: string }} of
 */
function compose(drawn, { width, height, title, about, said }) {
  const look = getComputedStyle(document.querySelector(".lv-panel"));
  const [card, ink, soft] = ["--lv-card", "--lv-ink", "--lv-soft"].map((part) => look.getPropertyValue(part).trim());
  const room = width - 2 * SIDE;
  const lines = [
    ...wrap(title, `600 15px ${FONT}`, room).map((text) => ({ text, size: 15, weight: 600, fill: ink, step: 21 })),
    ...wrap(about, `12px ${FONT}`, room).map((text) => ({ text, size: 12, weight: 400, fill: soft, step: 17 })),
    ...said.split("\n").flatMap((line) => wrap(line, `13px ${FONT}`, room)).map((text) => ({ text, size: 13, weight: 400, fill: ink, step: 18 })),
  ];
  const svg = element("svg", {});
  const ground = element("rect", { width, fill: card });
  svg.append(ground);
  let y = 10;
  for (const { text, size, weight, fill, step } of lines) {
    y += step;
    svg.append(element("text", { x: SIDE, y, fill, "font-size": size, "font-weight": weight, "font-family": FONT }, text));
  }
  y += 10;
  const inner = new DOMParser().parseFromString(drawn, "image/svg+xml").documentElement;
  if (inner.nodeName !== "svg") throw new Error("svg");
  inner.setAttribute("y", String(y));
  inner.style.removeProperty("background");
  svg.append(document.importNode(inner, true));
  const whole = y + height + 8;
  ground.setAttribute("height", String(whole));
  for (const [key, value] of Object.entries({ width, height: whole, viewBox: `0 0 ${width} ${whole}` })) svg.setAttribute(key, String(value));
  return svg;
}

/**
 * Text in lines no wider than `room`; a text without spaces (Chinese) may be broken anywhere.
 * @param {string} text
 * @param {string} font
 * @param {number} room
 */
function wrap(text, font, room) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = font;
  const lines = [""];
  for (const part of text.match(/[\u3000-\uffef]|[^\s\u3000-\uffef]+\s*|\s+/g) ?? []) {
    const longer = lines[lines.length - 1] + part;
    if (pen.measureText(longer.trimEnd()).width <= room || lines[lines.length - 1] === "") lines[lines.length - 1] = longer;
    else lines.push(part);
  }
  return lines.map((line) => line.trimEnd()).filter(Boolean);
}

/**
 * The SVG in pixels.
 * @param {Blob} vector
 * @param {number} width
 * @param {number} height
 * @returns {Promise<Blob>}
 */
async function raster(vector, width, height) {
  const url = URL.createObjectURL(vector);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: width * SHARP, height: height * SHARP });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) => {
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("canvas"))), "image/png");
    });
  } finally {
    URL.revokeObjectURL(url);
  }
}
