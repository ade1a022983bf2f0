// The class whose folder this tab is in: named by the pupils' link, and known on every page that is gone to from there.

import { QUERIES, STORED, TEACHER } from "../core/contract.js";
import { el, kept, press } from "../core/dom.js";

export const GONE = 404; // what the server answers of a folder whose time is over; anything else may pass

/** The id of the folder, of the address or of a page before; null: none. @returns {string | null} */
export function classFolder() {
  const named = new URLSearchParams(location.search).get(QUERIES.class);
  if (named !== null) return named;
  try {
    return sessionStorage.getItem(STORED.class);
  } catch {
    return null;
  }
}

/** Whether the address itself names it: then what is wrong with it is told. */
export const namesClass = () => new URLSearchParams(location.search).has(QUERIES.class);

/** The secret behind the # of the teacher's link; null: a pupil's. */
export const teacherSecret = () => (namesClass() ? new URLSearchParams(location.hash.slice(1)).get(TEACHER) : null);

/** This tab is in a class from now on, or in none. @param {string | null} folder */
export function enterClass(folder) {
  try {
    if (folder === null) sessionStorage.removeItem(STORED.class);
    else sessionStorage.setItem(STORED.class, folder);
  } catch {
    /* the address names it */
  }
}

/**
 * How a pupil is called, asked before something is saved into the folder.
 * @param {string} label
 * @param {string} go
 * @param {(student: string) => void} act
 * @returns {[string, HTMLInputElement, HTMLButtonElement]}
 */
export function askStudent(label, go, act) {
  const name = /** @type {HTMLInputElement} */ (el("input", "lv-link"));
  Object.assign(name, { value: kept.get(STORED.student, ""), maxLength: 80 });
  name.setAttribute("aria-label", label);
  const into = press("lv-go", () => {
    kept.set(STORED.student, name.value);
    act(name.value);
  });
  into.textContent = go;
  return [label, name, into];
}
