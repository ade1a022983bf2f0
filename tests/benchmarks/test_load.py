"""benchmarks/load.py: what visitors ask for is theirs alone and can be had, and figures are made of what they were told."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import load
from benchmarks.attacks import visiting
from benchmarks.loads import heavy, memory, together
from benchmarks.loads.asked import MODEL, largest_runs, own
from benchmarks.loads.ran import Ran, check, read
from loopviz.app import controls as st

VISITORS = 42


@pytest.fixture(scope="module")
def model() -> Any:
    from loopviz.model.checkpoints.load import load_checkpoint

    return load_checkpoint(MODEL).model


def snapshot(tokens: int, prompt: int, following: str | None) -> dict[str, Any]:
    rows = [[f"p{i} ", [8], ["count"], 1, None, None, 1] for i in range(tokens)]
    return {
        "kind": "snapshot",
        "total": tokens,
        "prompt_tokens": prompt,
        "tokens": rows,
        "next": following,
        "end": None,
    }


def frames(first: int, pieces: list[str], following: str | None, end: str | None = None) -> dict[str, Any]:
    rows = [[piece, [8], ["count"], 0, None, None, 1] for piece in pieces]
    return {"kind": "frames", "first": first, "last": first + len(rows), "tokens": rows, "next": following, "end": end}


DONE = {"kind": "completed", "failed": False, "text": ""}
WORDS = {"kind": "status", "text": "2 before you", "bad": False}


def asked(*options: str) -> Any:
    return load.arguments().parse_args(options)


def ran(tokens: int, first: float, end: float, text: str = "a", began: float = 0.0) -> Ran:
    return Ran(began, first, end, [(first, 1), (end, tokens)], text, "length")


# --- what is asked for -------------------------------------------------------------------------------------------------


def test_every_visitor_asks_for_something_of_their_own_that_the_model_takes(model: Any) -> None:
    asks = [own(n, 48) for n in range(VISITORS)]
    for ask in asks:
        settings, errors = st.parse(ask.values)
        assert errors == []
        assert st.check_loop(settings, model) == []
        assert dict(settings) == {**settings, **ask.values}
    names = [control.name for control in st.CONTROLS if control.name != "seed"]
    alike = {tuple(st.effective(st.parse(ask.values)[0])[name] for name in names) for ask in asks}
    assert len(alike) == VISITORS, "no two have the same settings, the seed left out"
    for name in ("loop_strategy", "loop_count", "kv_cache_mode", "virtual_attention_mode", "merge_strategy", "greedy"):
        assert len({ask.values.get(name) for ask in asks}) > 1, name
    assert len({ask.prompt for ask in asks[:30]}) == 30


def test_she_asks_for_what_the_controls_hold_at_most(model: Any) -> None:
    first, *_, last = largest_runs()
    for name in ("max_loop_count", "virtual_layer_count", "max_new_tokens"):
        assert first.values[name] == st.BY_NAME[name].high
        assert last.values[name] < first.values[name]
    for ask in largest_runs():
        settings, errors = st.parse(ask.values)
        assert errors == []
        assert st.check_loop(settings, model) == []


# --- what became of it -------------------------------------------------------------------------------------------------


def test_the_first_generated_token_is_not_the_first_of_the_prompt() -> None:
    told = [
        (10.1, WORDS),
        (10.5, snapshot(1, 3, "p1 ")),
        (11.0, frames(1, ["p1 ", "p2 "], "One")),
        (11.5, frames(3, ["One", " day"], ".")),
        (12.0, frames(5, ["."], " The", "length")),
        (12.25, DONE),
    ]
    found = read(10.0, told)
    assert (found.first, found.end, found.tokens, found.why) == (1.0, 2.25, 4, "length")
    assert found.text == "p0 p1 p2 One day. The"
    assert [found.tokens_by(when) for when in (10.9, 11.2, 11.5, 99.0)] == [0, 1, 3, 4]


def test_a_mark_of_the_end_is_no_token() -> None:
    found = read(0.0, [(1.0, snapshot(1, 1, "One")), (2.0, frames(1, ["One"], None, "eos")), (2.5, DONE)])
    assert (found.tokens, found.text, found.why) == (1, "p0 One", "eos")


def test_what_is_refused_is_no_run() -> None:
    found = read(0.0, [(0.2, {"kind": "status", "text": "loop_count=0: ...", "bad": True}), (0.3, DONE)])
    assert found.refused
    with pytest.raises(SystemExit, match="loop_count=0"):
        check(found, own(0, 8))


def test_of_one_who_asks_for_the_most_only_the_last_message_of_a_run_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visiting, "_Stream", lambda *_: None)
    visitor = heavy.Deaf(None, name="heavy")  # type: ignore[arg-type]  # it is told, and asks nothing
    for total in (1, 2):
        said = f'{{"msg":"process_generating","event_id":"e","output":{{"data":["{{\'kind\':\'frames\',\'last\':{total},\'end\':\'time\'}}"]}}}}'
        visitor.hear(said)
    assert visitor.told == []
    visitor.hear('{"msg":"process_completed","event_id":"e","success":true,"output":{}}')
    assert [said["kind"] for _, said in visitor.told] == ["frames", "completed"]
    had = heavy.Had()
    had.take("explore", [said for _, said in visitor.told])
    assert had.words() == "2 tokens; runs: time 1"


# --- the table ---------------------------------------------------------------------------------------------------------


def test_a_class_is_told_against_its_bars() -> None:
    many = [ran(40, 1.0, 2.0, "a"), ran(40, 1.0, 2.0, "b"), ran(40, 4.0, 5.0, "c")]
    alone = [ran(40, 0.1, 2.0, "a"), ran(40, 0.1, 2.0, "b"), ran(40, 0.1, 2.0, "else")]
    found = together.rows(asked("--visitors", "3"), many, alone, [0.5, 0.2, 2.0])
    assert [(row.found.split(" (")[0], row.met) for row in found] == [
        ("2 of 3 equal to the same run alone", False),
        ("1.20x", False),  # 120 tokens in 5 s, 20 a second alone
        ("1.00 s", True),
        ("4.00 s", True),
        ("2.00x", True),
        ("1.67x", True),
        ("0.50 s", True),
    ]
    assert all(row.bar for row in found)
    assert found[0].line().endswith("| all | no |")


def test_others_keep_their_share_of_one_more_visitor() -> None:
    before = [[ran(60, 0.1, 10.0)], [ran(60, 0.1, 10.0)]], 10.0
    beside = [[ran(45, 1.0, 9.0), Ran(8.0)], [ran(39, 1.0, 10.0)]], 10.0
    found = heavy.rows(asked("--seconds", "10"), before, beside, "the most", heavy.Had())
    assert (found[0].found, found[0].met) == ("12", None)
    assert (found[1].found, found[1].bar, found[1].met) == ("8: 70%", ">= 67%: 2 of 3 visitors' shares", True)
    assert (found[2].found, found[2].met) == ("65%", False)
    assert "worst 2.00 s of 3 (1 still waited)" in found[4].found


def test_memory_is_flat_within_a_twentieth_of_its_medians() -> None:
    steady = [100.0 + n % 2 for n in range(100)]
    assert memory.row("100 runs", "memory", steady).met
    assert memory.row("100 runs", "memory", [*steady[:-1], 900.0]).met, "one look is no growth"
    grown = memory.row("100 runs", "memory", [100.0 + 0.1 * n for n in range(100)])
    assert not grown.met
    assert "+10.00 MiB a hundred runs" in grown.found


def test_a_page_opens_when_what_its_document_names_is_here() -> None:
    document = """<link rel="stylesheet" href="./theme.css?v=1&amp;w=2"><script type="module" src="/loopviz/main.js"></script>
    <link rel="modulepreload" href="/loopviz/main.js"><script src="https://elsewhere.org/x.js"></script><a href="/no">"""
    assert together.named(document) == ["/theme.css?v=1&w=2", "/loopviz/main.js"]
