// Gradio makes functions from text: an event's own script, what an element does once it is there, and an element's template.
// The page's Content-Security-Policy forbids that, so that no text of a stranger can ever become one. All these texts are
// known when the server starts: it writes their functions as a script (loopviz/app/server/security_headers.py, `written`), and here they are
// found by their text. What is not known is refused, as the policy would.
//
// A classic script: it must have run before Gradio's own.
(() => {
  const Native = Function;
  const Async = Object.getPrototypeOf(async function () {}).constructor;
  const expressions = new Map();
  const bodies = new Map();

  /** @type {(text: unknown) => never} */
  const refuse = (text) => {
    throw new EvalError(`This page makes no functions from text: ${String(text).slice(0, 120)}`);
  };

  /** Handlebars' function for a template without a single field: `return "the template";`. */
  const constant = (/** @type {string} */ body) => {
    const found = /^\s*(?:"use strict";\s*)?return ("(?:[^"\\]|\\.)*");\s*$/.exec(body);
    if (!found) return null;
    const value = JSON.parse(found[1].replace(/\\'/g, "'"));
    return () => value;
  };

  /** Gradio's function for a template: a template literal, of which names are filled in and nothing is computed. */
  const template = (/** @type {string[]} */ names, /** @type {string} */ body) => {
    const found = /^return `([^`\\]*)`;$/.exec(body);
    if (!found) return null;
    const parts = found[1].split(/\$\{(\w+)\}/);
    if (parts.some((part, i) => (i % 2 ? !names.includes(part) : part.includes("${")))) return null;
    return (/** @type {unknown[]} */ ...values) => parts.map((part, i) => (i % 2 ? String(values[names.indexOf(part)]) : part)).join("");
  };

  /** @param {...unknown} args */
  function made(...args) {
    const body = String(args.pop() ?? "");
    const names = args.map(String);
    return bodies.get(body) ?? constant(body) ?? template(names, body) ?? refuse(body);
  }
  made.prototype = Native.prototype; // what is a function stays one, for whoever asks
  Object.setPrototypeOf(made, Native);
  window.Function = /** @type {FunctionConstructor} */ (/** @type {unknown} */ (made));

  /** @param {unknown} body */
  function later(body) {
    const found = expressions.get(/^return \(\n([^]*)\n\);$/.exec(String(body))?.[1]);
    if (!found) return refuse(body);
    return async () => found();
  }
  later.prototype = Async.prototype;
  Object.defineProperty(Async.prototype, "constructor", { value: later, configurable: true });

  window.loopvizWritten = (written, loads) => {
    for (const [text, value] of written) expressions.set(text, value);
    for (const [text, value] of loads) bodies.set(text, value);
    delete window.loopvizWritten;
  };
})();
