// What stood in the form when its server became another version, and the page had to be loaded anew: this tab has it, once.

import { STORED } from "../core/contract.js";

/** @typedef {{ prompt: string, values: Record<string, unknown>, touched: string[] }} KeptForm */

const here = () => location.pathname + location.search; // what was typed on one address is not put over what a link on another sets

/** @param {KeptForm} form */
export function keepForm(form) {
  try {
    sessionStorage.setItem(STORED.form, JSON.stringify({ ...form, address: here() }));
  } catch {
    /* the address keeps its link */
  }
}

/** Whether something was kept for this address. */
export function keepsForm() {
  return read() !== null;
}

/** What was kept; it is not there a second time. @returns {KeptForm | null} */
export function keptForm() {
  const found = read();
  try {
    sessionStorage.removeItem(STORED.form);
  } catch {
    /* nor was it kept */
  }
  return found;
}

/** @returns {KeptForm | null} */
function read() {
  try {
    const found = JSON.parse(sessionStorage.getItem(STORED.form));
    return found?.address === here() && typeof found.prompt === "string" && found.values && Array.isArray(found.touched) ? found : null;
  } catch {
    return null;
  }
}
