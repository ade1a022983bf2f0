"""Every panel names the code that computes it; the server shows that code, and no other file."""

from __future__ import annotations

import re
import types
from pathlib import Path
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app import server, sources
from loopviz.app.page_config import page_config
from loopviz.panels import PANELS

REFERENCES = sorted({(name, reference) for name, panel in PANELS.items() for reference in panel.CODE})


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=server.routes()))


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_names_what_computes_it(name: str) -> None:
    assert PANELS[name].CODE
    own, *functions = sources.of_panel(PANELS[name])
    assert own.path == f"loopviz/panels/loop/{name}.py"
    assert len(set(functions)) == len(functions) == len(PANELS[name].CODE)


@pytest.mark.parametrize(("panel", "reference"), REFERENCES)
def test_a_link_leads_to_the_definition(client: TestClient, panel: str, reference: str) -> None:
    place = sources.locate(reference)
    address, _, fragment = place.url.partition("#:~:text=")
    shown = client.get("/" + address).text.splitlines()
    last = place.name.rsplit(".", 1)[-1]
    assert re.search(rf"\b(def|class) {last}\b", shown[place.line - 1])
    # a browser marks the first place that matches: it must be this one
    marked = unquote(fragment)
    assert "-" not in fragment
    assert next(i for i, line in enumerate(shown, 1) if marked in line) == place.line


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_is_told(lang: str) -> None:
    for entry in page_config(lang)["panels"]:
        assert [link["name"] for link in entry["code"]][1:] == [
            reference.split(":")[1] for reference in PANELS[entry["name"]].CODE
        ]


def test_a_file_is_shown_as_it_is_and_only_shown(client: TestClient) -> None:
    answer = client.get(f"/{sources.PREFIX}/loopviz/app/texts/zh.py")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == (sources.PACKAGE / "app/texts/zh.py").read_text(encoding="utf-8")
    assert client.post(f"/{sources.PREFIX}/loopviz/app/texts/zh.py").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "app.py",
        "loopviz",
        "loopviz/",
        "loopviz/../app.py",
        "loopviz/%2e%2e/app.py",
        "loopviz/..%2f..%2fapp.py",
        "/etc/passwd",
        "loopviz/trace/metrics.pyc",
        "loopviz/trace/metrics.py%00",
        "tests/app/test_sources.py",
    ],
)
def test_nothing_else_is_shown(client: TestClient, path: str) -> None:
    assert client.get(f"/{sources.PREFIX}/{path}").status_code == 404


def test_every_file_served_is_python_inside_the_package() -> None:
    assert sources.files()
    for shown, path in sources.files().items():
        assert path.suffix == ".py"
        assert path.resolve().relative_to(sources.PACKAGE) == Path(shown).relative_to("loopviz")


@pytest.mark.parametrize(
    "reference",
    ["loopviz.trace.metrics:sine", "loopviz.trace.nothing:x", "os:system", "loopviz.trace.recording.recorder:cosine"],
)
def test_what_does_not_exist_is_refused_by_name(reference: str) -> None:
    with pytest.raises(LookupError, match=re.escape(reference)):
        sources.locate(reference)
    panel = types.ModuleType("loopviz.panels.loop.cost")
    panel.CODE = (reference,)
    with pytest.raises(LookupError, match=re.escape(reference)):
        sources.of_panel(panel)
