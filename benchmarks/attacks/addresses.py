"""Every address of a server: our own routes, and all that the installed Gradio has, used by our pages or not."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from benchmarks.attacks.visiting import ELEMENTS, Visitor

# Ours, with what stands in a place of each.
OWN = (
    ("GET", "/loopviz-assets/{mark}/{name}"),
    ("GET", "/loopviz-source/{path}"),
    ("GET", "/loopviz-run/{run}"),
    ("POST", "/loopviz-run/{run}"),
    ("HEAD", "/loopviz-run/{run}"),
    ("GET", "/loopviz-share/link?s={word}"),
    ("POST", "/loopviz-share/open"),
    ("GET", "/loopviz-share/{run}/trace"),
    ("GET", "/loopviz-share/{run}/report"),
    ("GET", "/loopviz-share/{run}/panel/convergence/csv"),
    *(
        ("POST", f"/loopviz-store/{act}")
        for act in (
            "save",
            "open",
            "delete",
            "class",
            "class/new",
            "class/delete",
            "class/run/delete",
            "class/answer/delete",
            "learn/hand_in",
            "learn/withdraw",
            "learn/handed",
            "ttt/save",
            "ttt/open",
        )
    ),
    ("GET", "/loopviz-store/gallery"),
    ("GET", "/loopviz-api"),
    ("POST", "/loopviz-api/{name}"),
    ("POST", "/loopviz-mcp"),
    ("GET", "/loopviz-health"),
    ("GET", "/loopviz-metrics"),
    ("GET", "/compare"),
    ("GET", "/lab"),
)


@dataclass(frozen=True)
class Address:
    """A path with `{places}` in it, and a method it takes."""

    method: str
    path: str


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
