// A link to copy, and the day until which what it opens is kept.

import { el } from "../core/dom.js";

/**
 * A field with a link, selected once the keyboard is in it.
 * @param {string} value
 * @param {string} label
 */
export function linkField(value, label) {
  const field = el("input", "lv-link");
  Object.assign(field, { readOnly: true, value });
  field.setAttribute("aria-label", label);
  field.addEventListener("focus", () => field.select());
  return field;
}

/**
 * A day in words.
 * @param {number} at
 * @param {string} lang
 */
export const dated = (at, lang) => new Date(at).toLocaleDateString(lang === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium" });
