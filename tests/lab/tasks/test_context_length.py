"""Perplexity by context length against one direct pass a window; models side by side; what is refused, and said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.checks import FieldError
from loopviz.engine.local import LocalEngine
from loopviz.lab import TASKS, Experiment, Subject, repeat
from loopviz.lab.fellows import TTTSubject, check_kind, fellow, load_subject, shape_beside
from loopviz.lab.measure import subject_of
from loopviz.lab.tasks.context_length import ContextParams, headline, plot, summary
from loopviz.model import placing
from loopviz.model.checkpoints import CheckpointError
from loopviz.model.precision import quantise
from loopviz.paths import ASSETS
from loopviz.ttt import TTTCache
from tests.engine import tiny, tiny_ttt
from tests.lab.subject import TEXT, subject

TASK = TASKS["context_length"]
STORY = (ASSETS / "texts" / "little-stories.txt").read_text(encoding="utf-8")


def learning(seed: int = 0, **fields: Any) -> TTTSubject:
    return TTTSubject(tiny_ttt.model(seed, **fields), tiny.tokenizer(), "tiny-ttt", "made here")


def beside(**loop: Any) -> Subject:
    """A looped model with a TTT model and a plain one beside it."""
    found = subject(**loop)
    found.beside.update({"tiny-ttt": learning(), "plain": subject(1, loop_layers=None)})
    return found


@torch.no_grad()
def direct(model: Any, ids: list[int], length: int) -> list[list[float]]:
    """Losses of every window, one pass each, by the model's own logits."""
    found = []
    for start in range(0, (len(ids) - 1) // length * length, length):
        logits = model(torch.tensor([ids[start : start + length]]), use_cache=False).logits[0].double().log_softmax(-1)
        found.append([-float(logits[t, token]) for t, token in enumerate(ids[start + 1 : start + length + 1])])
    return found


@pytest.mark.parametrize("loop", [{}, {"loop_layers": (1, 2), "loop_count": 3}])
def test_every_stretch_and_context_is_the_mean_of_direct_passes(loop: dict[str, Any]) -> None:
    main = beside(**loop)
    params = ContextParams(text=TEXT, tokens=90, lengths=(20, 40), beside=("tiny-ttt", "plain", "tiny"))
    rows = Experiment(TASK, main, params).run().rows
    ids = main.tokenizer(TEXT)["input_ids"][:91]
    spans = {20: [(0, 15), (16, 19)], 40: [(0, 15), (16, 31), (32, 39)]}
    assert [row["model"] for row in rows] == ["tiny"] * 5 + ["tiny-ttt"] * 5 + ["plain"] * 5, "each once"
    for name, model in (("tiny", main.model), *((n, each.model) for n, each in main.beside.items())):
        for length, expected in spans.items():
            own = [row for row in rows if (row["model"], row["context"]) == (name, length)]
            losses = direct(model, ids, length)
            assert [(row["first"], row["last"]) for row in own] == expected
            for row in own:
                here = [loss for window in losses for loss in window[row["first"] : row["last"] + 1]]
                assert row["tokens"] == len(here)
                assert row["nats"] == pytest.approx(sum(here) / len(here), abs=1e-5)
                assert row["perplexity"] == pytest.approx(math.exp(row["nats"]), rel=1e-12)
                whole = [loss for window in losses for loss in window]
                assert row["context_nats"] == pytest.approx(sum(whole) / len(whole), abs=1e-5)


def test_a_ttt_model_is_measured_by_itself_and_what_each_holds_is_told() -> None:
    main = learning()
    rows = Experiment(TASK, main, ContextParams(text=TEXT, lengths=(8, 16))).run().rows
    cache = TTTCache(main.model)
    main.model(torch.tensor([[1, 2, 3]]), past_key_values=cache, use_cache=True)
    assert {row["memory_bytes"] for row in rows} == {cache.nbytes}
    assert {row["memory"] for row in rows} == {"state"}
    kept = Experiment(TASK, beside(), ContextParams(text=TEXT, lengths=(8, 16))).run().rows
    by_context = {row["context"]: row["memory_bytes"] for row in kept}
    assert by_context[16] == 2 * by_context[8] > 0


def test_past_what_it_was_made_for_is_marked_and_drawn() -> None:
    main = beside()
    main.model.config.max_position_embeddings = 16
    experiment = Experiment(TASK, main, ContextParams(text=TEXT, lengths=(16, 40), beside=("tiny-ttt",))).run()
    marked = [(row["context"], row["first"], row["beyond"]) for row in experiment.rows if row["model"] == "tiny"]
    assert marked == [(16, 0, False), (40, 0, False), (40, 16, True), (40, 32, True)]
    for lang, made in (("en", "made for 16"), ("zh", "设计长度 16")):
        figure = plot(experiment.frame, lang)
        assert made in [note.text for note in figure.layout.annotations]
        shown = [trace.name for trace in figure.data if trace.showlegend is not False]
        assert len(shown) == len(set(shown)) == 3
        assert {"tiny", "tiny-ttt"} < set(shown), "a line a model, and the marks of all once"
        assert made in headline(experiment.rows, lang)
    assert list(figure.data[1].x) == [16, 40]
    assert summary(experiment.frame)["context"].tolist() == [16, 40, 16, 40]
    assert headline([], "en") == ""
    assert plot(experiment.frame.head(0), "en").data == ()


def test_what_cannot_be_measured_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FieldError, match=r"lengths=\(500,\): the text has .* tokens"):
        Experiment(TASK, subject(), ContextParams(text=TEXT, lengths=(500,)))
    rows = Experiment(TASK, subject(), ContextParams(text=TEXT, lengths=(20, 5000))).run().rows
    assert {row["context"] for row in rows} == {20}, "a length that the text is too short for is left out"
    with pytest.raises(FieldError, match="lengths"):
        ContextParams(text=TEXT, lengths=(20, 10))
    with pytest.raises(FieldError, match=r"beside.*two are the same"):
        ContextParams(text=TEXT, beside=("stories-ttt", "stories-ttt"))
    with pytest.raises(FieldError, match="beside='stories-ttt': reads other tokens than tiny"):
        Experiment(TASK, subject(), ContextParams(text=TEXT, lengths=(20,), beside=("stories-ttt",))).run()
    with pytest.raises(ValueError, match="no-such"):
        fellow(subject(), "no-such", "beside")
    with monkeypatch.context() as patch:
        patch.setattr(placing, "free_bytes", lambda device: 1000)
        with pytest.raises(
            CheckpointError, match=r"device='cpu': model 'stories-ttt' needs [\d,]+ bytes there, and 875 may"
        ):
            fellow(subject(), "stories-ttt", "beside")
        with pytest.raises(CheckpointError, match=r"the model needs [\d,]+ bytes there for all that is no layer"):
            fellow(subject(), "stories-loop", "beside")
    coarse = subject()
    quantise(coarse.model)
    with pytest.raises(FieldError, match="beside='stories-ttt': a TTT model, whose layers are not held in int8"):
        fellow(coarse, "stories-ttt", "beside")
    strict = subject_of(LocalEngine("tiny", subject().model, subject().tokenizer))
    with pytest.raises(
        FieldError, match=r"beside='/etc': not one of the models that may be named here; there are .*stories-ttt"
    ):
        fellow(strict, "/etc", "beside")
    with pytest.raises(FieldError, match=r"model='tiny-ttt': a TTT model, and this measures loops.*context_length"):
        check_kind(TASKS["perplexity"], learning(), TASKS.values())
    check_kind(TASK, learning(), TASKS.values())
    with pytest.raises(FieldError, match="loop_count"):
        learning().view({"loop_count": 3})
    with pytest.raises(FieldError, match="loop=null"):
        learning().view(None)


def test_the_models_that_come_along_keep_their_loss_far_past_their_training_or_do_not() -> None:
    """What the page opens on: within 256 tokens loops are best, at 1,024 only the TTT model is as good as before."""
    main = load_subject("stories-loop")
    params = ContextParams(text=STORY, lengths=(256, 1024), beside=("stories-ttt", "stories-attention"))
    experiment = Experiment(TASK, main, params).run()
    found = {(row["model"], row["context"]): row["context_perplexity"] for row in experiment.rows}
    assert found["stories-loop", 256] < found["stories-attention", 256] < found["stories-ttt", 256]
    assert found["stories-ttt", 1024] < found["stories-ttt", 256]
    assert min(found["stories-loop", 1024], found["stories-attention", 1024]) > 1.3 * found["stories-ttt", 1024]
    assert headline(experiment.rows, "en").startswith("Perplexity at 1,024 tokens: stories-ttt ")
    manifest = experiment.manifest
    assert manifest["beside"].keys() == {"stories-ttt", "stories-attention"}
    assert repeat(manifest).total == experiment.total
    manifest["beside"]["stories-ttt"] = "0"
    with pytest.raises(ValueError, match="model 'stories-ttt': its weights"):
        repeat({**manifest, "params": {**manifest["params"]}})
    assert shape_beside(subject(), "stories-ttt") == main.beside["stories-ttt"].shape()
    assert shape_beside(subject(), "stories-attention") == main.beside["stories-attention"].shape()
    alone = ContextParams(text=STORY, lengths=(256, 1024))
    assert TASK.work(main, params).layer_tokens > TASK.work(main, alone).layer_tokens > 0
