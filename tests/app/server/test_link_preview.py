"""A link that is posted somewhere shows a card of ours, and only ours (A29)."""

from __future__ import annotations

import io
import re
from pathlib import Path

import gradio
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from loopviz.app.explore import served  # noqa: F401  (hands the server what it serves)
from loopviz.app.server import assets, link_preview
from loopviz.app.texts import text

DOCUMENT = (Path(gradio.__file__).parent / "templates" / "frontend" / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def client() -> TestClient:
    """Gradio's own document at the pages' addresses, behind our middleware, with our assets."""
    pages = [
        Route(path, lambda _: Response(DOCUMENT, media_type="text/html"))
        for path in ("/", "/learn", "/compare", "/lab")
    ]
    return TestClient(assets.EarlyTags(Starlette(routes=[*pages, *assets.routes()])), base_url="http://loops.example")


def cards(document: str) -> list[tuple[str, str]]:
    """Every Open Graph and Twitter tag, in the order in which they come."""
    return re.findall(r'<meta (?:property|name)="((?:og|twitter):[\w:]+)" content="([^"]*)">', document)


@pytest.mark.parametrize(
    "address",
    ["/", "/?s=abc", "/compare", "/compare?s=abc", "/lab", "/?lang=zh", "/?s=abc&lang=zh", "/learn?lesson=arrows"],
)
def test_a_link_s_preview_is_ours_and_nobody_else_s(client: TestClient, address: str) -> None:
    document = client.get(address).text
    found = cards(document)
    assert len(found) == len(dict(found)), "one block of tags"
    assert len(re.findall(r'"(?:og|twitter):', document)) == len(found), "and no other, however it is written"
    card = dict(found)
    assert {
        "og:title",
        "og:description",
        "og:image",
        "og:url",
        "twitter:card",
        "twitter:title",
        "twitter:image",
    } <= card.keys()
    assert not [value for value in card.values() if "gradio" in value.lower()]
    assert card["og:title"].startswith("LoopViz")
    assert card["og:url"] == f"http://loops.example{address}".replace("&", "&amp;")
    assert max(document.index(name) for name in card) < 4_000, "in the first bytes"
    assert document.index('<meta charset="utf-8">') < 1024


def test_the_preview_s_picture_is_served_by_us(client: TestClient) -> None:
    card = dict(cards(client.get("/").text))
    for name in ("og:image", "twitter:image"):
        answer = client.get(card[name])
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.content)).size == link_preview.SIZE


def test_a_preview_says_which_page_and_whether_something_is_set_up(client: TestClient) -> None:
    titles = {
        address: dict(cards(client.get(address).text))["og:title"]
        for address in ("/", "/?s=abc", "/compare", "/lab", "/learn?lesson=arrows&s=abc")
    }
    assert len(set(titles.values())) == 5
    assert titles["/learn?lesson=arrows&s=abc"] == text("en", "preview.learn.title")
    assert titles["/?s=abc"] == text("en", "preview.state.title")
    asked = dict(cards(client.get("/", headers={"accept-language": "zh-CN,zh"}).text))
    assert asked["og:title"] == text("zh", "preview.explore.title")


def test_a_preview_s_address_is_the_one_outside_a_proxy(client: TestClient) -> None:
    document = client.get("/", headers={"host": "a.example", "x-forwarded-proto": "https"}).text
    assert dict(cards(document))["og:image"].startswith("https://a.example/")


@pytest.mark.parametrize("query", ['"><script>alert(1)</script>', "%22%3E%3Cscript%3E", "lang=%00"])
def test_an_address_cannot_write_into_the_document(client: TestClient, query: str) -> None:
    hostile = client.get(f"/?s={query}", headers={"host": 'x"><script>'}).text
    assert "<script>alert" not in hostile
    assert 'x"><script>' not in hostile
