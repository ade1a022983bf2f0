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

from loopviz.app.controls import defaults
from loopviz.app.controls.link_word import PageState, encode
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


# --- a link's own card -----------------------------------------------------------------------------------------------------

PROMPT = (
    "Once there was a robot who looked for the end of the forest and could not find it anywhere, however far it went"
)


def word(prompt: str | None = PROMPT, **values: object) -> str:
    made, _ = encode(
        PageState({**defaults(), "model": "stories-loop", "block_start": 0, "block_end": 1, **values}, prompt)
    )
    assert made is not None
    return made


def link(client: TestClient, made: str, lang: str = "en") -> dict[str, str]:
    return dict(cards(client.get(f"/?s={made}&lang={lang}").text))


def test_a_link_s_preview_says_what_it_holds(client: TestClient) -> None:
    found = link(client, word(loop_count=8))
    assert found["og:title"].startswith("LoopViz: layers 0–1 run 8 times, “Once there was a robot")
    assert found["og:title"].endswith("...”")
    assert "model: stories-loop" in found["og:description"]
    assert found["twitter:title"] == found["og:title"] == found["og:image:alt"]
    assert "第 0–1 层运行 8 次" in link(client, word(loop_count=8), "zh")["og:title"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_link_s_picture_is_its_own(client: TestClient, lang: str) -> None:
    seen = set()
    for made in (word("从前有一个机器人"), word("Once"), word("Once", loop_count=9)):
        address = link(client, made, lang)["og:image"].replace("&amp;", "&")
        answer = client.get(address)
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.content)).size == link_preview.SIZE
        seen.add(answer.content)
    assert len(seen) == 3


@pytest.mark.parametrize("made", ["", "abc", "1damaged", "9newer", "1" + "A" * 6_000, "%00"])
def test_what_is_no_link_has_the_picture_of_all_pages(client: TestClient, made: str) -> None:
    answer = client.get(f"/{link_preview.CARD}?s={made}", follow_redirects=False)
    assert answer.status_code == 302
    assert (
        client.get(answer.headers["location"]).content
        == client.get(dict(cards(client.get("/").text))["og:image"]).content
    )


def test_a_link_s_picture_names_no_place_of_this_machine(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(link_preview, "draw", lambda card: said.append(card) or b"")
    link_preview._picture.cache_clear()
    made = word(model="/home/somebody/secret-model")
    assert "secret" not in client.get(f"/?s={made}").text.replace(made, "")
    client.get(f"/{link_preview.CARD}?s={made}")
    link_preview._picture.cache_clear()
    assert "secret" not in repr(said)
    assert said[0].loops == 0, "settings of a model that cannot be named are not those that will run"


def test_pictures_are_drawn_once_and_few_are_kept(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(link_preview, "draw", lambda card: drawn.append(card) or b"png")
    link_preview._picture.cache_clear()
    for _ in range(3):
        assert client.get(f"/{link_preview.CARD}?s={word('Once')}").content == b"png"
    assert len(drawn) == 1
    for n in range(link_preview.KEPT_CARDS + 5):
        client.get(f"/{link_preview.CARD}?s={word(f'prompt {n}')}")
    assert link_preview._picture.cache_info().currsize == link_preview.KEPT_CARDS
    link_preview._picture.cache_clear()


def test_who_finds_many_waiting_gets_the_picture_of_all_pages(client: TestClient) -> None:
    class Crowd:
        def statistics(self) -> Crowd:
            self.tasks_waiting = link_preview.WAITING_CARDS
            return self

    here = link_preview.Cards(lambda: "other.png")
    here._drawing = Crowd()  # type: ignore[assignment]
    busy = TestClient(Starlette(routes=[here.route()]))
    answer = busy.get(f"/{link_preview.CARD}?s={word()}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, "/other.png")
