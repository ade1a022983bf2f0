"""What pages and server say to each other is what `loopviz.app.contract` states: all of it is said, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest

from loopviz.app import contract
from loopviz.app.anatomy.page import data as anatomy_data
from loopviz.app.anatomy.service import Anatomy
from loopviz.app.compare.page import _data as compare_data
from loopviz.app.compare.service import Comparisons
from loopviz.app.controls import settings as st
from loopviz.app.controls.examples import samples
from loopviz.app.controls.presets import PRESETS
from loopviz.app.explore import first_run, links, tour
from loopviz.app.explore.answers import View
from loopviz.app.explore.config import page_config
from loopviz.app.explore.files import Sharing
from loopviz.app.explore.page import _brings, _visits
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab.service import Laboratory
from loopviz.app.learn.page import data as learn_data
from loopviz.app.learn.service import Lessons
from loopviz.app.main import build
from loopviz.app.page import askable, page_data
from loopviz.app.server import glossary
from loopviz.app.sessions import untrusted
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.table_file import KINDS as TABLE_KINDS
from loopviz.app.sessions.ttt_models import ttt_room
from loopviz.app.teach.page import data as teach_data
from loopviz.app.teach.service import Teaching
from loopviz.app.texts import LANGUAGES
from loopviz.app.ttt.page import data as ttt_data
from loopviz.app.ttt.service import TTT
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.export.panel_table import KINDS as PANEL_KINDS
from loopviz.panels import METRICS, PANELS, Focus
from loopviz.panels.kit.focus import LENSES
from loopviz.paths import PACKAGE, WEB
from tests.app.by_hand import only
from tests.app.page_double import unwire
from tests.engine import tiny_ttt
from tests.lessons.toy import toy

BLOCK = {"block_start": 1, "block_end": 1}


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("contract_script", PACKAGE.parent / "scripts" / "contract.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


# --- the other half -------------------------------------------------------------------------------------------------------


def test_the_scripts_half_is_what_the_contract_gives(maker: ModuleType) -> None:
    """Else: python scripts/contract.py"""
    assert (WEB / "core" / "contract.js").read_text(encoding="utf-8") == maker.script()
    assert (WEB / "core" / "contract.d.ts").read_text(encoding="utf-8") == maker.declarations()


def test_a_half_that_is_stale_is_named(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(maker, "FOLDER", tmp_path)
    assert maker.main([]) == 0
    assert maker.main(["--check"]) == 0
    (tmp_path / "contract.js").write_text("export const RECORDED = 'other';", encoding="utf-8")
    capsys.readouterr()
    assert maker.main(["--check"]) == 1
    assert "contract.js" in capsys.readouterr().out


def test_a_name_is_stated_by_one_part_alone() -> None:
    """Of two that are equal one would be offered, and the other be written for the scripts as well."""
    parts = (*contract.PARTS, contract.constants)
    stated = [name for part in parts for name in _stated(part) if not name.startswith("_")]
    assert sorted(stated) == sorted(set(stated))
    assert all(
        getattr(contract, name) is getattr(part, name) for part in parts for name in _stated(part) if name[0] != "_"
    )


def _stated(part: ModuleType) -> set[str]:
    """What a module defines, classes and names; not what it imports."""
    found = set()
    for node in ast.parse(inspect.getsource(part)).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_constants_of_others_are_theirs() -> None:
    from loopviz.lab.comparison.curves import figures
    from loopviz.lab.comparison.table import GROUPS

    assert tuple(GROUPS) == contract.TABLE_GROUPS
    assert tuple(figures([], [], "en", "cosine", [])) == contract.CURVES
    assert contract.TABLE_FILES == TABLE_KINDS
    assert tuple(PANEL_KINDS) == contract.PANEL_FILES
    assert contract.USUAL_PRESET in {preset.name for preset in PRESETS}
    assert get_args(contract.Lang) == tuple(LANGUAGES)
    assert get_args(contract.Metric) == METRICS
    assert get_args(contract.Lens) == (*LENSES, None)
    assert get_args(contract.TableFile) == contract.TABLE_FILES
    assert get_args(contract.PageName) == tuple(contract.PAGES)
    assert set(get_type_hints(contract.Focus)) == {field.name for field in dataclasses.fields(Focus)}


def test_a_page_says_asks_and_hears_by_one_list_each() -> None:
    assert contract.PAGES.keys() == contract.MESSAGES.keys() == contract.QUESTIONS.keys() == contract.EVENTS.keys()
    service = Service(ModelRoom("none"), Registry())
    asked = {"explore": service.questions, "compare": Comparisons(service), "lab": Laboratory(service)}
    asked |= {"learn": Lessons(service), "anatomy": Anatomy(service), "ttt": TTT(service), "teach": Teaching(service)}
    for page, questions in contract.QUESTIONS.items():
        assert all(callable(getattr(asked[page], name)) for name in questions)


def test_every_event_of_a_page_is_heard() -> None:
    demo = build("none").demo
    for page, events in contract.EVENTS.items():
        own = {"explore": "lv-live", "learn": "lv-lessons"}.get(page, f"lv-{page}")
        (live,) = [block for block in demo.blocks.values() if getattr(block, "elem_id", None) == own]
        heard = {event for fn in demo.fns.values() for block, event in fn.targets if block == live._id}
        assert heard == set(events), page


def _written(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value.values()


@pytest.mark.parametrize("name", ["RECORDED", "STORED", "TICKET_HEADER", "USUAL_PRESET", "ELEMENTS", "CLASSES"])
def test_nobody_writes_a_shared_constant_by_hand(name: str) -> None:
    """It was in two or three places, and only a browser would have told."""
    own = {WEB / "core" / "contract.js", PACKAGE / "app" / "contract" / "constants.py"}
    defining = {PACKAGE / "app" / "controls" / "presets.py", PACKAGE / "app" / "controls" / "link_word.py"}
    texts = (PACKAGE / "app" / "texts").rglob("*.py")  # speak to visitors, not to scripts
    files = {*WEB.rglob("*.js"), *(PACKAGE / "app").rglob("*.py")} - own - defining - {*texts}
    for value in _written(contract.CONSTANTS[name]):
        literal = re.compile(rf"""(?:["'`][#.]?|[\s,][#.]){re.escape(value)}(?=["'`\s,)\]])""")
        found = [path.name for path in files if literal.search(path.read_text(encoding="utf-8"))]
        assert found == [], value


# --- messages ---------------------------------------------------------------------------------------------------------------


class Heard:
    """What a page hears: checked as it comes, and which of all that it may hear has come."""

    def __init__(self, page: str) -> None:
        self.page, self.seen = page, set()

    def message(self, said: Any) -> dict[str, Any]:
        """A message from the server, as a dict or as it was sent."""
        told = json.loads(json.dumps(said, default=list)) if isinstance(said, dict) else unwire(said)
        contract.check(told, contract.MESSAGES[self.page], self.page)
        self.seen.add(told["kind"])
        return told

    def run(self, stream: Iterable[str]) -> list[dict[str, Any]]:
        return [self.message(text) for text in stream]

    def ask(self, of: Any, name: str, **question: Any) -> dict[str, Any]:
        """The answer to a question that a script asks: that is checked, too."""
        asked, answers = contract.QUESTIONS[self.page][name]
        contract.check(question, (asked,), name)
        answer = json.loads(getattr(of, name)(json.dumps(question)))
        contract.check(answer, answers, name)
        self.seen.add(answer.get("kind", name))
        return answer

    def everything(self) -> None:
        """Nothing is declared that nobody says; what is unforeseen fails otherwise."""
        kinds = {contract._kind_of(kind) for kind in contract.MESSAGES[self.page]}
        for name, (_, answers) in contract.QUESTIONS[self.page].items():
            kinds |= {contract._kind_of(kind) or name for kind in answers}
        assert self.seen == kinds - {"failed"}


@pytest.fixture
def service(endless: Loaded) -> Service:
    return Service(ModelRoom("tiny", load=only(endless)), Registry(), every=0)


def _values(**change: Any) -> dict[str, Any]:
    return st.defaults() | {"model": "tiny", "max_new_tokens": 6} | BLOCK | change


@pytest.mark.parametrize("lang", LANGUAGES)
def test_explore_says_what_the_contract_states(service: Service, lang: str) -> None:
    heard, sharing = Heard("explore"), Sharing(service.registry, service.room)
    heard.message(page_config(lang))
    heard.message(page_config(lang) | {"visit": {"linked": "", "suits": "tiny", **sharing.visit("me")}})
    heard.message(_visits(sharing.visit("me")))
    told = heard.run(service.run("Once upon", _values(chat=True), lang, "me", View(PANELS, Focus(lang=lang))))
    assert len([message for message in told if message["kind"] == "frames"]) > 3
    heard.message(_brings("tiny", _values(), gave={"loop_count": 9}))
    heard.message(_brings("tiny", _values(), whole=True, prompt="Once", suits=""))
    heard.run(service.run("", _values(), lang, "you"))
    heard.run(service.run("Once", _values(loop_injection="linear"), lang, "you"))
    run = next(message["run"] for message in told if message["kind"] == "snapshot")
    made = {"n": 1, "run": run, "view": json.dumps({"panels": list(PANELS), "focus": {"token": 2}})}
    contract.check(made, (contract.MakeLink,), "link")
    heard.message(sharing.link(made, "Once upon", _values(), lang))

    questions, end = service.questions, told[-1]["last"]
    view = {"epoch": 0, "panels": ["convergence", "kv_occupancy"]}
    seen = heard.ask(questions, "focus", run=run, **view, focus={"token": 3, "step": 1, "lang": lang}, shown=None)
    assert seen["alternatives"]
    heard.ask(questions, "focus", run=None, **view, focus={}, shown=3)
    heard.ask(questions, "resync", run=run, epoch=seen["epoch"], seq=end)
    heard.ask(questions, "resync", run=run, epoch=-1, seq=-1)
    way = {**view, "run": run, "epoch": seen["epoch"], "focus": {}}
    assert heard.ask(questions, "advance", **way, **{"from": 2, "to": None, "split": True})["kind"] == "steps"
    assert heard.ask(questions, "advance", **way, **{"from": 4, "to": 2, "split": False})["kind"] == "snapshot"
    assert heard.ask(questions, "explain", run=run, focus={"token": 3, "lang": lang}, shown=None)["explained"]["text"]
    heard.ask(questions, "carry", run=run)
    heard.ask(questions, "text_until", run=run, token=2, piece=" and")
    assert heard.ask(questions, "guesses", run=run, token=2)["steps"]
    asking = {"lang": lang, "again": False, "linked": False, "look": False}
    heard.ask(questions, "model_status", **asking)
    heard.ask(questions, "model_status", **asking, model="nobody/knows")
    heard.everything()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_compare_says_what_the_contract_states(service: Service, lang: str) -> None:
    heard, comparisons = Heard("compare"), Comparisons(service, every=0)
    heard.message(compare_data(service.room))
    own = {"name": "mine", "plain": False, "values": BLOCK, "base": {"model": "tiny", "values": {"loop_count": 3}}}
    own |= {"sweep": 2, "model": "", "linked": False}
    cards = [
        {"name": "plain", "plain": True, "values": {}, "base": None, "sweep": 0, "model": "", "linked": False},
        own,
        {**own, "values": {"block_end": 9}},
    ]
    setup = {
        "lang": lang,
        "model": "tiny",
        "precision": "server",
        "linked": False,
        "look": False,
        "suits": "tiny",
        "cards": cards,
    }
    setup |= {"baseline": 0, "shared": {"max_new_tokens": 5}, "lengths": [9, 7]}
    begin = {**setup, "prompt": "Once upon", "continuation": " a time", "ticket": "t1", "n": 1}
    contract.check(begin, (contract.Compare,), "begin")
    told = heard.run(comparisons.run(begin, "me"))
    run = next(message["run"] for message in told if message["kind"] == "snapshot")
    heard.run(comparisons.run({**begin, "cards": cards[2:] * 2, "n": 2, "ticket": "t2"}, "you"))
    heard.run(comparisons.run({**begin, "prompt": "", "n": 3}, "you"))
    assert heard.ask(comparisons, "check", **setup)["base"]
    heard.ask(comparisons, "check", **{**setup, "model": "other", "look": True})
    heard.ask(comparisons, "look", run=run, lang=lang)
    heard.ask(comparisons, "look", run=run, lang=lang, view="kl", axes=["ms_per_token", "agreement"])
    heard.ask(comparisons, "look", run=None, lang=lang)
    for kind in contract.TABLE_FILES:
        heard.ask(comparisons, "download", run=run, kind=kind)
    heard.ask(comparisons, "opening", word="", lang=lang)
    heard.ask(comparisons, "stop", ticket="t1", place=None)
    heard.everything()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_lab_says_what_the_contract_states(service: Service, lang: str) -> None:
    heard, laboratory = Heard("lab"), Laboratory(service, every=0.01)
    heard.message(page_data("lab", service.room, samples=samples()))
    tasks = heard.ask(laboratory, "tasks")["tasks"]
    values = {
        "text": "Once upon a time there was a loop. " * 4,
        "window": 16,
        "loop": json.dumps({"loop_layers": [1, 1]}),
    }
    assert {field["name"] for field in next(t for t in tasks if t["name"] == "perplexity")["fields"]} > set(values)
    begin = {"lang": lang, "ticket": "t1", "n": 1, "model": "tiny", "task": "perplexity", "values": values}
    begin["precision"] = "server"
    contract.check(begin, (contract.Measure,), "begin")
    told = heard.run(laboratory.run(begin, "me"))
    run = next(message["run"] for message in told if message["kind"] == "snapshot")
    assert told[-1]["end"] == "done"
    heard.run(laboratory.run({**begin, "task": "none", "n": 2}, "you"))
    heard.ask(laboratory, "model", model="tiny", lang=lang, look=False, precision="server")
    heard.ask(laboratory, "model", model="", lang=lang, look=True, linked=True)
    heard.ask(laboratory, "look", run=run, lang=lang)
    heard.ask(laboratory, "look", run="none", lang=lang)
    heard.ask(laboratory, "link", run=run, row=0, lang=lang)
    for kind in contract.TABLE_FILES:
        heard.ask(laboratory, "download", run=run, kind=kind)
    asked = {"lang": lang, "model": "tiny", "precision": "server", "task": "perplexity", "values": values, "cut": False}
    assert all(one["text"] for one in heard.ask(laboratory, "sizes", **asked)["sizes"])
    heard.ask(laboratory, "stop", ticket=None)
    heard.everything()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_learn_says_what_the_contract_states(service: Service, lang: str) -> None:
    heard, lessons = Heard("learn"), Lessons(service, every=0)
    heard.message(learn_data(service.room))
    source = json.dumps(toy())
    begin = {"lang": lang, "ticket": "t1", "n": 1, "id": "", "source": source, "step": "count", "what_if": False}
    contract.check(begin, (contract.TryLesson,), "begin")
    run = heard.run(lessons.run(begin, "me"))[-1]["run"]
    heard.run(lessons.run({"visit": True, "lang": lang}, "me"))
    heard.run(lessons.run({**begin, "source": "", "id": "none", "n": 2}, "you"))
    heard.ask(lessons, "lesson", lang=lang, source=source)
    heard.ask(lessons, "lesson", lang=lang, id="none")
    heard.ask(lessons, "model", model="tiny", lang=lang, look=False)
    heard.ask(lessons, "look", run=run)
    heard.ask(lessons, "look", run=None)
    heard.ask(lessons, "judge", run=run, guess=0)
    heard.ask(lessons, "judge", run="none", guess=0)
    heard.ask(lessons, "pack", source=source, lang=lang)
    heard.ask(lessons, "code", url="https://example.org/learn", lang=lang)
    answer = {"step": "count", "question": "?", "guess": "", "measured": "", "right": None, "score": 0.5, "when": "now"}
    same = {"student": "", "lesson": "toy", "version": 1, "title": "", "made_with": {}, "answers": [answer]}
    for kind in contract.ANSWER_FILES:
        heard.ask(lessons, "answers", kind=kind, **same)
    heard.ask(lessons, "stop", ticket=None)
    heard.everything()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_anatomy_says_what_the_contract_states(service: Service, lang: str) -> None:
    heard, anatomy = Heard("anatomy"), Anatomy(service)
    heard.message(anatomy_data(service.room))
    *_, last = map(unwire, service.run("Once", _values() | {"max_new_tokens": 3}, lang, "me"))
    heard.ask(anatomy, "show", run=last["run"], lang=lang)
    assert json.loads(service.questions.carry(json.dumps({"run": last["run"]}))) == {"kind": "ok"}
    assert heard.ask(anatomy, "show", run=last["run"], lang=lang)["kind"] == "run"
    begin = {"lang": lang, "ticket": "t1", "n": 1, "run": last["run"], "token": 2}
    contract.check(begin, (contract.Dissect,), "begin")
    look = heard.run(anatomy.run(begin, "you"))[-1]["look"]
    heard.run(anatomy.run({**begin, "token": 99, "n": 2}, "they"))
    where = {"look": look, "layer": 1, "step": 1, "lang": lang}
    heard.ask(anatomy, "layer", **where)
    heard.ask(anatomy, "layer", **{**where, "layer": 99})
    heard.ask(anatomy, "layer", **{**where, "look": None})
    heard.ask(anatomy, "beside", **where, other=2)
    heard.ask(anatomy, "distance", **where, head=0, column=0, most=4)
    heard.ask(anatomy, "draw", look=look, temperature=1.0, top_k=0, top_p=1.0, lang=lang)
    heard.ask(anatomy, "model", model="tiny", lang=lang, look=False)
    assert not heard.ask(anatomy, "need", article=False, model="tiny", lang=lang)["refused"]
    checked = {**begin, "ticket": "t2", "n": 3, "check": "model", "model": "tiny"}
    contract.check(checked, (contract.Dissect,), "begin")
    assert heard.run(anatomy.run(checked, "you"))[-1]["end"] == "done"
    heard.ask(anatomy, "stop", ticket=None)
    heard.everything()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_ttt_says_what_the_contract_states(service: Service, lang: str) -> None:
    heard, ttt = Heard("ttt"), TTT(service, ttt_room(service.room, lambda *_: tiny_ttt.engine()), every=0)
    heard.message(ttt_data(ttt.room))
    begin = {"lang": lang, "ticket": "t1", "n": 1, "model": "stories-ttt", "prompt": "Once upon", "max_new_tokens": 5}
    begin |= {"scale": 1.0, "layer": 0, "head": None}
    contract.check(begin, (contract.BeginTTT,), "begin")
    run = heard.run(ttt.run(begin, "me"))[-1]["run"]
    heard.run(ttt.run({**begin, "prompt": "", "n": 2}, "you"))
    assert heard.ask(ttt, "look", run=run, layer=1, head=0, token=2, lang=lang)["kind"] == "snapshot"
    heard.ask(ttt, "look", run=None, layer=1, head=0, token=2, lang=lang)
    assert heard.ask(ttt, "steer", run=run, forget=True, scale=1.0, lang=lang)["kind"] == "no"
    heard.ask(ttt, "forgetting", run=run, token=1, lang=lang)
    heard.ask(ttt, "rules", run=run, layer=0, head=None, token=None, lang=lang)
    heard.ask(ttt, "attention", run=run, layer=0, head=None, token=1, lang=lang)
    own = TTT(service, every=0)
    last = heard.run(own.run({**begin, "n": 3}, "we"))[-1]
    assert heard.ask(own, "attention", run=last["run"], layer=0, head=0, token=1, lang=lang)["kind"] == "attention"
    heard.ask(ttt, "model", model="stories-ttt", lang=lang, look=False)
    heard.ask(ttt, "stop", ticket=None)
    heard.run(ttt.run({"visit": True, "lang": lang}, "me"))
    heard.everything()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_teach_says_what_the_contract_states(lang: str, llama_folder: Any) -> None:
    pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")
    folder = str(llama_folder())
    heard, teaching = Heard("teach"), Teaching(Service(ModelRoom(folder), Registry()), every=0.01)
    heard.message(teach_data(teaching.room))
    values = {"first": 1, "last": 1, "most": 2, "rank": 2, "steps": 1, "every": 1, "window": 8, "batch": 1, "lr": 0.01}
    begin = {"lang": lang, "ticket": "t1", "n": 1, "model": folder, "prompt": "Once upon", "values": values}
    begin |= {"text": "Once upon a time there was a loop. " * 8}
    contract.check(begin, (contract.BeginTeach,), "begin")
    told = heard.run(teaching.run(begin, "me"))
    assert told[-1]["end"] == "done", told[-1]
    run = told[-1]["run"]
    heard.run(teaching.run({**begin, "text": "", "n": 1}, "you"))
    heard.ask(teaching, "model", model=folder, lang=lang, look=False)
    heard.ask(teaching, "look", run=run, lang=lang)
    heard.ask(teaching, "look", run=None, lang=lang)
    heard.ask(teaching, "pause", run=run, on=True)
    heard.ask(teaching, "stop", ticket=None)
    keep = {"lang": lang, "ticket": "t2", "n": 2, "keep": run}
    contract.check(keep, (contract.BeginTeach,), "begin")
    assert heard.run(teaching.run(keep, "me"))[-1]["kept"]["loops"] in (1, 2)
    heard.everything()


@pytest.mark.parametrize("page", contract.PAGES)
def test_an_answer_that_fails_is_one_of_the_contract_s(page: str, caplog: pytest.LogCaptureFixture) -> None:
    for name, (_, answers) in contract.QUESTIONS[page].items():
        assert contract.Failed in answers
        (ask,) = askable(object(), name)  # which has no such method
        contract.check(json.loads(ask('{"lang": "zh"}')), (contract.Failed,), name)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_explore_fetches_is_what_the_contract_states(service: Service, lang: str) -> None:
    word = links.link_word.encode(links.PageState(_values(), "Once", Focus(token=2), ("convergence",), links.RECORDED))[
        0
    ]
    fetched = {
        contract.Opening: json.loads(first_run.opening(lang)),
        contract.OpenedLink: json.loads(json.dumps(links.opening(word, service.room, lang))),
        contract.Tour: json.loads(tour.document(lang)),
        contract.Glossary: json.loads(glossary.document(lang)),
    }
    assert set(fetched) == set(contract.DOCUMENTS)
    for kind, document in fetched.items():
        contract.check(document, (kind,), kind.__name__)
    settings = links.link_word.encode(links.PageState(_values(), "Once"))[0]
    held = json.loads(json.dumps(links.opening(settings, service.room, lang)))
    contract.check(held, (contract.OpenedLink,), "a link to settings")
    assert held["holds"]


def test_a_message_that_is_none_is_named() -> None:
    good = {"kind": "link", "n": 1, "word": None, "told": []}
    contract.check(good, contract.MESSAGES["explore"], "explore")
    for wrong, says in (
        ({**good, "n": "1"}, "explore.n"),
        ({**good, "more": 1}, "unknown keys"),
        ({"kind": "link", "n": 1}, "missing keys"),
        ({**good, "kind": "new"}, "kind='new' is none of config, status, snapshot, frames, link"),
        ([], "list where a mapping"),
    ):
        with pytest.raises(ValueError, match=re.escape(says)):
            contract.check(wrong, contract.MESSAGES["explore"], "explore")


# --- questions --------------------------------------------------------------------------------------------------------------


def test_of_a_question_counts_what_has_the_type_that_is_stated() -> None:
    right = {"run": "r", "epoch": 2, "shown": None, "panels": ["a", "b"], "focus": {"token": 1}}
    assert untrusted.read(json.dumps(right), contract.Look) == right
    wrong = {"run": 3, "epoch": True, "shown": 1.5, "panels": ["a", 3, None, ["b"]], "focus": {"tokens": 1}, "else": 1}
    assert untrusted.read(json.dumps(wrong), contract.Look) == {"panels": ["a"]}
    assert untrusted.read(json.dumps({**right, "run": "x" * untrusted.QUESTION_LIMIT}), contract.Look) == {}
    for nothing in (None, 3, "", "[]", "[" * 3000, '{"run": "\\ud800"}', "{"):
        assert untrusted.read(nothing, contract.Look) == {}


def test_of_cards_each_counts_as_far_as_it_is_one() -> None:
    cards = [{"name": 3, "plain": True}, None, 5, {"name": "b", "base": {"model": "m"}}]
    assert untrusted.fitting({"cards": cards}, contract.Compare) == {"cards": [{"plain": True}, {"name": "b"}]}


def test_what_is_no_model_s_name_is_refused_and_not_left_out(service: Service) -> None:
    """Else a measurement of the model that the page begins with would be the answer to nonsense."""
    told = [unwire(text) for text in Laboratory(service).run({"model": 7, "task": "perplexity"}, "me")]
    assert told[-1]["bad"]
    assert told[-1]["over"]
    assert json.loads(service.questions.model_status('{"model": 7}'))["state"] == "failed"
