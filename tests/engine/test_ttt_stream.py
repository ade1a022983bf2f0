"""A run of a TTT model: the tokens `generate()` says, the numbers the inner hook tells, steering, forgetting, what is refused."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch

from loopviz.checks import FieldError
from loopviz.engine.engine import TTTRequest
from loopviz.engine.ttt_local import LocalTTT, load_ttt
from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.panels.ttt import TTT_PANELS, TTTFocus
from loopviz.trace import Trace
from loopviz.trace.recording.ttt import MOST_HELD, ages_of
from loopviz.trace.schema import AGES, check_frame, check_meta, decode_floats, decode_singles
from loopviz.ttt import TTTCache
from tests.engine import tiny, tiny_ttt

PROMPT = "Once upon a time there was"
NEW = 13


def made(engine: LocalTTT | None = None, new: int = NEW, **how: Any) -> Trace:
    engine = engine or tiny_ttt.engine()
    handle = engine.start(TTTRequest(PROMPT, {"max_new_tokens": new}, **how))
    trace = Trace(handle.meta)
    for frame in handle.frames:
        trace.append(frame)
    return trace


def ids_of(trace: Trace) -> torch.Tensor:
    return torch.tensor([[frame["token_id"] for frame in trace.frames]])


def numbers(trace: Trace, name: str) -> np.ndarray:
    """`[L, H, T]`."""
    meta = trace.meta["ttt"]
    columns = [decode_singles(frame["ttt"][name], 1) for frame in trace.frames]  # type: ignore[literal-required]
    return np.concatenate(columns, axis=1).reshape(meta["layers"], meta["heads"], len(trace))


KINDS: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"ttt_layer_type": "mlp"},
    "all": {"share_qk": True, "pre_conv": True, "use_gate": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_what_generate_says(kind: str) -> None:
    engine = tiny_ttt.engine(**KINDS[kind])
    trace = made(engine)
    for frame in trace.frames:
        check_frame(frame)
    check_meta(trace.meta)
    prompt = torch.tensor([tiny.tokenizer()(PROMPT)["input_ids"]])
    said = engine.model.generate(prompt, max_new_tokens=NEW, do_sample=False)[0]
    assert [*ids_of(trace)[0].tolist(), trace.frames[-1]["next_id"]] == said.tolist()
    assert trace.frames[-1]["finish"] == "length"
    assert trace.meta["ttt"]["state_bytes"] == trace.frames[-1]["kv"]["bytes_used"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_runs_numbers_are_the_inner_hooks_of_one_whole_pass(kind: str) -> None:
    engine = tiny_ttt.engine(**KINDS[kind])
    trace, steps = made(engine), []
    view = engine.model.view()
    view.register_inner_hook(steps.append)
    with torch.no_grad():
        logits = view(ids_of(trace)).logits[0].log_softmax(-1)
    for name, wanted in {
        "loss_before": "loss_before",
        "loss_after": "loss_after",
        "drift": "drift",
        "lr": "lr",
    }.items():
        hooks = torch.stack([getattr(step, wanted)[0] for step in steps])
        np.testing.assert_allclose(numbers(trace, name), hooks.numpy(), atol=2e-4, rtol=2e-4)
    M = trace.meta["ttt"]["mini_batch"]
    for frame in trace.frames:
        index = frame["index"]
        assert frame["ttt"]["slot"] == index % M
        row = decode_singles(frame["ttt"]["reads"], index % M + 1)
        wanted_row = torch.stack([step.dual_matrices()[index // M].values[0, :, index % M] for step in steps])
        np.testing.assert_allclose(row, wanted_row.flatten(0, 1)[:, : index % M + 1].numpy(), atol=2e-4, rtol=2e-3)
        assert frame["next_logprob"] == pytest.approx(float(logits[index, frame["next_id"]]), abs=1e-3)
    scales = torch.stack([step.token_scale[0, :M] for step in steps])
    np.testing.assert_allclose(np.array(trace.meta["ttt"]["scales"]), scales.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_of_every_token_is_the_librarys_reconstruction(kind: str) -> None:
    engine = tiny_ttt.engine(**KINDS[kind])
    trace = made(engine)
    meta, ids, model = trace.meta["ttt"], ids_of(trace), engine.model
    for n in (1, 4, 6, len(trace)):
        view, steps, cache = model.view(), [], TTTCache(model)
        view.register_inner_hook(steps.append)
        with torch.no_grad():
            view(ids[:, :n], past_key_values=cache, use_cache=True)
        wanted = [model.reconstruction(cache, step.layer, step.keys, step.values)[0] for step in steps]
        frame = trace.frames[n - 1]["ttt"]
        held = decode_floats(frame["held"], n)
        np.testing.assert_allclose(held, torch.stack(wanted).flatten(0, 1).numpy(), rtol=2e-3, atol=2e-3)
        own = decode_singles(frame["loss_after"], 1)[:, 0]
        np.testing.assert_allclose(held[:, -1], own, rtol=2e-3, atol=2e-3)
    first = decode_singles(trace.frames[0]["ttt"]["loss_start"], 1)
    np.testing.assert_allclose(first, decode_singles(trace.frames[0]["ttt"]["loss_before"], 1), rtol=1e-5)
    assert meta["ages"] >= len(trace)


def test_every_earlier_token_is_asked_about_in_a_run_that_is_not_too_long() -> None:
    """At most the last 128 were, of a run of 1,024 too."""
    model = tiny_ttt.model()
    rows = 6
    for tokens in (1, 129, 1_000, 1_730):
        ages = ages_of(model, tokens)
        assert ages == max(AGES, tokens)
        assert rows * tokens * (tokens + 1) // 2 <= MOST_HELD
    for tokens in (1_740, 4_096):
        ages = ages_of(model, tokens)
        own = [min(t, ages) for t in range(1, tokens + 1)]
        assert rows * sum(own) <= MOST_HELD < rows * (sum(own) + tokens - ages)
    assert ages_of(model, 10**6) == AGES
    trace = made(tiny_ttt.engine(num_hidden_layers=1), AGES)
    assert trace.meta["ttt"]["ages"] == len(trace) > AGES
    last = trace.frames[-1]["ttt"]
    held = decode_floats(last["held"], len(trace))
    assert held.shape == (3, len(trace))
    assert len(TTT_PANELS["held"].data(trace, TTTFocus())["data"][1]["y"]) == len(trace)


def test_only_the_last_tokens_are_asked_for_and_a_row_of_the_matrix_is_whole_all_the_same(monkeypatch: Any) -> None:
    whole = made()
    monkeypatch.setattr("loopviz.trace.recording.ttt.AGES", 3)
    monkeypatch.setattr("loopviz.trace.recording.ttt.MOST_HELD", 0)
    cut = made()
    assert cut.meta["ttt"]["ages"] == 3
    for long, short in zip(whole.frames, cut.frames, strict=True):
        n, rows = long["index"] + 1, 6
        few = min(n, 3)
        np.testing.assert_array_equal(
            decode_floats(short["ttt"]["held"], few), decode_floats(long["ttt"]["held"], n)[:rows, -few:]
        )
        assert short["ttt"]["reads"] == long["ttt"]["reads"]


def test_a_rate_of_nothing_learns_nothing() -> None:
    trace = made(inner_lr_scale=0.0)
    assert not numbers(trace, "drift").any()
    assert not numbers(trace, "lr").any()
    np.testing.assert_array_equal(numbers(trace, "loss_before"), numbers(trace, "loss_after"))


def steered(at: int, **how: Any) -> tuple[LocalTTT, Trace]:
    engine = tiny_ttt.engine()
    handle = engine.start(TTTRequest(PROMPT, {"max_new_tokens": NEW}))
    trace = Trace(handle.meta)
    for frame in handle.frames:
        trace.append(frame)
        if frame["index"] == at:
            handle.steer(**how)
    return engine, trace


def test_forgetting_sets_the_weights_back_from_the_next_token_on_and_is_written_down() -> None:
    at = len(tiny.tokenizer()(PROMPT)["input_ids"])  # a token a pass from here on
    engine, trace = steered(at, forget=True)
    (change,) = trace.meta["ttt"]["changes"]
    assert change == {"index": at + 1, "forget": True, "inner_lr_scale": 1.0}
    check_meta(trace.meta)
    M = trace.meta["ttt"]["mini_batch"]
    for frame in trace.frames[at + 1 :]:
        row = decode_singles(frame["ttt"]["reads"], frame["ttt"]["slot"] + 1)
        known = [j for j in range(frame["ttt"]["slot"] + 1) if frame["index"] - frame["ttt"]["slot"] + j > at]
        forgotten = [j for j in range(frame["ttt"]["slot"] + 1) if j not in known]
        assert not row[:, forgotten].any()
        assert row[:, known].all()
    after = trace.frames[at + 1]["ttt"]
    np.testing.assert_allclose(
        decode_singles(after["loss_before"], 1), decode_singles(after["loss_start"], 1), rtol=1e-5
    )
    assert (at + 1) % M, "within a mini-batch"
    said = [frame["next_logprob"] for frame in trace.frames]
    again = engine.read_under(trace, trace.meta["ttt"]["changes"], threading.Event())
    np.testing.assert_allclose(again, said, atol=1e-3)
    without = engine.read_under(trace, [], threading.Event())
    np.testing.assert_allclose(without[: at + 1], said[: at + 1], atol=1e-3)
    assert np.abs(np.array(without[at + 1 :]) - said[at + 1 :]).max() > 1e-2


def test_the_inner_learning_rates_factor_holds_from_the_next_token_on() -> None:
    at = len(tiny.tokenizer()(PROMPT)["input_ids"])
    engine, trace = steered(at, inner_lr_scale=0.25)
    plain = made(engine)
    lr, usual = numbers(trace, "lr"), numbers(plain, "lr")
    np.testing.assert_allclose(lr[..., : at + 2][..., :-1], usual[..., : at + 1], rtol=1e-4)
    assert (lr[..., at + 1] < 0.6 * usual[..., at + 1]).all()
    again = engine.read_under(trace, trace.meta["ttt"]["changes"], threading.Event())
    np.testing.assert_allclose(again, [frame["next_logprob"] for frame in trace.frames], atol=1e-3)


def test_an_inner_loss_that_is_no_number_ends_the_run_and_says_where() -> None:
    engine = tiny_ttt.engine(tie_word_embeddings=False)
    word = tiny.tokenizer()(PROMPT)["input_ids"][5]
    with torch.no_grad():
        engine.model.model.embed_tokens.weight[word] = float("nan")
    handle = engine.start(TTTRequest(PROMPT, {"max_new_tokens": 4}))
    seen = []

    def read() -> None:
        for frame in handle.frames:
            seen.append(frame)

    with pytest.raises(FieldError) as caught:
        read()
    assert caught.value.rule == "inner_loss_nan"
    first = next(i for i, one in enumerate(tiny.tokenizer()(PROMPT)["input_ids"]) if one == word)
    assert caught.value.places["token"] == first
    assert len(seen) == first - first % 4, "the mini-batches before it stay"
    assert "layer 0" in str(caught.value)


def test_logits_that_are_no_numbers_are_said_and_no_frame_has_them() -> None:
    engine = tiny_ttt.engine(tie_word_embeddings=False)
    with torch.no_grad():
        engine.model.lm_head.weight[3] = float("nan")
    with pytest.raises(FieldError) as caught:
        next(iter(engine.start(TTTRequest(PROMPT)).frames))
    assert caught.value.rule == "ttt_logits_nan"


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"inner_lr_scale": -1.0}, "inner_lr_scale"),
        ({"inner_lr_scale": float("nan")}, "inner_lr_scale"),
        ({"prompt": ""}, "prompt"),
        ({"settings": {"max_new_tokens": 0}}, "max_new_tokens"),
        ({"settings": {"chat": True}}, "chat"),  # it was as if nothing had been said
        ({"settings": {"template": "vicuna"}}, "template"),
        ({"settings": {"template": "alpaca", "input": "a dog"}}, "template"),
        ({"settings": {"record": "off"}}, "record"),
        ({"settings": {"extras": ("exit",)}}, "extras"),
    ],
)
def test_what_is_refused_is_refused_at_the_start(how: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        tiny_ttt.engine().start(TTTRequest(**{"prompt": PROMPT} | how))
    assert caught.value.field == field


def test_a_stop_ends_a_run() -> None:
    handle = tiny_ttt.engine().start(TTTRequest(PROMPT, {"max_new_tokens": 500}))
    for frame in handle.frames:
        if frame["index"] == 12:
            handle.stop()
    assert frame["index"] < 20
    assert frame["finish"] is None


def test_what_passes_an_engine_is_plain_data() -> None:
    engine = tiny_ttt.engine()
    trace = made(engine)
    for said in (engine.describe(), TTTRequest(PROMPT), trace.meta, trace.frames, engine.kv_beside()):
        assert pickle.loads(pickle.dumps(said)) == said


def test_a_model_that_is_no_ttt_model_is_refused_by_name(tmp_path: Any) -> None:
    for name, words in {"stories-loop": "no TTT model", "nobody": "there is no TTT model of this name"}.items():
        with pytest.raises(CheckpointError, match=words):
            load_ttt(name, lambda *_: None, True)
    with pytest.raises(CheckpointError, match="there is no TTT model of this name"):
        load_ttt("../models/stories-loop", lambda *_: None, False)


def test_a_folder_is_loaded(tmp_path: Any) -> None:
    engine = tiny_ttt.engine()
    engine.model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    loaded = load_ttt(str(tmp_path), lambda *_: None, True)
    assert [f["next_id"] for f in made(loaded).frames] == [f["next_id"] for f in made(engine).frames]
    with pytest.raises(CheckpointError, match="no TTT model of this name"):
        load_ttt(str(tmp_path), lambda *_: None, False)
