// Small things every part of the page uses. Text reaches the page through textContent only.

/**
 * A new element with a class and children; strings become text, nothing is left out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [cls]
 * @param {...(Node | string | null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, cls, ...children) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  node.append(...children.filter((child) => child != null));
  return node;
}

/**
 * What makes a part anew only where that of which it is made has changed: else whoever is in it would be put out, and told it again.
 * @returns {(part: string, of: unknown, make: () => void) => void}
 */
export function renewing() {
  /** @type {Map<string, string>} */
  const made = new Map();
  return (part, of, make) => {
    const now = JSON.stringify(of);
    if (made.get(part) === now) return;
    made.set(part, now);
    make();
  };
}

/**
 * A button; its label is put in place by whoever knows the language.
 * @param {string} cls
 * @param {(event: MouseEvent) => unknown} act
 * @param {...(Node | string)} children
 */
export function press(cls, act, ...children) {
  const node = el("button", cls, ...children);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
}

/**
 * What a button does, for the eye and for a screen reader.
 * @param {HTMLElement} node
 * @param {string} label
 */
export function name(node, label, hint = label) {
  node.title = hint;
  node.setAttribute("aria-label", label);
}

/** What is watched for being wider than its place. @type {WeakSet<HTMLElement>} */
const watched = new WeakSet();

/**
 * What may be wider than its place is scrolled by the keyboard too, while it is: also once other words are in it, or the font of
 * its formulas has come, when its own box stays as it was.
 * @param {HTMLElement} node
 * @param {string} label
 */
export function scrollable(node, label) {
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", label);
  if (watched.has(node)) return;
  watched.add(node);
  const look = () => (node.tabIndex = node.scrollWidth > node.clientWidth || node.scrollHeight > node.clientHeight ? 0 : -1);
  const changed = () => {
    look();
    document.fonts.ready.then(look); // what is shown for the first time has asked for its font by now
  };
  new ResizeObserver(changed).observe(node);
  new MutationObserver(changed).observe(node, { childList: true, subtree: true, characterData: true });
}

/** Fill `{name}` places of our own texts; of one thing in the singular, as loopviz.figures.labels.fill. */
const COUNTED = /\{(\w+)\}((?: generated)? )(token|loop step|loop|time|layer pass)e?s\b/g;
/** @type {(text: string, values: Record<string, any>) => string} */
const counted = (text, values) =>
  text.replace(COUNTED, (whole, key, between, thing) => (String(values[key]) === "1" ? `{${key}}${between}${thing}` : whole));
/** @type {(text: string, values: Record<string, any>) => string} */
export const fill = (text, values) => counted(text, values).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");

/**
 * A page's words. Where a visitor would read the key of one that is missing, or nothing, a test gets an error.
 * @param {Record<string, string>} texts
 */
export function worded(texts) {
  if (!window.loopvizStrict) return texts;
  return new Proxy(texts, {
    get(known, key) {
      if (typeof key === "string" && !(key in known)) throw new Error(`no text: ${key}`);
      return Reflect.get(known, key);
    },
  });
}

/**
 * A text that need not be one of ours, as of a criterion that somebody registered: then `otherwise`.
 * @param {Record<string, string>} texts
 * @param {string} key
 * @param {string} otherwise
 */
export const textOr = (texts, key, otherwise) => (key in texts ? texts[key] : otherwise);

/**
 * Copy a text; whether that was possible.
 * @param {string} text
 * @param {HTMLInputElement | HTMLTextAreaElement} [field] that shows it: where the browser will not copy it is left selected, to be copied by hand
 */
export async function copied(text, field) {
  try {
    await navigator.clipboard.writeText(text); // not there on an address without encryption
    return true;
  } catch {
    const held = field ?? Object.assign(el("textarea"), { value: text, readOnly: true });
    if (!field) document.body.append(held);
    held.focus({ preventScroll: true });
    held.select();
    const done = document.execCommand("copy"); // old, but works there too
    if (!field) held.remove();
    return done;
  }
}

/** A token as one line of text. @param {string} text */
export const shown = (text) => text.replace(/\n/g, "↵");

/** The beginning of a text, of so many characters at most, none of them halved. @param {string} text @param {number} most */
export const cut = (text, most) => [...text].slice(0, most).join("").replace(/\p{Surrogate}/gu, "");

/**
 * Shuffled in place.
 * @template T
 * @param {T[]} list
 * @param {() => number} random
 */
export function shuffled(list, random = Math.random) {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}

/** @param {number} ms @returns {Promise<void>} */
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What this browser remembers of the visitor's choices, by a key of `STORED`; a browser that may not remember forgets. */
export const kept = {
  /**
   * @param {string} key
   * @param {any} usual
   */
  get(key, usual) {
    try {
      return JSON.parse(localStorage.getItem(key)) ?? usual;
    } catch {
      return usual;
    }
  },
  /**
   * @param {string} key
   * @param {unknown} value
   */
  set(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      /* it will be asked again */
    }
  },
};

/**
 * Keep a file: the browser asks, or knows, where.
 * @param {Blob} blob
 * @param {string} file
 */
export function keep(blob, file) {
  const link = el("a");
  Object.assign(link, { href: URL.createObjectURL(blob), download: file });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
