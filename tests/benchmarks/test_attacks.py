"""benchmarks/attacks: what is attacked is all that a server answers; what it sends can be told from what pages send."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import zipfile
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.attacks import calls, sent
from benchmarks.attacks.addresses import OWN, Address, addresses, asked_of, asked_with, events, functions
from benchmarks.attacks.visiting import Answer
from loopviz.app import contract
from loopviz.app.main import build
from loopviz.app.server.request_guard import USED


@pytest.fixture(scope="module")
def visitor() -> Any:
    """A page that is open, as far as what is sent needs one."""
    config = build("none").demo.get_config_file()
    return SimpleNamespace(server=SimpleNamespace(config=config), session="abc", shown="ticket.mark")


@pytest.mark.parametrize("pattern", USED)
def test_every_address_that_is_open_is_attacked(pattern: str) -> None:
    """A route that is added to the door's list must be added to what is attacked."""
    methods, _ = USED[pattern]
    found = [one for one in addresses() if re.fullmatch(pattern, one.usual.partition("?")[0])]
    assert found, "add it to benchmarks/attacks/addresses.py:OWN"
    assert {one.method for one in found} >= set(methods) - {"HEAD"}


def test_every_address_of_ours_is_open_but_one_method() -> None:
    closed = {("HEAD", "/loopviz-run/{run}")}  # it once stopped a run
    for method, path in set(OWN) - closed:
        usual = Address(method, path).usual.partition("?")[0]
        assert any(re.fullmatch(known, usual) and method in methods for known, (methods, _) in USED.items()), path


def test_every_function_and_event_of_every_page_is_attacked(visitor: Any) -> None:
    asked = [asked_of(visitor, element, name) for element, name in functions(visitor)]
    assert None not in asked
    assert len(asked) == sum(map(len, contract.QUESTIONS.values()))
    said = {kind for own in contract.EVENTS.values() for kind in own.values() if kind is not None}
    assert {asked_with(visitor, event) for event in events(visitor)} == {None, *said}


def test_what_is_sent_is_the_same_of_the_same_seed_and_reaches_every_kind(visitor: Any) -> None:
    made = [[sent.a_call(rng, visitor) for _ in range(300)] for rng in (random.Random(3), random.Random(3))]
    assert made[0] == made[1]
    for begins in (
        "/gradio_api/component_server",
        "/gradio_api/run",
        "/loopviz-api",
        "/loopviz-store",
        "/loopviz-share",
    ):
        assert [path for _, path, _, _ in made[0] if path.startswith(begins)], begins
    assert [
        1 for _, path, _, headers in made[0] if path.startswith("/loopviz-store") and "ticket.mark" in headers.values()
    ]


def test_a_call_without_a_hostile_value_is_what_a_page_asks(visitor: Any) -> None:
    """Else all that is sent would be refused at the first look, and nothing behind it be tried."""
    for act, (kind, _) in contract.STORE_CALLS.items():
        if kind is not None:
            made = [sent.filled(random.Random(seed), kind) for seed in range(20)]
            assert any(all(sent.USUAL.get(name, "x") == value for name, value in one.items()) for one in made), act


@pytest.mark.parametrize("name", ["first", "ttt"])
def test_a_damaged_table_has_a_sum_that_is_right(name: str) -> None:
    """Else the reader would refuse it before it is read."""
    whole = sent.recorded(name)
    made = sent.repacked(random.Random(5), whole, in_meta=False)
    with zipfile.ZipFile(io.BytesIO(made)) as archive, zipfile.ZipFile(io.BytesIO(whole)) as before:
        sums = {n: one["sha256"] for n, one in json.loads(archive.read("meta.json"))["members"].items()}
        assert {n: hashlib.sha256(archive.read(n)).hexdigest() for n in sums} == sums
        assert [n for n in sums if archive.read(n) != before.read(n)]


@pytest.mark.parametrize("name", ["first", "ttt"])
def test_a_damaged_meta_is_whole_json_with_another_value(name: str) -> None:
    whole = sent.recorded(name)
    made = sent.repacked(random.Random(5), whole, in_meta=True)
    with zipfile.ZipFile(io.BytesIO(made)) as archive, zipfile.ZipFile(io.BytesIO(whole)) as before:
        assert json.loads(archive.read("meta.json")) != json.loads(before.read("meta.json"))


def said(status: int, text: str = "", **headers: str) -> Answer:
    return Answer(status, 0.1, text, headers)


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (said(200, "fine"), ""),
        (said(404, "no such run"), ""),
        (said(503, "the line is full"), ""),
        (said(503), "status 503"),
        (said(500, "reference 12ab"), "status 500"),
        (said(200, "root:x:0:0:root:/root:/bin/bash"), "tells 'root:x:0:'"),
        (said(422, 'File "/srv/x.py"'), "tells"),
        (Answer(200, 6.0, "late", {}), "6.0 s"),
    ],
)
def test_what_is_wrong_with_an_answer_is_seen(answer: Answer, wrong: str) -> None:
    found = calls.fault("GET", "/loopviz-share/x/trace", answer)
    assert found.startswith(wrong) if wrong else not found
