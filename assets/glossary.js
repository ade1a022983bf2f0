// Words explained: links to the code that computes what a panel shows.

import { el } from "./dom.js";

/** Where a panel is drawn and where its numbers come from, as links to the files this very installation runs. */
export function codeLinks(code, texts) {
  const row = el("p", "lv-code", el("b", "", texts["live.code"]));
  for (const { name, at, url } of code) {
    const link = el("a", "", name || at);
    Object.assign(link, { href: url, target: "_blank", rel: "noopener", title: `${texts["live.code.hint"]}: ${at}` });
    row.append(" ", link);
  }
  return row;
}
