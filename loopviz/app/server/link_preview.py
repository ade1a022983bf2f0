"""What a link to a page looks like where it is posted: a title, a sentence and a picture of ours (Open Graph, Twitter).

Gradio's document has two blocks of such tags, both Gradio's own. They go; ours come first in the head, for the programs that
make such previews read only the beginning of a document, and run none of its scripts.

A link to a run that the server keeps is told as that run is, by :class:`StoredRuns`, as long as it is kept.

A link to a set-up is told in its own words (:func:`describes`), and its picture is drawn of them (`link_card`) when it is first asked
for: one at a time, the latest kept. Only what the link's word holds comes into it, cut to a length. Where there is no room to
wait, or no word that can be read, the picture is the one of all pages.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from html import escape
from typing import Protocol
from urllib.parse import parse_qs, quote

import anyio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from loopviz.app.contract import PAGES, QUERIES
from loopviz.app.server.link_card import SIZE as SIZE
from loopviz.app.server.link_card import Card, draw, settled
from loopviz.app.texts import LANGUAGES, pick_language, text

IMAGE = "preview.png"  # the asset; its size is told, so that the first who post a link see it at once
CARD = "loopviz-card"  # where the pictures of links are
MOST_WORD = 1_500  # characters of a link's word that has a picture of its own: programs cut longer addresses
KEPT_CARDS = 64  # some 40 kB each
WAITING_CARDS = 8  # that may wait to be drawn; who comes then gets the picture of all pages
TITLE_PROMPT = 70  # characters of the prompt in a title
_LINK_SECONDS, _RUN_SECONDS = 86_400, 600  # for which others may keep a picture: a run may be deleted
_LONGEST = 4_000  # characters of an address that is repeated
# Gradio's tags may be broken over several lines.
_FOREIGN = re.compile(r"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*")


# What reads a link's word: given by the page that links open. This package knows none.
_describe: Callable[[str, str], Card | None] | None = None


def describes(reader: Callable[[str, str], Card | None]) -> None:
    """Have links told in their own words.

    Args:
        reader: what a link's word holds, in a language; None for a word that cannot be read. Never raises.
    """
    global _describe
    _describe = reader
    _picture.cache_clear()


def _card(word: str, lang: str) -> Card | None:
    """What a link says; None where it says nothing that can be read, or more than an address carries."""
    return _describe(word, lang) if _describe is not None and 0 < len(word) <= MOST_WORD else None


@functools.lru_cache(maxsize=KEPT_CARDS)
def _picture(word: str, lang: str) -> bytes | None:
    card = _card(word, lang)
    return None if card is None else draw(card)


class StoredRuns(Protocol):
    """Runs that the server keeps, as far as previews tell of them. Asked from any thread; nothing here raises."""

    def mark(self, run: str) -> str | None:
        """What a run's file is known by, as long as it is kept."""

    def told(self, run: str, lang: str, of_ttt: bool) -> Card | None:
        """What is said of a run of a page's kind, at once; None where there is none."""

    def card(self, run: str, lang: str) -> Card | None:
        """All that its picture says; this may read its file."""


class Cards:
    """The route of links' pictures.

    Args:
        other: address of the picture of all pages, below the app's root.
        runs: that the server keeps.
    """

    def __init__(self, other: Callable[[], str], runs: StoredRuns | None = None) -> None:
        self._other, self._runs = other, runs
        self._drawn: OrderedDict[tuple[str, str, str], bytes | None] = (
            OrderedDict()
        )  # of runs; one at a time looks here
        self._drawing: anyio.CapacityLimiter | None = None

    def route(self) -> Route:
        """To add to Gradio's application."""
        return Route(f"/{CARD}", self._answer, methods=["GET", "HEAD"])

    async def _answer(self, request: Request) -> Response:
        word, lang = request.query_params.get(QUERIES["link"], ""), request.query_params.get(QUERIES["lang"])
        lang = lang if lang in LANGUAGES else next(iter(LANGUAGES))
        made: bytes | None = None
        self._drawing = self._drawing or anyio.CapacityLimiter(1)
        run, seconds = request.query_params.get(QUERIES["run"], ""), _RUN_SECONDS if not word else _LINK_SECONDS
        if 0 < len(word or run) <= MOST_WORD and self._drawing.statistics().tasks_waiting < WAITING_CARDS:
            asked = partial(_picture, word, lang) if word else partial(self._of_run, run, lang)
            made = await anyio.to_thread.run_sync(asked, limiter=self._drawing)
        if made is None:
            return RedirectResponse(f"{request.scope.get('root_path', '')}/{self._other()}", 302)
        headers = {"Cache-Control": f"public, max-age={seconds}", "X-Content-Type-Options": "nosniff"}
        return Response(made, media_type="image/png", headers=headers)

    def _of_run(self, run: str, lang: str) -> bytes | None:
        """The picture of a run that is kept; of one that is not any more there is none, whatever was drawn before."""
        mark = None if self._runs is None else self._runs.mark(run)
        if self._runs is None or mark is None:
            return None
        key = (run, mark, lang)
        if key not in self._drawn:
            card = self._runs.card(run, lang)
            if card is None:  # not to be read now: it may be in a while
                return None
            self._drawn[key] = draw(card)
            while len(self._drawn) > KEPT_CARDS:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(key)
        return self._drawn[key]


async def told_run(scope: Scope, runs: StoredRuns | None) -> Card | None:
    """What is told of the stored run that a page's address names; None where it names none that is kept."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    run = query.get(QUERIES["run"], [""])[0]
    page = _page(scope)
    if runs is None or not run or page not in ("explore", "ttt"):
        return None
    return await anyio.to_thread.run_sync(runs.told, run, _language(scope, query), page == "ttt")


def _told(card: Card, lang: str) -> tuple[str, str]:
    """Title and sentence of a link, in its own words."""
    prompt = settled(card.prompt or "", TITLE_PROMPT)
    loops = card.facts[0] if card.facts else ""
    title = text(lang, "preview.link.title", loop=loops, prompt=prompt) if prompt else text(lang, "preview.state.title")
    return title, text(lang, "preview.link", facts=" · ".join(card.facts))


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope.get("headers", ()) if key == name), "")


def _origin(scope: Scope) -> str:
    """Scheme and host by which the visitor reached us, also behind a proxy that ends TLS; "" when no host was named."""
    host = _header(scope, b"host")
    if not re.fullmatch(r"[\w.:\[\]-]+", host):
        return ""
    scheme = _header(scope, b"x-forwarded-proto").split(",")[0].strip() or scope.get("scheme", "http")
    return f"{scheme if scheme in ('http', 'https') else 'http'}://{host}"


def _page(scope: Scope) -> str:
    """Which page's address it is."""
    path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
    return next((name for name, beside in PAGES.items() if path.rstrip("/") == beside[1:].rstrip("/")), "explore")


def _language(scope: Scope, query: Mapping[str, list[str]]) -> str:
    return pick_language(query.get(QUERIES["lang"], [None])[0], _header(scope, b"accept-language"))


def tags(scope: Scope, image: str, run: Card | None = None) -> str:
    """The tags for the document at the address that `scope` (an ASGI request) asks for.

    Args:
        image: address of the picture below the app's root.
        run: what is told of the stored run that it names (:func:`told_run`).
    """
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root) or "/"
    query = scope.get("query_string", b"").decode("latin-1")
    asked = parse_qs(query)
    lang, page = _language(scope, asked), _page(scope)
    kind = "state" if QUERIES["link"] in asked and page in ("explore", "compare") else page
    title, said, alt = text(lang, f"preview.{kind}.title"), text(lang, f"preview.{kind}"), text(lang, "preview.image")
    word = asked.get(QUERIES["link"], [""])[0]
    card = _card(word, lang) if page == "explore" else None
    if run is not None:
        prompt = settled(run.prompt or "", TITLE_PROMPT)
        title = text(lang, "preview.run.title", prompt=prompt) if prompt else text(lang, "preview.run.untitled")
        said, alt = text(lang, "preview.run", facts=" · ".join(run.facts)), title
        image = f"{CARD}?{QUERIES['run']}={quote(asked[QUERIES['run']][0])}&{QUERIES['lang']}={lang}"
    elif card is not None:
        title, said = _told(card, lang)
        alt = title
        image = f"{CARD}?{QUERIES['link']}={quote(word)}&{QUERIES['lang']}={lang}"
    origin = _origin(scope)
    address = f"{origin}{root}{path}{'?' + query if query else ''}"
    picture = f"{origin}{root}/{image}"
    properties = [
        ("og:type", "website"),
        ("og:site_name", "LoopViz"),
        ("og:title", title),
        ("og:description", said),
        ("og:image", picture),
        ("og:image:type", "image/png"),
        ("og:image:width", str(SIZE[0])),
        ("og:image:height", str(SIZE[1])),
        ("og:image:alt", alt),
    ]
    if len(address) <= _LONGEST:
        properties.append(("og:url", address))
    names = [
        ("description", said),
        ("twitter:card", "summary_large_image"),
        ("twitter:title", title),
        ("twitter:description", said),
        ("twitter:image", picture),
        ("twitter:image:alt", alt),
    ]
    return '<meta charset="utf-8">' + _written("property", properties) + _written("name", names)


def _written(by: str, pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<meta {by}="{name}" content="{escape(value)}">' for name, value in pairs)


def previewed(document: str, made: str) -> str:
    """The document with the tags `made` first in its head, and none of this kind from anybody else."""
    return _FOREIGN.sub("", document).replace("<head>", "<head>" + made, 1)
