// The foot of every page is in its document (loopviz/app/server/footer.py): here it is shown once the page stands above it, its BibTeX
// is copied, and its badge runs the check of the instrument, in place where the page can.

import { FOOTER } from "../core/contract.js";
import { copied } from "../core/dom.js";

const LOOK_MS = 300; // between two looks whether the page is there
const SAID_MS = 4000; // that "copied" stands

/** @type {HTMLElement | null} */
const foot = document.querySelector(`.${FOOTER}`);
if (foot) {
  const waiting = setInterval(() => {
    if (!document.querySelector('.lv[data-ready="1"]') || document.querySelector(".lv-early")) return;
    clearInterval(waiting);
    foot.hidden = false;
  }, LOOK_MS);
  foot.addEventListener("click", async (event) => {
    const { target } = event;
    if (!(target instanceof HTMLElement)) return;
    if (target.matches(".lv-cite")) {
      const words = target.textContent;
      const { bibtex } = foot.dataset;
      if (await copied(bibtex)) target.textContent = target.dataset.done;
      else window.prompt("BibTeX", bibtex); // to be copied by hand
      setTimeout(() => (target.textContent = words), SAID_MS);
    } else if (target.matches(".lv-verified")) {
      const { page } = /** @type {{ page?: import("../explore/page.js").Page | null }} */ (window.loopvizForm ?? {});
      if (!page?.tell) return; // of another page the link leads there
      event.preventDefault();
      page.check(target.dataset);
    }
  });
}
