"""Before beside after: a model and an adapter on it, by their folders, as two configurations of one comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopviz.app import controls as st
from loopviz.app.compare.service import Comparisons
from loopviz.app.controls.link_word import PageState, encode
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.sessions.models import ModelRoom
from loopviz.lab import Subject
from loopviz.lab.tasks.compare import CompareParams, Comparison
from loopviz.model.checkpoints import load_checkpoint, load_model
from loopviz.model.checkpoints.adapter import LOOP, fingerprint
from tests.app.compare.test_service import asked, put_together, said

pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

LOOPS = {"loop_layers": [1, 2], "loop_count": 2, "virtual_attention_mode": "serial", "virtual_layer_count": 2}
PROMPT, AFTER = "Once upon", " a time there was"


@pytest.fixture
def folders(llama_folder: Callable[..., Path], tmp_path: Path) -> tuple[str, str]:
    """A stock Llama and an adapter on it with a loop, as `teach` writes it."""
    from tests.model.checkpoints.test_adapter import stirred

    base, folder = llama_folder(), tmp_path / "my-loop"
    wrapped = stirred(load_model(base, **LOOPS), target_modules=["q_proj", "v_proj"], layers_to_transform=[1, 2],
                      layers_pattern="layers")  # fmt: skip
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    on = {"name": str(base), "layers": [1, 2], "sha256": fingerprint(load_model(base), (1, 2))}
    (folder / LOOP).write_text(json.dumps({"version": 1, "loop": LOOPS, "base": on}), "utf-8")
    return str(base), str(folder)


def alone(folder: str) -> tuple[str, float]:
    """What a model writes, and its perplexity, compared with nothing."""
    params = CompareParams(PROMPT, AFTER, names=("one",), loops=({},), max_new_tokens=5)
    comparison = Comparison(Subject.of(load_checkpoint(folder)), params)
    [row] = [event.row for event in comparison.events() if event.row is not None]
    return "".join(comparison.results[0].pieces), row["perplexity"]


def test_a_folder_that_a_link_named_is_opened_when_the_visitor_agrees(folders: tuple[str, str]) -> None:
    base, adapter = folders
    comparisons = Comparisons(Service(ModelRoom(base), Registry()), every=0)
    request = asked(None, model=base)
    request["cards"].append({"name": "after", "plain": False, "values": {}, "model": adapter, "linked": True})
    card = json.loads(comparisons.check(json.dumps(request)))["cards"][1]
    assert (card["state"], card["refused"]) == ("ask", None)
    request["cards"][1]["linked"] = False
    assert json.loads(comparisons.check(json.dumps(request)))["cards"][1]["state"] != "ask"
    comparisons.room.get(adapter)


def test_each_writes_and_scores_as_it_does_alone(folders: tuple[str, str]) -> None:
    base, adapter = folders
    comparisons = Comparisons(Service(ModelRoom(base), Registry()), every=0)
    for name in folders:
        comparisons.room.get(name)
    word, _ = encode(PageState({**st.defaults(), "model": base}, PROMPT, beside=adapter))
    opened = json.loads(comparisons.opening(json.dumps({"word": word, "lang": "en"})))
    assert (opened["values"]["model"], opened["prompt"], opened["beside"], opened["said"]) == (
        base,
        PROMPT,
        adapter,
        [],
    )

    card: dict[str, Any] = {"name": "after", "plain": False, "values": {}, "model": opened["beside"]}
    request = asked(None, model=base, continuation=AFTER, prompt=PROMPT)
    request["cards"].append(card)
    page = put_together(said(comparisons.run(request, "me")))
    found = [("".join(one["pieces"]), one["row"]["perplexity"]) for one in (page["cards"]["0"], page["cards"]["1"])]
    for (text, perplexity), folder in zip(found, folders, strict=True):
        assert (text, perplexity) == (alone(folder)[0], pytest.approx(alone(folder)[1], rel=1e-4))
    assert found[0][1] != pytest.approx(found[1][1], rel=1e-2), "it has changed something"
    assert [page["cards"][place]["row"]["loops_mean"] for place in "01"] == [1, 2]
