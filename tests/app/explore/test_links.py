"""Links as the page makes and opens them: what was set up is set again, and the model's own settings do not undo it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app import controls as st
from loopviz.app.controls import link_word
from loopviz.app.controls.link_word import PageState, encode
from loopviz.app.explore import first_run, links
from loopviz.app.explore.files import PREFIX, Sharing
from loopviz.app.explore.page import ExplorePage
from loopviz.app.explore.run import Registry, Run
from loopviz.app.explore.service import Service
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.model_status import Status
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.texts import text
from loopviz.app.texts.links import TEXTS as SAID
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.model.configuration import block_ranges
from loopviz.panels import PANELS, Focus
from loopviz.trace import Trace
from tests.app.page_double import unwire
from tests.trace.synthetic import random_trace


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """The recorded run."""
    made = random_trace(31, 9)
    monkeypatch.setattr(first_run, "stored", lambda: made)
    return made


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def room() -> ModelRoom:
    return ModelRoom("ours")


def values(**change: Any) -> dict[str, Any]:
    return {**st.defaults(), "model": "ours", "loop_count": 7, **change}


def asked(run: str | None = None, panels: Any = ("convergence", "cost"), **focus: Any) -> dict[str, Any]:
    return {"n": 3, "run": run, "view": json.dumps({"panels": panels, "focus": focus})}


def made(registry: Registry, room: ModelRoom, wish: Any, lang: str = "en", **change: Any) -> dict[str, Any]:
    prompt = change.pop("prompt", "Once")
    return links.message(wish, prompt, values(**change), lang, registry=registry, room=room)


def own_run(registry: Registry, **more: Any) -> Run:
    run = Run(random_trace(32, 12).meta, PANELS, "me")
    run.trace.meta["prompt"] = "Once"
    run.values = st.clean(values())[0]
    for name, value in more.items():
        setattr(run, name, value)
    run.finished.set()
    registry.begin(run)
    return run


def test_a_link_opens_what_was_set_up(trace: Trace, registry: Registry, room: ModelRoom) -> None:
    looking = {"token": 5, "step": 2, "pins": [1, 4], "metric": "kl", "dims": 3, "context": 32768, "batch": 8}
    looking |= {"layer": 1, "lens": "exit", "block": 0, "lang": "zh"}
    told = made(registry, room, asked(own_run(registry).id, **looking))
    assert (told["kind"], told["n"], told["told"]) == ("link", 3, [])
    state, problems = links.read(told["word"], room, "en")
    assert problems == []
    assert dict(state.values) == values()
    assert state.prompt == "Once"
    assert state.focus == Focus(**{**looking, "lang": "en"}), "a reader has a language of their own"
    assert state.panels == ("convergence", "cost")
    assert state.recorded is None

    opened = links.opening(told["word"], room, "zh")
    assert opened["snapshot"] is None, "the view waits for the visitor's run"
    assert opened["focus"] == Focus(**{**looking, "lang": "zh"}).to_json()
    assert set(opened["panels"]) == {"convergence", "cost"}
    assert opened["told"] == []


def test_a_link_made_on_the_recorded_run_shows_it_again(trace: Trace, registry: Registry, room: ModelRoom) -> None:
    word = made(registry, room, asked(first_run.RUN, token=5, pins=[2]))["word"]
    shown = links.opening(word, room, "zh")["snapshot"]
    assert (shown["run"], shown["seq"], shown["total"]) == (first_run.RUN, 9, 9)
    assert shown["focus"] == Focus(token=5, pins=(2,), lang="zh").to_json()
    assert shown["figures"].keys() == {"convergence"}, "of the group that is open"


@pytest.mark.parametrize(
    ("named", "group", "drawn"),
    [
        (["kv_occupancy"], "memory", {"kv_occupancy"}),
        (["cost", "attention", "would_say"], "words", {"would_say"}),  # attention was not recorded
        (["instrument", "convergence", "token_loop_map", "cost"], "thinking", {"convergence", "token_loop_map"}),
        ([], None, set()),
    ],
)
def test_b8_an_old_link_that_names_panels_opens_their_group(
    trace: Trace, registry: Registry, room: ModelRoom, named: list[str], group: str | None, drawn: set[str]
) -> None:
    """Links of before named the panels of the whole page; those of now the open group's."""
    state = PageState(values(), "Once", Focus(), tuple(named), links.RECORDED)
    opened = links.opening(encode(state)[0], room, "en")
    assert (opened["panels"], opened["group"]) == (named, group)
    assert opened["snapshot"]["figures"].keys() == drawn


def test_b8_a_link_that_names_no_panels_leaves_the_group_to_the_page(
    trace: Trace, registry: Registry, room: ModelRoom
) -> None:
    opened = links.opening(encode(PageState(values(), "Once", recorded=links.RECORDED))[0], room, "en")
    assert (opened["panels"], opened["group"]) == (None, None)
    assert opened["snapshot"]["figures"].keys() == first_run.opening_panels().keys()


def test_words_the_recorded_run_does_not_have_are_told(trace: Trace, registry: Registry, room: ModelRoom) -> None:
    word = made(registry, room, asked(first_run.RUN, token=9, step=1, pins=[2, 70]))["word"]
    for lang in ("en", "zh"):
        opened = links.opening(word, room, lang)
        assert opened["snapshot"]["focus"] == Focus(pins=(2,), lang=lang).to_json()
        assert opened["told"] == [text(lang, "share.link.beyond", names="9, 70")]


def test_a_server_without_a_recorded_run_says_so(
    trace: Trace, registry: Registry, room: ModelRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = made(registry, room, asked(first_run.RUN))["word"]
    monkeypatch.setattr(first_run, "stored", lambda: None)
    opened = links.opening(word, room, "en")
    assert opened["snapshot"] is None
    assert links.RECORDED in opened["told"][0]


def test_what_a_link_cannot_hold_is_told(trace: Trace, registry: Registry, room: ModelRoom) -> None:
    run = own_run(registry)
    for change in ({"prompt": "Twice"}, {"loop_count": 3}):
        told = made(registry, room, asked(run.id, token=4), "zh", **change)
        assert told["told"] == [text("zh", "share.link.changed")]
        assert links.read(told["word"], room, "en")[0].focus.token == 4
    opened = own_run(registry, opened=100)
    told = made(registry, room, asked(opened.id, token=4, pins=[2], metric="kl"))
    assert told["told"] == [text("en", "share.link.file")]
    assert links.read(told["word"], room, "en")[0].focus == Focus(metric="kl"), "its words are not in the link"
    assert made(registry, room, asked(), prompt="x" * 30_000)["word"] is None
    bad = made(registry, room, asked(), loop_count=None)
    assert "loop_count" in bad["told"][0]


def test_a_model_that_is_still_coming_brings_settings_the_link_must_wait_for(
    trace: Trace, registry: Registry, room: ModelRoom
) -> None:
    for state in ("importing", "loading"):
        room._status["ours"] = Status(state, "ours")
        told = made(registry, room, asked(), "zh")
        assert (told["word"], told["told"]) == (None, [text("zh", "share.link.loading")])
    room._status["ours"] = Status("failed", "ours", "no such file")
    assert made(registry, room, asked())["word"]


@pytest.mark.parametrize("wish", [None, 3, [], {}, {"n": "x", "run": ["y"], "view": 7}, {"view": "[" * 5000}])
def test_a_wish_that_is_none_still_gives_a_link(trace: Trace, registry: Registry, room: ModelRoom, wish: Any) -> None:
    told = made(registry, room, wish)
    assert told["n"] == 0
    state, problems = links.read(told["word"], room, "en")
    assert problems == []
    assert set(state.panels) == set(first_run.opening_panels())


# --- a page opened with a link ------------------------------------------------------------------------------------------


def test_the_script_is_told_over_a_route(trace: Trace, registry: Registry, room: ModelRoom) -> None:
    client = TestClient(Starlette(routes=Sharing(registry, room).routes()))
    word = made(registry, room, asked(first_run.RUN, token=5))["word"]
    answer = client.get(f"/{PREFIX}/link", params={"s": word, "lang": "zh"})
    assert answer.json() == json.loads(json.dumps(links.opening(word, room, "zh"), default=str))
    for bad, key in (("", "damaged"), ("1" + "A" * 9000, "damaged"), ("7abc", "newer"), ("<script>", "damaged")):
        told = client.get(f"/{PREFIX}/link", params={"s": bad, "lang": "zh"}).json()
        assert told["told"] == [SAID["zh"][key]]
        assert told["snapshot"] is None
        assert told["panels"] is None
    assert client.get(f"/{PREFIX}/link").json()["told"] == [SAID["en"]["damaged"]]


class OwnLoop:
    """A model made as a loop of two layers, as far as settings ask."""

    class Config:
        num_hidden_layers = 2
        hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, head_dim = 8, 16, 2, 1, 4
        vocab_size, max_position_embeddings = 40, 64
        loop_injection, loop_norm, exit_selection = "add", True, "last"

        @staticmethod
        def loop_blocks() -> list[Any]:
            block = {"a": 0, "b": 1, "strategy": "fixed_count", "count": 4, "max_count": 12, "criterion": "either"}
            block |= {"cosine_threshold": 0.95, "kl_threshold": 0.01, "kv_mode": "virtual_layers", "slots": 1}
            block |= {"attention_mode": "serial", "merge": "ema", "ema_alpha": 0.7, "damping": 1.0, "floor": 1}
            block |= {"chooser": "none", "layer_threshold": 0.15, "criterion_threshold": 0.0, "unreached": "refuse"}
            block |= {"final_norm": "none", "init": "entry", "init_std": 0.0, "init_seed": 0}
            block |= {"exit_selection": "last", "exit_threshold": 1.0, "kv_dtype": "exact"}
            more = {"layers": range(2), "max_steps": 4, "parallel": False, "chosen": False}
            return [SimpleNamespace(**block, **more, injection="add", norm=True, dynamic=False)]

    config = Config
    dtype = SimpleNamespace(itemsize=4)

    def with_loop(self, **fields: Any) -> None:
        """It takes all settings but layers it does not have."""
        block_ranges(fields["loop_layers"], 2)

    def parameters(self) -> list[Any]:
        return []

    modules = parameters


@pytest.fixture(scope="module")
def page() -> ExplorePage:
    room = ModelRoom("ours", load=lambda name, progress, local: Loaded(name, OwnLoop(), None))
    return ExplorePage(Service(room, Registry()))


def given(page: ExplorePage, values: dict[str, Any], suits: str | None = None, prompt: str = "Once") -> dict[Any, Any]:
    """A form as Gradio hands it in: by component; the script's word stands in the live element's place."""
    parts = page.parts
    word = "" if suits is None else json.dumps({"touched": [], "gave": {}, "suits": suits})
    form = {component: values[name] for name, component in parts.controls.items()}
    return {**form, parts.prompt: prompt, parts.lang: "en", page.live: word}


def opened(page: ExplorePage, query: dict[str, str]) -> tuple[str, dict[Any, Any], dict[str, Any], Any]:
    """What a visit sets: the linked model, all updates, the values put into controls, and the prompt put into its box."""
    request = SimpleNamespace(query_params=query, headers={"accept-language": "en"}, session_hash="visitor")
    start = st.defaults() | {"model": values()["model"]}
    found = page._open(request, given(page, start, prompt="a suggestion") | {page.parts.lang: None})
    config = unwire(found[page.live])
    linked, suits = config["visit"]["linked"], config["visit"]["suits"]
    assert suits == (linked or page.suits), "a link's settings are for its model"
    assert config["lang"] == found[page.parts.lang]
    assert page.sharing._desk.session(config["visit"]["ticket"]) == "visitor"
    put = {name: found[component] for name, component in page.parts.controls.items()}
    return (
        linked,
        found,
        {name: face["value"] for name, face in put.items() if "value" in face},
        found[page.parts.prompt].get("value"),
    )


def test_a_visit_with_a_link_finds_everything_set(page: ExplorePage) -> None:
    wanted = values(model="another", block_start=1, block_end=1, loop_count=9, greedy=False, seed=5)
    word = encode(PageState(wanted, "Lily saw a bird"))[0]
    for lang in ("en", "zh"):
        linked, found, values_put, prompt = opened(page, {"s": word, "lang": lang})
        assert linked == "another"
        assert values_put == wanted
        assert prompt == "Lily saw a bird"
        assert found[page.parts.run]["value"] == text(lang, "run")
    _, _, _, prompt = opened(page, {"s": encode(PageState(wanted))[0]})
    assert prompt == "a suggestion", "a link without a prompt leaves the one that is there"


@pytest.mark.parametrize("query", [{}, {"s": ""}, {"s": "1cut"}, {"s": "9new"}, {"lang": "zh"}])
def test_without_a_link_that_can_be_read_nothing_is_set(page: ExplorePage, query: dict[str, str]) -> None:
    linked, _, values_put, prompt = opened(page, query)
    assert (linked, values_put, prompt) == ("", {}, None)


def test_a_link_s_settings_stay_when_its_model_arrives(page: ExplorePage) -> None:
    wanted = values(block_start=0, block_end=0, loop_count=3, virtual_layer_count=2)
    page.service.room.get("ours")

    def suited(suits: str) -> dict[str, Any]:
        found = page._suit(given(page, wanted, suits))
        brought = unwire(found[page.live]) if page.live in found else {"changes": {}, "model": "ours"}
        assert brought["model"] == "ours"
        return brought["changes"]

    assert suited("")["block_end"] == 1
    assert suited("another")["loop_count"] == 4
    assert suited("ours") == {}


def test_settings_of_no_model_yet_are_not_refused_but_become_its_own(page: ExplorePage) -> None:
    """A visit begins with settings for no model in particular, and may begin when the model is there already."""
    page.service.room.get("ours")
    start = values(block_start=10, block_end=14)
    here = SimpleNamespace(query_params={}, headers={}, session_hash="late")

    brought = unwire(page._suit(given(page, start, ""))[page.live])
    assert brought["changes"]["block_end"] == 1
    for model, refused in (("", False), ("another", False), ("ours", True)):
        faces = page._check(here, given(page, start, model))
        assert ("layer 10 is not in" in faces[page.parts.controls["block_start"]]["info"]) == refused


def test_settings_for_a_model_that_a_server_does_not_name_are_no_other_s(page: ExplorePage) -> None:
    """A link from a server whose model has no name here opens on this one's: with its own settings, once it is there."""
    word = encode(PageState(values(model="/home/me/model", block_start=20, block_end=25)), local=False)[0]
    request = SimpleNamespace(query_params={"s": word}, headers={}, session_hash="visitor")
    visit = unwire(page._open(request, given(page, st.defaults()))[page.live])["visit"]
    assert (visit["linked"], visit["suits"]) == ("ours", "")
    assert links.opening(word, page.service.room, "en")["holds"]["loop"] is None


def test_what_a_link_holds_is_said_until_its_run_is_made(page: ExplorePage) -> None:
    """A13: a link of one's own run opened on the recorded one, without a word."""
    wanted = values(model="another", block_start=1, block_end=3, loop_count=9)
    word = encode(PageState(wanted, "Lily saw a bird"))[0]
    for lang in ("en", "zh"):
        told = links.opening(word, page.service.room, lang)
        assert told["snapshot"] is None
        assert told["holds"]["prompt"] == "Lily saw a bird"
        assert told["holds"]["model"] == "another"
        assert text(lang, "about.fixed", a=1, b=3, n=9) in told["holds"]["loop"]
    assert links.opening("1cut", page.service.room, "en")["holds"] is None
    recorded = encode(PageState(values(), recorded=links.RECORDED))[0]
    assert links.opening(recorded, page.service.room, "en")["holds"] is None


def test_a_path_stays_on_its_machine(trace: Trace, registry: Registry) -> None:
    public = ModelRoom("ours", profile=PUBLIC)
    told = links.message(asked(), "Once", values(model="/srv/secret"), "en", registry=registry, room=public)
    assert told["told"] == [SAID["en"]["kept_path"]]
    assert links.read(told["word"], public, "en")[0].values["model"] == "ours"
    theirs = encode(PageState(values(model="/home/me/model")))[0]
    state, problems = links.read(theirs, public, "zh")
    assert (state.values["model"], [p.reason for p in problems]) == ("ours", [SAID["zh"]["path"]])
    assert link_word.opens(theirs)
