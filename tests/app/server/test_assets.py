"""What the server serves beside Gradio, and what importing the page may not import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app.explore import served  # noqa: F401  (hands the server what it serves)
from loopviz.app.main import build, launch
from loopviz.app.server import assets
from loopviz.app.server import document as look
from loopviz.figures import plotlyjs
from loopviz.paths import WEB
from loopviz.trace.file import save
from tests.trace.synthetic import random_trace


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=assets.routes()))


@pytest.mark.parametrize(("name", "script"), [("plotly.js", plotlyjs.small), ("plotly-whole.js", plotlyjs.whole)])
def test_plotly_is_compressed_and_kept(client: TestClient, name: str, script: Callable[[], bytes]) -> None:
    response = client.get("/" + assets.asset_url(name), headers={"accept-encoding": "gzip"})
    assert response.status_code == 200
    assert response.headers["content-encoding"] == "gzip"
    assert "immutable" in response.headers["cache-control"]
    assert int(response.headers["content-length"]) < len(response.content) / 3
    assert response.content == script()
    plain = client.get("/" + assets.asset_url(name), headers={"accept-encoding": "identity"})
    assert plain.content == response.content


def test_scripts_find_each_other_at_an_address_that_is_kept(client: TestClient) -> None:
    script = "/" + assets.asset_url("explore/main.js")
    imported = re.findall(r'from "([\w./]+)"', client.get(script).text)
    assert imported
    for address in imported:
        assert "immutable" in client.get(urljoin(script, address)).headers["cache-control"]


def test_whatever_a_script_imports_is_there() -> None:
    for script in assets._SCRIPTS:
        assert set(assets._imported(script)) <= assets._SCRIPTS.keys(), script


@pytest.mark.parametrize("name", sorted(assets._SCRIPTS))
def test_a_script_is_sent_without_its_comments_and_every_line_of_code_where_it_stands(name: str) -> None:
    """Types for `tsc` stand in comments: they made the first paint 7 kB heavier."""
    written = assets._SCRIPTS[name].read_text(encoding="utf-8").split("\n")
    sent = (assets._raw(name) or b"").decode().split("\n")
    assert len(sent) == len(written)
    # a text over several lines might have one that looks like a comment
    assert not [line for line in written if line.count("`") % 2 and "/^return `" not in line]
    assert {line for line in sent if line} <= set(written)
    gone = [line.strip() for line, now in zip(written, sent, strict=True) if line and not now]
    assert all(line.startswith(("//", "/**", "*")) for line in gone), gone
    assert not any(line.lstrip().startswith(("//", "/** @param", "/**\n")) for line in sent)


def test_what_pages_share_knows_no_page_and_no_part_of_one() -> None:
    """core/page_head.js imported a widget."""
    for name in assets._SCRIPTS:
        folder = name.partition("/")[0]
        if folder in ("core", "widgets"):
            known = {other.partition("/")[0] for other in assets._imported(name)}
            assert known <= {"core": {"core"}, "widgets": {"core", "widgets"}}[folder], name


@pytest.mark.parametrize("page", ["learn", "explore", "anatomy", "ttt", "compare", "lab", "teach"])
def test_a_page_needs_no_script_of_another_page(page: str) -> None:
    folders = {script.partition("/")[0] for script in assets._imported(f"{page}/main.js")}
    assert folders == {page, "core", "widgets"}


def test_an_old_address_gets_the_new_file_but_does_not_keep_it(client: TestClient) -> None:
    response = client.get(f"/{assets.PREFIX}/0123456789abcdef/explore/main.js")
    assert response.status_code == 200
    assert "immutable" not in response.headers["cache-control"]


@pytest.mark.parametrize(
    "name",
    [
        "secrets.txt",
        "..%2f..%2fapp.py",
        "page.css%00",
        "core",
        "core/nothing.js",
        "core/..%2f..%2fmodels",
        "styles/page.css",
    ],
)
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/{assets.PREFIX}/x/{name}").status_code == 404


def test_a_name_that_a_visitor_made_up_is_not_remembered(client: TestClient) -> None:
    kept = (assets._raw, assets._packed, assets._mark)
    before = [known.cache_info().currsize for known in kept]
    for number in range(20):
        assert client.get(f"/{assets.PREFIX}/0/made-up-{number}.js").status_code == 404
    assert [known.cache_info().currsize for known in kept] == before


def test_before_the_first_answer_nothing_is_read_or_made_that_no_page_needs_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole Plotly was read and compressed, 4.8 MB of it, and every script read once for each script."""
    assets.offer({})  # nothing is remembered
    reads: list[Path] = []
    read = Path.read_bytes

    def noted(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    def refused(*_: object) -> bytes:
        raise AssertionError("read, or compressed, before anybody has asked for it")

    monkeypatch.setattr(Path, "read_bytes", noted)
    monkeypatch.setitem(assets._PLOTLY, "plotly-whole.js", refused)
    for name in assets._OPENINGS:
        monkeypatch.setitem(assets._MADE, name, refused)
    monkeypatch.setattr(assets.gzip, "compress", refused)
    assets._scripts_mark.cache_clear()
    build()
    assert "plotly-whole.js" in assets.early_tags()
    assert plotlyjs.WHOLE not in reads
    scripts = [path for path in reads if path.suffix == ".js" and path.is_relative_to(WEB)]
    assert len(scripts) == len(set(scripts)) == len(assets._SCRIPTS)


def test_the_first_paint_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    """Building the page, reading a stored run and serving it: all that is needed until somebody runs a prompt."""
    stored = tmp_path / "run.loopviz"
    save(random_trace(1, 12), stored)
    code = (
        "import functools, json, pathlib, sys\n"
        "from starlette.applications import Starlette\n"
        "from starlette.testclient import TestClient\n"
        "from loopviz.app.explore import first_run, served\n"
        "from loopviz.app.server import assets\n"
        "from loopviz.app.main import build\n"
        "first_run.stored = functools.partial(first_run.stored, pathlib.Path(sys.argv[1]))\n"
        "build()\n"
        "client = TestClient(Starlette(routes=assets.routes()))\n"
        "shown = client.get('/' + assets.opening_urls()['en']).json()['snapshot']\n"
        "assert shown['seq'] > 0 and shown['figures'], 'nothing to draw'\n"
        "sys.exit(', '.join({'torch', 'transformers', 'gguf', 'accelerate'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(stored)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def _paged(*types: str, document: str = "<html><head><title>x</title></head></html>") -> TestClient:
    """A server behind the middleware, whose `/`, `/0`, `/1` ... answer a document of each media type."""
    from starlette.responses import Response
    from starlette.routing import Route

    def route(path: str, media: str) -> Route:
        return Route(path, lambda _: Response(document, media_type=media))

    routes = [route("/", types[0]), *(route(f"/{i}", media) for i, media in enumerate(types))]
    return TestClient(assets.EarlyTags(Starlette(routes=routes)))


def test_the_document_brings_what_draws_the_recorded_run_before_gradio_s_own_tags() -> None:
    answer = _paged("text/html").get("/")
    tags = answer.text.partition("<title>")[0]
    assert answer.headers["content-length"] == str(len(answer.content))
    assert all(url in tags for url in (assets.asset_url("explore/main.js"), assets.asset_url("plotly.js")))
    assert all(url in tags for url in assets.opening_urls().values())
    assert "</title>" in answer.text
    # all of the scripts that the first one imports, and no others
    assert re.findall(r'modulepreload" href="[^"]*/(\w+/\w+\.js)"', tags)[:1] == ["explore/main.js"]
    assert {"explore/panel.js", "core/dom.js", "explore/replay.js"} < set(re.findall(r"(\w+/\w+\.js)", tags))
    assert "report.js" not in tags


def test_gradio_s_script_is_fetched_but_held_until_the_first_sight() -> None:
    import gradio

    document = (Path(gradio.__file__).parent / "templates" / "frontend" / "index.html").read_text(encoding="utf-8")
    (address,) = re.findall(r'<script type="module" crossorigin src="([^"]+)"', document)
    changed = assets.early(document)
    assert f'src="{address}"' not in changed
    assert f'<link rel="modulepreload" crossorigin href="{address}">' in changed
    assert f'data-held="{address}"' in changed
    assert "setTimeout(window.loopvizLater" in changed, "it is let go in any case"
    other = document.replace('type="module" crossorigin', 'type="module"')
    assert f'src="{address}"' in assets.early(other), "a document written otherwise keeps its script"


def test_only_the_page_s_own_document_is_changed() -> None:
    assert "loopviz" not in _paged("text/html").get("/0").text
    assert "loopviz" not in _paged("application/json").get("/").text


def test_every_page_s_look_is_settled_before_all_else() -> None:
    page = "<html><head><title>x</title></head><body><gradio-app></gradio-app></body></html>"
    client = _paged("text/html", "text/html", "application/json", document=page)
    for path, others in (("/", True), ("/1", False)):
        answer = client.get(path)
        tags = answer.text.partition("<title>")[0]
        before, _, _ = tags.partition(look.TAGS)
        assert re.fullmatch(r"<html><head>(<meta [^>]*>)+", before), "nothing but what a preview reads"
        assert ("modulepreload" in tags) == others
        assert answer.headers["content-length"] == str(len(answer.content))
    assert client.get("/2").text == page, "not a page"


def test_who_waits_for_a_page_to_be_sent_is_told() -> None:
    from starlette.responses import Response
    from starlette.routing import Route

    page, sent = "<html><head></head><body><gradio-app></gradio-app></body></html>", []
    found = {"/lab": (page, "text/html"), "/other": ("<html></html>", "text/html"), "/data": (page, "application/json")}
    routes = [Route(path, lambda _, it=it: Response(it[0], media_type=it[1])) for path, it in found.items()]
    client = TestClient(assets.EarlyTags(Starlette(routes=routes), sent=lambda: sent.append(1)))
    for path, times in (("/other", 0), ("/data", 0), ("/nothing", 0), ("/lab", 1)):
        client.get(path)
        client.head(path)
        assert len(sent) == times, path


def test_a_page_with_nothing_to_open_with_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "early_tags", lambda: "")
    assert "loopviz" not in _paged("text/html").get("/").text


# --- styles -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    """The pages' documents as they are served, by address."""
    page = build()
    launch(page, wait=False)
    try:
        return {name: httpx.get(page.demo.local_url + name, timeout=120).text for name in assets.STYLES}
    finally:
        page.demo.close()


@pytest.mark.parametrize("name", list(assets.STYLES))
def test_a_page_brings_its_own_styles_and_no_other_page_s(documents: dict[str, str], name: str) -> None:
    (config,) = re.findall(r"window\.gradio_config = (\{.*?\});</script>", documents[name], re.S)
    assert json.loads(config)["css"] == assets.css(name)
    own = {
        "": ".lv-player",
        "learn": ".lv-lesson-list",
        "anatomy": ".lv-stage-head",
        "ttt": ".lv-ttt-panels",
        "compare": ".lv-setups",
        "lab": ".lv-tasks",
        "teach": ".lv-teach-panels",
    }
    for page, rule in own.items():
        assert (rule in assets.css(name)) == (page == name), rule


def test_every_style_sheet_is_some_page_s() -> None:
    sheets = {path.stem for path in (WEB / "styles").glob("*.css")}
    assert sheets == {name for names in assets.STYLES.values() for name in names}


def test_what_is_unknown_has_the_styles_of_all_pages() -> None:
    document = assets._written_css()
    assert assets.styled(document, "elsewhere") == document
    assert assets.styled(document, "lab") != document


def test_what_is_offered_later_counts_whatever_was_asked_before() -> None:
    before = dict(assets._MADE)
    try:
        for name in assets._OPENINGS:
            del assets._MADE[name]
        assets.offer({})
        assert assets.early_tags() == ""
        assets.offer({name: before[name] for name in assets._OPENINGS})
        assert assets.opening_urls()
        assert assets.early_tags() != ""
    finally:
        assets.offer(before)
