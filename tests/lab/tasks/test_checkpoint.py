"""A checkpoint looked over: what it is, and every kind of damage told by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from loopviz.app.controls import unheld
from loopviz.cli import main
from loopviz.lab import TASKS, Experiment, Subject
from loopviz.lab.tasks.checkpoint import CheckpointParams, beyond_controls, headline
from loopviz.model.checkpoints import load_checkpoint
from tests.conftest import make_llama, make_tokenizer
from tests.lab.small import save
from tests.lab.subject import exact_loss, exact_subject, subject

TASK = TASKS["checkpoint"]


def looked_over(thing: Subject, **change: Any) -> pd.DataFrame:
    found = Experiment(TASK, thing, CheckpointParams(**{"limit_tokens": 60, "window": 30, **change})).run()
    assert found.done == found.total == 12
    return found.frame


def row(frame: pd.DataFrame, check: str) -> dict[str, Any]:
    return frame[frame["check"] == check].iloc[0].to_dict()


def frame_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


@pytest.mark.parametrize("tied", [True, False])
def test_what_it_is_is_read_of_the_model_itself(tmp_path: Path, tied: bool) -> None:
    model = make_llama(
        tie_word_embeddings=tied, rope_parameters={"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}
    )
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    frame = looked_over(Subject.of(load_checkpoint(tmp_path, dtype=torch.bfloat16)))
    assert row(frame, "tied")["value"] == ("yes" if tied else "no")
    assert row(frame, "dtype")["value"] == "bfloat16"
    assert row(frame, "rope")["value"] == "linear, theta 5,000, factor 2; context 128"
    assert row(frame, "sizes")["value"].startswith("3 layers of 32, 4 query and 2 key/value heads of 8; ")
    assert row(frame, "sizes")["number"] == sum(p.numel() for p in model.parameters())
    assert "chat template" in row(frame, "tokenizer")["value"]
    assert row(frame, "loop")["value"] == ""
    assert not (frame["verdict"] == "problem").any()


def test_the_sanity_run_is_the_models_perplexity_plain_and_looped() -> None:
    tiny = exact_subject(loop_layers=(1, 2), loop_count=3)
    text = "Once upon a time there was a small dog."
    frame = looked_over(tiny, text=text)
    ids = torch.tensor([tiny.tokenizer(text)["input_ids"]])
    assert ids.shape[1] <= 30
    for name, view in (("plain", tiny.view(None)), ("looped", tiny.view({}))):
        assert row(frame, name)["number"] == pytest.approx(math.exp(exact_loss(view, ids)), rel=1e-9)
    assert row(frame, "plain")["number"] != row(frame, "looped")["number"]
    assert row(frame, "cache")["number"] < 1e-9


def test_a_plain_model_is_looped_in_its_middle() -> None:
    params = CheckpointParams()
    view = params.looped(subject(loop_layers=None))
    (block,) = view.config.loop_blocks()
    assert (block.count, 0 <= block.a <= block.b < view.config.num_hidden_layers) == (2, True)


def test_a_weight_that_is_no_number_is_named() -> None:
    broken = subject()
    with torch.no_grad():
        broken.model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    frame = looked_over(broken)
    assert row(frame, "finite")["verdict"] == "problem"
    assert row(frame, "finite")["value"] == "model.layers.0.mlp.up_proj.weight"
    assert row(frame, "plain")["verdict"] == "problem"
    assert "model.layers.0.mlp.up_proj.weight" in headline(frame_rows(frame), "en")


def test_what_is_wrong_is_not_told_as_what_is_only_to_be_known() -> None:
    """A loss that is no number was told as “it hardly knows this text”, token ids past the table as “cannot hold every character”."""
    broken = subject()
    with torch.no_grad():
        broken.model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    rows = frame_rows(looked_over(broken))
    assert "its loss on the text is no number (plain)" in headline(rows, "en")
    assert "hardly knows" not in headline(rows, "en")
    far = [{**one, "verdict": "problem"} if one["check"] == "tokenizer" else one for one in rows]
    assert "the tokenizer gives tokens that the model has no row for" in headline(far, "en")
    assert "没有对应的行" in headline(far, "zh")


def test_a_text_too_short_to_try_is_not_told_as_one_the_model_does_not_know() -> None:
    found = Experiment(TASK, subject(), CheckpointParams(text="a", limit_tokens=1, window=30)).run()
    said = headline(found.rows, "en")
    assert said == "The checkpoint loads; the text has fewer than two tokens for its tokenizer, too few to try it on."
    assert "两个词元" in headline(found.rows, "zh")


def test_a_model_that_knows_nothing_of_the_text_is_noted() -> None:
    dull = subject()
    with torch.no_grad():
        dull.model.lm_head.weight.zero_()
    frame = looked_over(dull)
    assert row(frame, "plain")["number"] == pytest.approx(dull.model.config.vocab_size, rel=1e-3)
    assert row(frame, "plain")["verdict"] == "note"


def test_a_cache_that_says_something_else_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from loopviz.lab.tasks import checkpoint

    true = checkpoint.through_cache
    monkeypatch.setattr(checkpoint, "through_cache", lambda *given: ((t, 2 * said) for t, said in true(*given)))
    frame = looked_over(subject())
    assert row(frame, "cache")["verdict"] == "problem"
    assert "one by one" in headline(frame_rows(frame), "en")


@pytest.mark.parametrize(
    "loop",
    [
        {"loop_layers": None},
        {"loop_layers": (1, 2), "loop_count": 3},
        {"loop_layers": [(0, 0), (2, 3)]},
        {"loop_layers": (1, 2), "loop_count": 500, "max_loop_count": 500, "virtual_layer_count": 2},
        {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 400},
        {
            "loop_layers": (1, 2),
            "loop_strategy": "dynamic_stop",
            "max_loop_count": 900,
            "min_loop_count": 1,
            "virtual_layer_count": 1,
        },
    ],
)
def test_what_the_controls_cannot_hold_is_what_the_page_says(loop: dict[str, Any]) -> None:
    config = subject().view(loop).config
    said = beyond_controls(config)
    assert said == (unheld(config) if config.loop_blocks() else [])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_it_is_told_in_words(lang: str) -> None:
    frame = looked_over(subject())
    said = headline(frame_rows(frame), lang)
    assert {"en": "computes as it should", "zh": "计算正常"}[lang] in said or {"en": "to be known", "zh": "需知道"}[
        lang
    ] in said
    assert f"{row(frame, 'looped')['number']:.4g}" in said
    assert headline(frame_rows(frame.head(4)), lang) in ("The check was not finished.", "检查没有做完。")


def test_it_is_a_command_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = save(tmp_path / "tiny", loop_count=2)
    assert main.main(["eval", "checkpoint", "--model", model, "--limit-tokens", "40", "--window", "20"]) == 0
    out = capfd.readouterr().out
    assert "sizes" in out
    assert "looped" in out


def test_a_key_that_asks_for_what_is_not_computed_is_told_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Path(save(tmp_path / "tiny"))
    config = model / "config.json"
    config.write_text(config.read_text().replace("{", '{"sliding_window": 16,', 1))
    assert main.main(["eval", "checkpoint", "--model", str(model)]) == 2
    assert "sliding_window=16" in capfd.readouterr().err
