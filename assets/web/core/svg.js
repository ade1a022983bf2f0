// Elements of drawings, apart from dom.js: a report carries that in it, and no address of another place, not even one of a namespace.

/**
 * An element of a drawing (SVG).
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 * @returns {SVGGElement}
 */
export function drawn(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return /** @type {any} */ (node); // whatever it is, it has what a group has
}
