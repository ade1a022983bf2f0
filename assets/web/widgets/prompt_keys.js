// The keys of a box that a prompt is typed into, the same on every page: Shift+Enter runs (Ctrl and ⌘ too), Enter makes
// a line. A key that an input method takes to choose a word is none of these.

/**
 * Follow the keys of the boxes inside what `selector` finds, whenever it is built; `run` is told when one runs.
 * @param {string} selector
 * @param {() => void} run
 */
export function followPrompt(selector, run) {
  /** @param {KeyboardEvent} event */
  const pressed = (event) => {
    const box = event.key === "Enter" && event.target instanceof Element && event.target.matches("textarea");
    if (!box || !event.target.closest(selector)) return;
    event.stopPropagation(); // Gradio has ideas of its own about Enter
    if (event.isComposing || event.keyCode === 229 || event.type !== "keydown") return;
    if (!event.shiftKey && !event.ctrlKey && !event.metaKey) return; // a line
    event.preventDefault();
    if (!event.repeat) run();
  };
  for (const kind of /** @type {const} */ (["keydown", "keypress", "keyup"])) document.addEventListener(kind, pressed, true);
}
