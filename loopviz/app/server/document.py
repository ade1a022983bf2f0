"""Light or dark, settled in the head of every page before anything is painted.

The address says (`?__theme=dark`, Gradio's own word), else what the visitor chose last time, else the system. Gradio knows
the first and the last, and only seconds later: it is told through the attribute its element has for that.
"""

from __future__ import annotations

from loopviz.app.contract import QUERIES, STORED
from loopviz.app.server.theme import PAGE

# Documents of other things have no such element and are left alone.
ELEMENT = "<gradio-app"
# Watching the document grow is the one way to reach its body before it is painted, and Gradio's element before Gradio.
TAGS = f"""<style>html body {{ background: {PAGE["light"]}; }} html body.dark {{ background: {PAGE["dark"]}; }}</style>
<script>(() => {{
  let look = new URLSearchParams(location.search).get("{QUERIES["look"]}");
  if (look !== "dark" && look !== "light") {{
    look = null;
    try {{ look = {{ 0: "light", 1: "dark" }}[localStorage.getItem("{STORED["dark"]}")]; }} catch {{}}
  }}
  const dark = look ? look === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  let body = null;
  const growing = new MutationObserver(() => {{
    if (document.body && !body) (body = document.body).classList.toggle("dark", dark);
    const app = document.querySelector("gradio-app");
    if (!app) return;
    growing.disconnect();
    if (look) app.setAttribute("theme_mode", look);
  }});
  growing.observe(document, {{ childList: true, subtree: true }});
}})();</script>"""


def settled(document: str) -> str:
    """The document with :data:`TAGS` first in its head; another document than Gradio's as it is."""
    return document.replace("<head>", "<head>" + TAGS, 1) if ELEMENT in document else document
