"""Every panel names the code that computes it; the server shows that code, and no other file."""

from __future__ import annotations

import re
import types
from pathlib import Path
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app.explore import served  # noqa: F401  (hands the server what it serves)
from loopviz.app.explore.config import page_config
from loopviz.app.server import assets, source_code
from loopviz.panels import PANELS

REFERENCES = sorted({(name, reference) for name, panel in PANELS.items() for reference in panel.CODE})


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=assets.routes()))


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_names_what_computes_it(name: str) -> None:
    assert PANELS[name].CODE
    own, *functions = source_code.of_panel(PANELS[name])
    assert own.path == f"loopviz/panels/loop/{name}.py"
    assert len(set(functions)) == len(functions) == len(PANELS[name].CODE)


@pytest.mark.parametrize(("panel", "reference"), REFERENCES)
def test_a_link_leads_to_the_definition(client: TestClient, panel: str, reference: str) -> None:
    place = source_code.locate(reference)
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
    answer = client.get(f"/{source_code.PREFIX}/loopviz/app/texts/zh.py")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == (source_code.PACKAGE / "app/texts/zh.py").read_text(encoding="utf-8")
    assert client.post(f"/{source_code.PREFIX}/loopviz/app/texts/zh.py").status_code == 405


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
        "tests/app/server/test_source_code.py",
    ],
)
def test_nothing_else_is_shown(client: TestClient, path: str) -> None:
    assert client.get(f"/{source_code.PREFIX}/{path}").status_code == 404


def test_every_file_served_is_python_inside_the_package() -> None:
    assert source_code.files()
    for shown, path in source_code.files().items():
        assert path.suffix == ".py"
        assert path.resolve().relative_to(source_code.PACKAGE) == Path(shown).relative_to("loopviz")


@pytest.mark.parametrize(
    "reference",
    ["loopviz.trace.metrics:sine", "loopviz.trace.nothing:x", "os:system", "loopviz.trace.recording.recorder:cosine"],
)
def test_what_does_not_exist_is_refused_by_name(reference: str) -> None:
    with pytest.raises(LookupError, match=re.escape(reference)):
        source_code.locate(reference)
    panel = types.ModuleType("loopviz.panels.loop.cost")
    panel.CODE = (reference,)
    with pytest.raises(LookupError, match=re.escape(reference)):
        source_code.of_panel(panel)
