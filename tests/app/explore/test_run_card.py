"""A stored run's link, where it is posted: its title, sentence and picture, of the run alone, and only while it is kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from loopviz.app.explore import run_card
from loopviz.app.server import assets, link_preview
from loopviz.app.texts import LANGUAGES, text
from loopviz.trace import Trace
from tests.app.explore.test_stored import Server, save
from tests.app.server.test_link_preview import DOCUMENT, cards
from tests.trace.synthetic import random_trace

PROMPT = "Once there was a <b>robot</b>"


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@pytest.fixture
def trace() -> Trace:
    made = random_trace(21, 5)
    made.meta["prompt"] = PROMPT
    return made


@pytest.fixture
def posted(server: Server) -> TestClient:
    """The pages of that server, as who makes previews sees them."""
    pages = [Route(path, lambda _: Response(DOCUMENT, media_type="text/html")) for path in ("/", "/ttt", "/lab")]
    runs = server.stored.cards
    app = assets.EarlyTags(Starlette(routes=[*pages, *assets.routes(runs)]), runs=runs)
    return TestClient(app, base_url="http://loops.example", follow_redirects=False)


def tags(posted: TestClient, address: str) -> dict[str, str]:
    return dict(cards(posted.get(address).text))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_it_is_told_as_the_run_is_and_nobody_who_saved_it_is_named(
    server: Server, posted: TestClient, trace: Trace, lang: str
) -> None:
    made = server.done("class/new", name="Year 7")
    saved = save(server, trace, folder=made["folder"], student="Ada Lovelace")
    address = f"/?run={saved['id']}&lang={lang}"
    found = tags(posted, address)
    shown = PROMPT.replace("<", "&lt;").replace(">", "&gt;")
    assert found["og:title"] == text(lang, "preview.run.title", prompt=shown)
    assert text(lang, "preview.card.tokens", n=len(trace)) in found["og:description"]
    whole = posted.get(address).text
    for other in ("Ada", "Year 7", saved["secret"], made["folder"]):
        assert other not in whole
    picture = posted.get(found["og:image"].replace("&amp;", "&"))
    assert Image.open(io.BytesIO(picture.content)).size == link_preview.SIZE
    assert "max-age=600" in picture.headers["cache-control"], "one that is deleted is not shown for long elsewhere"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_picture_says_what_the_model_was_held_in_where_that_is_not_float32(
    server: Server, trace: Trace, lang: str
) -> None:
    found = []
    for dtype in ("float32", "float16"):
        trace.meta["provenance"] = {"device": "cpu", "dtype": dtype}
        card = server.stored.cards.card(save(server, trace)["id"], lang)
        assert card is not None
        found.append(card.facts)
    assert [len(facts) for facts in found] == [3, 3], "as many lines as have room"
    assert [text(lang, "about.held_in", dtype="float16") in " ".join(facts) for facts in found] == [False, True]


def test_what_is_not_kept_or_belongs_to_another_page_is_told_as_any_link(
    server: Server, posted: TestClient, trace: Trace
) -> None:
    saved = save(server, trace)
    image = tags(posted, f"/?run={saved['id']}")["og:image"].replace("&amp;", "&")
    assert posted.get(image).status_code == 200
    usual = tags(posted, "/")["og:title"]
    for query in ("x" * 22, "../../etc/passwd", "%00", "", "x" * 9_000):
        assert tags(posted, f"/?run={query}")["og:title"] == usual
        assert posted.get(f"/{link_preview.CARD}?run={query}").status_code == 302
    assert tags(posted, f"/ttt?run={saved['id']}")["og:title"] != text("en", "preview.run.title", prompt=PROMPT)
    assert "run=" not in tags(posted, f"/lab?run={saved['id']}")["og:image"]
    server.done("delete", id=saved["id"], secret=saved["secret"])
    assert tags(posted, f"/?run={saved['id']}")["og:title"] == usual
    assert posted.get(image).status_code == 302, "although it was drawn before"


def test_its_picture_is_drawn_once_and_of_a_large_run_by_the_index_alone(
    server: Server, posted: TestClient, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, drawn = save(server, trace), []
    monkeypatch.setattr(link_preview, "draw", lambda card: drawn.append(card) or b"png")
    for _ in range(3):
        assert posted.get(f"/{link_preview.CARD}?run={saved['id']}").content == b"png"
    [card] = drawn
    assert (card.prompt, card.loops) == (PROMPT, trace.meta["blocks"][0]["max_steps"])

    def unread(*_: Any) -> None:
        raise AssertionError("its file was read")

    monkeypatch.setattr(run_card, "MOST_BYTES", 10)
    monkeypatch.setattr(server.stored.store, "open", unread)
    assert posted.get(f"/{link_preview.CARD}?run={saved['id']}&lang=zh").content == b"png"
    assert (drawn[-1].prompt, drawn[-1].loops) == (PROMPT, 0)


def test_a_server_that_keeps_nothing_tells_of_nothing(tmp_path: Path) -> None:
    cards_ = Server(None).stored.cards
    assert cards_.mark("x" * 22) is cards_.told("x" * 22, "en", False) is cards_.card("x" * 22, "en") is None
