"""The manual's experiment against what is computed here by other means: token by token, by transformers' own Llama, by count."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from loopviz.app.lab.form import describe, params_of
from loopviz.lab import TASKS, Experiment, Subject, repeat
from loopviz.lab.manual.table import counts_of
from loopviz.lab.progress import drained
from loopviz.lab.reading.intervals import mean_interval
from loopviz.lab.reading.text_scores import score, score_all
from loopviz.lab.tasks.manual_experiment import (
    BASELINE,
    CONFIGURATIONS,
    MANUAL_FIELDS,
    ManualParams,
    counted_text,
    giving_way,
    middle_third,
    plot,
    stories,
    writing,
)
from loopviz.lab.tasks.quality import QualityParams, write
from loopviz.model import LoopCache, LoopLlamaConfig
from loopviz.model.checkpoints.load import load_checkpoint
from tests.lab.subject import subject

TASK = TASKS["experiment"]
ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [
    "Once upon a time there was a small dog. The dog saw the small dog, and the dog ran and ran.",
    "The dog was small. Once there was a time when the dog saw a 🐕 and a small 🙂 upon a time.",
    "从前有一只小狗。小狗 saw the small dog, and once upon a time there was a dog.",
]
TEXT = "\n<|endoftext|>\n".join(DOCUMENTS)
SMALL: dict[str, Any] = {
    "text": TEXT, "limit_tokens": 60, "window": 12, "overlap": 4, "batch": 3, "prompts": 3, "prompt_tokens": 7,
    "new_tokens": 9,
}  # fmt: skip
STOPS = {"loop_strategy": "dynamic_stop", "convergence_criterion": "cosine", "cosine_threshold": 0.9}
LOOPS = (*CONFIGURATIONS, {**STOPS, "min_loop_count": 1, "max_loop_count": 6})


def looped(**loop: Any) -> Subject:
    """A model whose settings are nobody's default; damped, so that it settles."""
    own = {"loop_layers": (1, 2), "loop_damping": 0.5, "loop_count": 8, "virtual_layer_count": 8, "max_loop_count": 20}
    return subject(**{**own, **loop})


@pytest.fixture(scope="module")
def measured() -> tuple[Subject, ManualParams, list[dict[str, Any]]]:
    thing, params = looped(loop_injection="add", loop_norm=True), ManualParams(**SMALL, loops=LOOPS)
    experiment = Experiment(TASK, thing, params).run()
    assert experiment.done == experiment.total == 5
    return thing, params, experiment.rows


# --- the manual, as written -------------------------------------------------------------------------------------------


def test_the_configurations_and_defaults_are_the_manual_s() -> None:
    assert CONFIGURATIONS == (
        {"loop_count": 3, "kv_cache_mode": "virtual_layers"},
        {"loop_count": 5, "kv_cache_mode": "merge_strategy"},
        {"loop_strategy": "dynamic_stop", "cosine_threshold": 0.95},
    )
    written = {
        "loop_strategy": "fixed_count", "loop_count": 3, "max_loop_count": 10, "min_loop_count": 5,
        "cosine_threshold": 0.95, "kl_threshold": 0.01, "kv_cache_mode": "virtual_layers", "virtual_layer_count": 5,
        "virtual_attention_mode": "parallel", "merge_strategy": "ema", "merge_ema_alpha": 0.7,
    }  # fmt: skip
    assert {name: getattr(LoopLlamaConfig, name) for name in MANUAL_FIELDS} == {
        **written,
        "convergence_criterion": "either",
    }


@pytest.mark.parametrize("name", ["stories-loop", "stories-noinject", "arrows-loop"])
def test_on_a_bundled_model_they_run_as_written_and_nothing_gives_way(name: str) -> None:
    thing = Subject.of(load_checkpoint(name))
    baseline, *setups = ManualParams(prompts=1).setups(thing)
    assert baseline.view.config.loop_blocks() == []
    assert [setup.asked for setup in setups] == list(CONFIGURATIONS)
    for setup in setups:
        assert setup.gave_way == {}
        config = setup.view.config
        for setting in MANUAL_FIELDS:
            assert getattr(config, setting) == setup.asked.get(setting, getattr(LoopLlamaConfig, setting)), setting
        for own in ("loop_layers", "loop_injection", "loop_norm", "loop_damping"):
            assert getattr(config, own) == getattr(thing.model.config, own)
            assert (own in setup.own) == (getattr(config, own) != getattr(LoopLlamaConfig, own))


def test_every_row_says_what_it_is(measured: Any) -> None:
    _, _, rows = measured
    assert [row["configuration"] for row in rows] == [
        "baseline",
        "loop_count=3, virtual_layers",
        "loop_count=5, merge_strategy",
        "dynamic_stop, cosine_threshold=0.95",
        "dynamic_stop, cosine, cosine_threshold=0.9, min_loop_count=1, max_loop_count=6",
    ]
    assert rows[0]["asked"] == "loop_layers=None"
    assert rows[0]["gave_way"] == "; ".join(
        ["loop_layers: [1, 2] → –", "loop_damping: 0.5 → –", "loop_injection: add → –", "loop_norm: True → –"]
    )
    assert rows[0]["own"] is None
    for row in rows[1:]:
        assert row["own"] == "loop_layers=[1, 2]; loop_damping=0.5; loop_injection=add; loop_norm=True"
    assert [row["gave_way"] for row in rows[1:]] == [None, None, None, "virtual_layer_count: 5 → 1"]


# --- oracles ----------------------------------------------------------------------------------------------------------


@dataclass
class Alone:
    """What a configuration gives when every window is read alone, one token a pass, with a float64 softmax."""

    nats: list[list[float]] = field(default_factory=list)  # by window, of the predictions that count
    steps: Counter[int] = field(default_factory=Counter)  # as the cache itself has them
    reasons: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def alone(measured: Any) -> list[Alone]:
    thing, params, _ = measured
    windows, found = params.windows(thing), []
    for setup in params.setups(thing):
        found.append(Alone())
        for ids, length, counted in zip(windows.ids, windows.lengths.tolist(), windows.counted, strict=True):
            cache = LoopCache(setup.view.config)
            found[-1].nats.append([])
            for t in range(length - 1):
                with torch.no_grad():
                    logits = setup.view(ids[None, t : t + 1], past_key_values=cache).logits[0, -1].double()
                if counted[t]:
                    found[-1].nats[-1].append(float(logits.logsumexp(0) - logits[ids[t + 1]]))
                    found[-1].steps.update([int(cache.loop_steps[0])] if cache.loop_steps else [1])
                    found[-1].reasons.update([cache.stop_reasons[0][0]] if cache.stop_reasons else ["plain"])
    return found


def test_perplexity_is_that_of_an_independent_reading_token_by_token(measured: Any, alone: list[Alone]) -> None:
    _, _, rows = measured
    for found, row in zip(alone, rows, strict=True):
        nats = [value for window in found.nats for value in window]
        assert row["tokens"] == len(nats) == 60
        assert row["windows"] == len(found.nats) >= 6
        assert row["nats"] == pytest.approx(np.mean(nats), abs=2e-4)  # float32, weights far from their usual size
        assert row["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=2e-4)
        assert row["low"] < row["perplexity"] < row["high"]


def test_the_distribution_of_loops_is_the_cache_s_own(measured: Any, alone: list[Alone]) -> None:
    _, _, rows = measured
    for found, row in zip(alone, rows, strict=True):
        assert counts_of(row["loops"]) == {str(n): times for n, times in found.steps.items()}
        assert counts_of(row["reasons"]) == found.reasons
        assert row["mean_loops"] == pytest.approx(sum(n * times for n, times in found.steps.items()) / 60)
    assert len(counts_of(rows[4]["loops"])) > 2, "all alike: the test says little"


def test_the_difference_is_paired_window_by_window(measured: Any, alone: list[Alone]) -> None:
    _, params, rows = measured
    sums = np.array([[sum(window) for window in found.nats] for found in alone])
    counts = np.array([len(window) for window in alone[0].nats])
    for own, row in zip(sums[1:], rows[1:], strict=True):
        assert row["difference"] == pytest.approx((own - sums[0]).sum() / counts.sum(), abs=4e-4)
        low, high = mean_interval(own - sums[0], counts, params.draws, params.seed)
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((low, high), abs=1e-3)
        assert low < row["difference"] < high
    assert rows[0]["difference"] is rows[0]["difference_low"] is None


def test_the_baseline_is_transformers_own_llama_on_the_same_weights(measured: Any) -> None:
    thing, params, rows = measured
    config = thing.model.config
    same = (name for name in LlamaConfig().to_dict() if name != "model_type" and hasattr(config, name))
    llama = LlamaForCausalLM(LlamaConfig(**{name: getattr(config, name) for name in same})).eval()
    missing, left_out = llama.load_state_dict(thing.model.state_dict(), strict=False)
    assert missing == []
    assert all("loop_norms" in name for name in left_out)
    windows, nats = params.windows(thing), []
    for ids, length, counted in zip(windows.ids, windows.lengths.tolist(), windows.counted, strict=True):
        cache = DynamicCache(config=llama.config)
        for t in range(length - 1):
            with torch.no_grad():
                logits = llama(ids[None, t : t + 1], past_key_values=cache).logits[0, -1].double()
            if counted[t]:
                nats.append(float(logits.logsumexp(0) - logits[ids[t + 1]]))
    assert rows[0]["nats"] == pytest.approx(np.mean(nats), abs=2e-4)
    texts, references = [], []
    for exercise in params.exercises(thing):
        ids = torch.tensor([exercise.ids])
        with torch.no_grad():
            out = llama.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)
        texts.append(thing.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
        references.append(exercise.reference)
    scores, signature = score_all(texts, references)
    for name in ("bleu", "rouge_1", "rouge_2", "rouge_l", "chrf"):
        assert rows[0][name] == pytest.approx(getattr(scores, name))
    assert rows[0]["signature"] == signature
    assert (rows[0]["mean_loops"], rows[0]["loops"], rows[0]["reasons"]) == (1, "1: 60", "plain: 60")
    assert rows[0]["difference"] is None


def test_kv_bytes_are_the_cache_s_occupancy(measured: Any) -> None:
    thing, params, rows = measured
    ids = params.windows(thing).ids[:1, :11]  # the first tokens of a window of 12
    for setup, row in zip(params.setups(thing), rows, strict=True):
        cache = LoopCache(setup.view.config)
        with torch.no_grad():
            for t in range(11):
                setup.view(ids[:, t : t + 1], past_key_values=cache)
        held = cache.occupancy()
        assert row["kv_bytes_per_token"] == held.bytes_used / 11
        assert row["kv_bytes"] == row["kv_bytes_per_token"] * 12
        assert row["peak_bytes"] > row["kv_bytes"]
    by_name = {row["configuration"]: row["kv_bytes_per_token"] for row in rows}
    assert by_name["loop_count=5, merge_strategy"] == by_name[BASELINE]
    assert by_name["loop_count=3, virtual_layers"] == by_name[BASELINE] * (3 + 2 * 3) / 5  # of 5 layers 2 loop


@pytest.mark.parametrize("loop", [None, *LOOPS])
@pytest.mark.parametrize("ends", [False, True])
def test_what_is_written_is_what_generate_writes_at_once(loop: dict[str, Any] | None, ends: bool) -> None:
    view = looped().view(loop if loop is None else {"virtual_layer_count": 1, **loop})
    prompts = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6], [8, 8], [11, 3, 9, 20]]
    params = QualityParams(text="-", new_tokens=11)
    if ends:  # what one of them writes third
        view.generation_config.eos_token_id = write(view, prompts, params)[0][2]
    whole = write(view, prompts, params)
    assert drained(writing(view, prompts, 11, batch=2)).ids == whole
    assert len(set(map(len, whole))) > ends


# --- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        ({}, {}),
        ({"loop_strategy": "dynamic_stop"}, {}),
        ({"loop_strategy": "dynamic_stop", "min_loop_count": 2}, {"virtual_layer_count": 2}),
        ({"loop_strategy": "dynamic_stop", "virtual_layer_count": 8}, {"min_loop_count": 8}),
        ({"loop_strategy": "dynamic_stop", "min_loop_count": 12}, {"max_loop_count": 12}),
        ({"loop_strategy": "dynamic_stop", "max_loop_count": 3}, {"min_loop_count": 3, "virtual_layer_count": 3}),
        ({"loop_strategy": "dynamic_stop", "max_loop_count": 3, "kv_cache_mode": "merge_strategy"}, {}),
        ({"loop_strategy": "dynamic_stop", "min_loop_count": 9, "virtual_layer_count": 9, "max_loop_count": 9}, {}),
        ({"loop_count": 12}, {"max_loop_count": 12}),
        ({"max_loop_count": 2}, {"loop_count": 2}),
        ({"virtual_layer_count": 9}, {}),
    ],
)
def test_what_nobody_asked_for_gives_way_to_what_was_asked_for(asked: dict, changes: dict) -> None:
    fields = {**{name: getattr(LoopLlamaConfig, name) for name in MANUAL_FIELDS}, **asked}
    assert giving_way(fields, asked) == changes
    looped().view({**fields, **changes})  # and the model takes it
    if changes:
        [setup] = ManualParams(**SMALL, loops=(asked,)).setups(looped())[1:]
        assert {name: after for name, (_, after) in setup.gave_way.items()} == changes


def test_a_configuration_that_contradicts_itself_is_refused_with_its_name() -> None:
    asked = {"loop_strategy": "dynamic_stop", "virtual_layer_count": 8, "min_loop_count": 5}
    with pytest.raises(ValueError, match=r"mine: virtual_layer_count=8: must be <= min_loop_count=5"):
        TASK.cells(looped(), ManualParams(**SMALL, loops=(asked,), names=("mine",)))
    with pytest.raises(ValueError, match=r"speed=3: speed=3: not a loop field"):
        TASK.cells(looped(), ManualParams(**SMALL, loops=({"speed": 3},)))


def test_the_model_s_own_defaults_can_be_asked_for() -> None:
    params = ManualParams(**SMALL, defaults="model", loops=({}, {"loop_strategy": "dynamic_stop"}))
    _, own, stops = params.setups(looped())
    [block], [stopping] = own.view.config.loop_blocks(), stops.view.config.loop_blocks()
    assert (block.count, block.slots, block.max_count) == (8, 8, 20)
    assert (stopping.slots, stopping.floor) == (5, 5)
    assert stops.gave_way == {"virtual_layer_count": (8, 5)}


def test_a_model_without_a_loop_loops_in_its_middle_third_as_the_manual_s_4_to_7_of_12() -> None:
    assert middle_third(12) == (4, 7)
    assert middle_third(30) == (10, 19)
    assert [middle_third(n) for n in (1, 2, 3, 5)] == [(0, 0), (0, 0), (1, 1), (1, 2)]
    thing = subject()
    assert thing.model.config.loop_layers is None
    baseline, *setups = ManualParams(**SMALL).setups(thing)
    assert baseline.gave_way == {}
    for setup in setups:
        assert setup.view.config.loop_layers == (1, 2)
        assert setup.gave_way == {"loop_layers": (None, (1, 2))}
    chosen = ManualParams(**SMALL, loop_layers="0-1,3").setups(thing)[1]
    assert chosen.view.config.loop_layers == [(0, 1), (3, 3)]
    asked = ManualParams(**SMALL, loops=({"loop_layers": [0, 0]},)).setups(thing)[1]
    assert asked.view.config.loop_layers == (0, 0)
    assert asked.gave_way == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loops": ()}, r"loops=\(\)"),
        ({"names": ("a",)}, "as many names"),
        ({"names": ("a", "a", "b")}, "'a' is there twice"),
        ({"loops": ({"loop_count": 2}, {"loop_count": 2})}, "'loop_count=2' is there twice"),
        ({"names": ("baseline", "a", "b")}, "'baseline' is there twice"),
        ({"loop_layers": "middle"}, "loop_layers='middle'"),
        ({"defaults": "own"}, "defaults='own'"),
        ({"tokenize": "intl"}, "tokenize='intl'"),
        ({"prompts": 0}, "prompts=0"),
        ({"file": "x"}, "both are given"),
    ],
)
def test_wrong_parameters_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ManualParams(**{**SMALL, **wrong})


def test_it_is_the_first_that_is_offered() -> None:
    code = "from loopviz.lab import TASKS; print(*TASKS)"
    offered = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert offered.stdout.split()[:3] == ["experiment", "perplexity", "context_length"]


# --- the task ---------------------------------------------------------------------------------------------------------


def test_without_a_text_it_reads_the_little_stories_and_the_manifest_holds_them(tmp_path: Path) -> None:
    params = ManualParams(limit_tokens=20, window=8, prompts=2, prompt_tokens=4, new_tokens=3, loops=({},))
    assert params.text == stories()
    assert stories().count("<|endoftext|>") == 15
    thing = looped()
    experiment = Experiment(TASK, thing, params).run()
    experiment.save(tmp_path / "table")
    again = repeat(tmp_path / "table.json", subject=thing).run()
    timed = ("seconds", "tokens_per_second", "write_tokens_per_second")
    for one, other in zip(experiment.rows, again.rows, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}
    changed = json.loads((tmp_path / "table.json").read_text())
    changed["params"]["text"] = "other"
    with pytest.raises(ValueError, match="not the text that was measured"):
        repeat(changed, subject=thing)


def test_it_can_be_left_at_any_time_and_keeps_its_rows() -> None:
    experiment = Experiment(TASK, looped(), ManualParams(**SMALL))
    shares = []
    for row in experiment:
        shares.append(experiment.share)
        if row is not None and experiment.done == 2:
            break
    experiment.close()
    assert [row["configuration"] for row in experiment.rows] == ["baseline", "loop_count=3, virtual_layers"]
    assert shares == sorted(shares)
    assert sum(0 < share < 1 for share in shares) > 40, "between two rows it could not be left"


def test_chinese_is_scored_as_chinese() -> None:
    text = "从前有一只小狗。小狗在花园里玩。" * 4
    params = ManualParams(text=text, limit_tokens=30, window=16, prompts=2, prompt_tokens=5, new_tokens=6, loops=({},))
    for row in Experiment(TASK, looped(), params).run().rows:
        assert "tok:zh" in row["signature"]
    assert score(text, text).rouge_2 == 100


@pytest.mark.parametrize("size", TASK.sizes)
def test_a_size_fits_the_bundled_model_and_text(size: Any, tmp_path: Path) -> None:
    shown = describe(TASK)
    [described] = [one for one in shown["sizes"] if one["words"] == size.words]
    assert set(size.words) == {"en", "zh"}
    filled = {field["name"]: field["value"] for field in shown["fields"]} | described["values"]
    params = params_of(TASK, filled, tmp_path, "en")
    assert {name: getattr(params, name) for name in size.values} == size.values
    thing = Subject.of(load_checkpoint("stories-loop"))
    assert TASK.cells(thing, params) == 4
    assert len(params.windows(thing)) >= 6, "too few for an interval"
    assert len(params.exercises(thing)) >= 8


def test_counts_are_read_as_they_were_written() -> None:
    counts = {"5": 3, "10": 40, "my: rule": 2}
    assert counts_of(counted_text(counts.items())) == counts


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_has_a_histogram_and_two_points_a_configuration(measured: Any, lang: str) -> None:
    _, _, rows = measured
    table = pd.DataFrame(rows)
    figure = plot(table, lang)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    points = [trace for trace in figure.data if trace.type == "scatter"]
    assert [bar.name for bar in bars] == [row["configuration"] for row in rows]
    for bar, row in zip(bars, rows, strict=True):
        assert dict(zip(map(str, bar.x), bar.y, strict=True)) == pytest.approx(
            {n: times / 60 for n, times in counts_of(row["loops"]).items()}
        )
        # whatever numbers of loops there are, each bar lies within its number's place, beside the others'
        assert bar.offset >= -0.4
        assert bar.offset + bar.width <= 0.4 + 1e-9
    for row, time, kv in zip(rows, points[::2], points[1::2], strict=True):
        assert (time.y[0], kv.y[0]) == (row["perplexity"], row["perplexity"])
        assert time.x[0] == pytest.approx(1000 / row["tokens_per_second"])
        assert kv.x[0] == row["kv_bytes_per_token"] / 1000
        assert time.error_y.array[0] == pytest.approx(row["high"] - row["perplexity"])
    assert [bar.offset for bar in bars] == pytest.approx([-0.4 + n * bars[0].width for n in range(len(bars))])
    colours = [bar.marker.color for bar in bars]
    assert len(set(colours)) == len(colours)
    assert not plot(table.iloc[:0], lang).data
    without = plot(table.assign(low=None, high=None), lang)
    assert without.data[1].error_y.array is None
