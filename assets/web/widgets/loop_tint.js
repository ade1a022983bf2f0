// A word's colour: the more loops it took, the stronger.

/**
 * The colour of so many loops, and how strong it is among those of the run: a second sign of it is the line under the word.
 * @param {HTMLElement} node
 * @param {(string | null)[]} colours
 * @param {number} loops
 */
export function tint(node, colours, loops) {
  const colour = colours[loops - 1] ?? null;
  const taken = colours.filter(Boolean);
  const place = colour === null ? 0 : colours.slice(0, loops).filter(Boolean).length - 1;
  node.style.setProperty("--tint", colour ?? "transparent");
  node.style.setProperty("--deep", taken.length > 1 ? (place / (taken.length - 1)).toFixed(2) : "0.5");
}
