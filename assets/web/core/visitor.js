// What this browser is called in the server's waiting line, so that all its tabs are one visitor there. Made up here, at random, kept
// here, and of no other use: who forgets it is somebody new.

import { STORED } from "./contract.js";
import { kept } from "./dom.js";

/** A name nobody can guess. */
export function ticket() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** This browser's name. */
export function visitor() {
  const known = kept.get(STORED.visitor, null);
  if (typeof known === "string") return known;
  const made = ticket();
  kept.set(STORED.visitor, made);
  return String(kept.get(STORED.visitor, "")); // a browser that may not remember has none: its address stands for it
}
