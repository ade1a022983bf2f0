"""Every address of a server: our own routes, and all that the installed Gradio has, used by our pages or not."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.attacks.visiting import ELEMENTS, Visitor
from loopviz.app.contract import EVENTS, FILES, PAGES, QUERIES, QUESTIONS, STORE, STORE_CALLS

# What a page's address and its picture's may ask for.
_QUERY = "&".join(f"{name}={{word}}" for name in QUERIES.values())
# Ours, with what stands in a place of each.
OWN = (
    *(("GET", beside[1:]) for beside in PAGES.values()),
    *(("GET", f"{beside[1:]}?{_QUERY}") for beside in PAGES.values()),
    ("GET", "/loopviz-assets/{mark}/{name}"),
    ("GET", "/loopviz-source/{path}"),
    ("GET", f"/loopviz-card?{_QUERY}"),
    ("GET", "/loopviz-card?s={word}"),
    ("GET", "/loopviz-card?run={run}"),
    ("GET", "/loopviz-run/{run}"),
    ("POST", "/loopviz-run/{run}"),
    ("HEAD", "/loopviz-run/{run}"),
    ("GET", f"/{FILES}/link?s={{word}}"),
    ("POST", f"/{FILES}/open"),
    ("POST", f"/{FILES}/ttt/open"),
    *(("GET", f"/{FILES}/{{run}}/{kind}") for kind in ("{kind}", "trace", "report", "python", "notebook")),
    ("GET", f"/{FILES}/ttt/{{run}}/trace"),
    ("GET", f"/{FILES}/teach/{{run}}/adapter"),
    ("GET", f"/{FILES}/{{run}}/panel/{{panel}}/{{table}}"),
    *(("GET" if body is None else "POST", f"/{STORE}/{act}") for act, (body, _) in STORE_CALLS.items()),
    ("GET", "/loopviz-api"),
    ("POST", "/loopviz-api/{tool}"),
    ("POST", "/loopviz-mcp"),
    ("GET", "/loopviz-health"),
    ("GET", "/loopviz-metrics"),
)
# A place's name -> what a page or a program would put there.
PLACES: Mapping[str, str] = {
    "mark": "0a1b",
    "name": "main.js",
    "path": "loopviz/app/main.py",
    "run": "recorded",
    "kind": "trace",
    "panel": "convergence",
    "table": "csv",
    "tool": "run",
    "word": "abc",
    "size": "192",
    "session_hash": "abc",
    "api_name": "predict",
}


@dataclass(frozen=True)
class Address:
    """A path with `{places}` in it, and a method it takes."""

    method: str
    path: str

    @property
    def usual(self) -> str:
        """The path as a page or a program asks for it."""
        return re.sub(r"\{(\w+)\}", lambda place: PLACES.get(place[1], "x"), self.path)


@functools.cache
def addresses() -> tuple[Address, ...]:
    """All of them."""
    import gradio as gr
    from gradio.routes import App

    with gr.Blocks() as demo:
        gr.Button().click(lambda: None)
    found = {Address(method, path) for method, path in OWN}
    routes: list[Any] = list(App.create_app(demo).routes)
    for route in routes:  # grows: routers have routes of their own
        routes += getattr(getattr(route, "original_router", route), "routes", None) or []
        for method in getattr(route, "methods", None) or ():
            found.add(Address(method, route.path.replace(":path}", "}")))
    return tuple(sorted(found, key=lambda address: (address.path, address.method)))


def functions(visitor: Visitor) -> list[tuple[int, str]]:
    """Every server function, with the number of its element."""
    found = []
    for component in visitor.server.config["components"]:
        if component["props"].get("elem_id") in ELEMENTS.values():
            found += [(component["id"], name) for name in component["props"]["server_fns"]]
    return found


def events(visitor: Visitor) -> list[dict[str, Any]]:
    """Every event that the server answers."""
    return [event for event in visitor.server.config["dependencies"] if event["backend_fn"]]


def page_of(visitor: Visitor, element: int) -> str:
    """The page whose live element has this number; "" for another element."""
    own = (c["props"].get("elem_id") for c in visitor.server.config["components"] if c["id"] == element)
    named = next(own, None)
    return next((page for page, elem_id in ELEMENTS.items() if elem_id == named), "")


def asked_with(visitor: Visitor, event: Mapping[str, Any]) -> type | None:
    """What a page's script says with an event, as the contract has it; None: nothing, or no script says it."""
    for element, name in event["targets"]:
        if kind := EVENTS.get(page_of(visitor, element), {}).get(name):
            return kind
    return None


def asked_of(visitor: Visitor, element: int, name: str) -> type | None:
    """What a page's script asks a server function, as the contract has it."""
    found = QUESTIONS.get(page_of(visitor, element), {}).get(name)
    return None if found is None else found[0]
