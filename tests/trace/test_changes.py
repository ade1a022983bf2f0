"""What held where, in a run whose loop was changed."""

from __future__ import annotations

import pytest

from loopviz.trace import Trace, as_of, blocks_at, changed_at, changes_of
from loopviz.trace.file import dumps, loads
from tests.trace.synthetic import change_loop, make_meta, random_frames


def changed() -> dict:
    meta = make_meta(max_steps=4)
    change_loop(meta, 3, count=8, max_steps=8)
    change_loop(meta, 6, count=2, max_steps=2, damping=0.5)
    return meta


def test_each_token_has_the_settings_it_was_read_under() -> None:
    meta = changed()
    assert [blocks_at(meta, t)[0]["count"] for t in range(8)] == [4, 4, 4, 8, 8, 8, 2, 2]
    assert [t for t in range(8) if changed_at(meta, t)] == [3, 6]
    assert len(changes_of(meta)) == 2
    assert [change["index"] for change in changes_of(meta, 6)] == [3]


def test_a_beginning_of_the_run_knows_nothing_of_what_comes() -> None:
    meta = changed()
    assert as_of(meta, 0) is meta
    assert as_of(meta, 3) is meta
    assert as_of(meta, 4)["blocks"][0]["max_steps"] == 8
    assert as_of(meta, 3)["blocks"][0]["max_steps"] == 4


def test_there_is_room_for_all_tokens_and_the_settings_of_one() -> None:
    meta = changed()
    newest, early, coming = as_of(meta, 8)["blocks"][0], as_of(meta, 8, 1)["blocks"][0], as_of(meta, 8, 20)["blocks"][0]
    assert (newest["max_steps"], newest["count"], newest["damping"]) == (8, 2, 0.5)
    assert (early["max_steps"], early["count"], early["damping"]) == (8, 4, 1.0)
    assert coming == newest
    assert meta["blocks"][0]["max_steps"] == 4, "the meta stays what the run began with"


def test_a_file_keeps_the_changes_and_a_run_without_any_is_as_before() -> None:
    for meta in (changed(), make_meta()):
        trace = Trace(meta, random_frames(0, meta, 8))
        assert loads(dumps(trace)) == trace
        assert ("changes" in loads(dumps(trace)).meta) == ("changes" in meta)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"index": 3}, "changes\\[2\\].index: 3 where"),
        ({"index": -1}, "index"),
        ({"index": 9, "blocks": []}, "layers, kv_mode, slots"),
        ({"index": 9, "loop": {"loop_count": 2**70}}, "too large"),
        ({"index": 9, "later": 1}, "unknown keys"),
    ],
    ids=str,
)
def test_changes_from_a_stranger_are_checked(change: dict, words: str) -> None:
    meta = changed()
    trace = Trace(meta, random_frames(0, meta, 8))
    meta["changes"].append({"index": 9, "loop": {}, "blocks": meta["changes"][-1]["blocks"], **change})
    with pytest.raises(ValueError, match=words):
        loads(dumps(trace))


def test_another_layout_and_impossible_steps_are_refused() -> None:
    for fields, words in (({"slots": 3}, "slots"), ({"max_steps": 10**6}, "max_steps"), ({"layers": [0, 1]}, "layers")):
        meta = make_meta()
        frames = random_frames(0, meta, 4)
        change_loop(meta, 2, **fields)
        with pytest.raises(ValueError, match=words):
            loads(dumps(Trace(meta, frames)))
