"""A model in fewer bytes: what is said of it is what it costs, computed here token by token in Python's own numbers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loopviz.checks import FieldError
from loopviz.engine import StreamSettings, run, run_meta
from loopviz.engine.engine import Request
from loopviz.engine.local import LocalEngine, LocalPrepared
from loopviz.engine.lowered import TEXT, PrecisionRefused, fidelity, lowered, pass_ms, short_logits
from loopviz.engine.many import stream_many
from loopviz.engine.work import Rate
from loopviz.model import devices, placing
from loopviz.model.checkpoints import precision_choice
from loopviz.model.checkpoints.load import LoadedCheckpoint, load_checkpoint, prepare_checkpoint
from loopviz.model.precision import PrecisionError, held_name, lower, quantise, weight_bytes
from loopviz.model.quantization import pack
from tests.conftest import make_llama
from tests.engine import tiny

IDS = torch.tensor([[5, 17, 300, 2, 9, 44]])


def by_hand(exact: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
    """KL(exact || other) and agreement, a probability at a time."""
    found, same = [], []
    for one, two in zip(exact.tolist(), other.tolist(), strict=True):
        p, q = ([math.exp(value - max(row)) for value in row] for row in (one, two))
        p, q = ([value / math.fsum(row) for value in row] for row in (p, q))
        found.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        same.append(one.index(max(one)) == two.index(max(two)))
    return math.fsum(found) / len(found), sum(same) / len(same)


@pytest.mark.parametrize("size", [1e-3, 0.5, 3.0])
def test_fidelity_is_the_mean_over_tokens(size: float) -> None:
    torch.manual_seed(1)
    exact = torch.randn(9, 13)
    other = exact + size * torch.randn(9, 13)
    found = fidelity(exact, other)
    assert (found.kl, found.same) == pytest.approx(by_hand(exact, other), rel=1e-9)
    assert found.tokens == 9
    assert fidelity(exact, exact) == fidelity(exact, exact.clone())
    assert (fidelity(exact, exact).kl, fidelity(exact, exact).same) == (0.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
def test_lowering_gives_what_loading_in_it_does(llama_folder: Callable[..., Path], dtype: torch.dtype) -> None:
    folder = llama_folder()
    expected = load_checkpoint(folder, dtype=dtype).model
    found = lower(load_checkpoint(folder).model, dtype)
    assert torch.equal(found(IDS).logits, expected(IDS).logits)
    assert held_name(found) == held_name(expected)
    assert weight_bytes(found) == weight_bytes(expected)
    assert found.config.dtype == expected.config.dtype or dtype is torch.int8


def test_a_weight_too_large_for_float16_is_refused_by_name_and_nothing_is_changed() -> None:
    model: Any = make_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = -7e4
    with pytest.raises(PrecisionError, match=r"layers\.1\.mlp\.up_proj\.weight has weights beyond 65504"):
        lower(model, torch.float16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    lower(model, torch.bfloat16)


@pytest.fixture(autouse=True)
def none_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model is looked at as a large one is."""
    monkeypatch.setattr(precision_choice, "SMALL", 0)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 is the quicker half here."""
    known = {"float32": (2.0, 2.0), "float16": (1.0, 1.0), "bfloat16": (3.0, 3.0), "int8": (1.0, 1.0)}
    monkeypatch.setattr(precision_choice, "times_of", lambda config: known)


def codes(loaded: LoadedCheckpoint) -> list[str]:
    return [note.code for note in loaded.notes if note.code.startswith("precision")]


@pytest.mark.usefixtures("times")
@pytest.mark.parametrize(
    ("precision", "name", "said"),
    [
        ("exact", "float32", []),
        ("half", "float16", ["precision_half", "precision_cost", "precision_floor"]),
        ("int8", "int8", ["precision_cost", "precision_floor_int8"]),
        ("auto", "float32", ["precision_auto_exact"]),
    ],
)
def test_a_precision_comes_with_what_it_is_and_costs(
    llama_folder: Callable[..., Path], precision: str, name: str, said: list[str]
) -> None:
    folder = llama_folder()
    exact = load_checkpoint(folder)
    loaded = lowered(lambda: load_checkpoint(folder), precision, must=True)
    assert (held_name(loaded.model), codes(loaded)) == (name, said)
    if "precision_cost" in said:
        values = loaded.notes[-2].values
        kl, same = by_hand(*(short_logits(each.model, each.tokenizer) for each in (exact, loaded)))
        assert values["kl"] == f"{kl:.2g}"
        assert values["same"] == f"{100 * same:.0f}"
        assert float(values["size"]) == pytest.approx(weight_bytes(loaded.model) / 1e6, rel=5e-3)
        assert float(values["exact_size"]) == pytest.approx(weight_bytes(exact.model) / 1e6, rel=5e-3)
        assert float(values["ms"]) > 0 < float(values["exact_ms"])
        # a number between 1 and 2 is off by half of the distance to the next one, at most
        half_of_a_step = {"float16": 2**-11, "int8": 2**-8}[name]
        assert float(loaded.notes[-1].values["floor"]) == pytest.approx(half_of_a_step, rel=0.02)
        assert not any("{" in str(note) for note in loaded.notes)


def test_a_pass_is_every_layer_once_and_the_head() -> None:
    rate = Rate(layer_pass=3e-3, layer_token=5e-4, pair=9.0, head_pass=2e-3, head_token=1e-3)
    assert pass_ms(SimpleNamespace(config=SimpleNamespace(num_hidden_layers=4)), rate) == pytest.approx(17.0)


def test_the_text_is_read_as_far_as_the_model_can(llama_folder: Callable[..., Path]) -> None:
    loaded = load_checkpoint(llama_folder(max_position_embeddings=16))
    ids = loaded.tokenizer(TEXT.read_text("utf-8")[:200], add_special_tokens=False)["input_ids"]
    assert short_logits(loaded.model, loaded.tokenizer).shape == (16, 320)
    assert torch.equal(short_logits(loaded.model, loaded.tokenizer), loaded.model(torch.tensor([ids[:16]])).logits[0])


@pytest.mark.usefixtures("times")
def test_what_cannot_be_held_stays_exact_and_that_is_said(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder()
    llama = make_llama()
    with torch.no_grad():
        llama.model.embed_tokens.weight[0, 0] = 1e5
    llama.save_pretrained(folder)
    loaded = lowered(lambda: load_checkpoint(folder), "half")
    assert (held_name(loaded.model), codes(loaded)) == ("float32", ["precision_refused"])
    with pytest.raises(PrecisionRefused, match=r"^precision='half': .*weights beyond 65504.*choose 'exact'") as caught:
        lowered(lambda: load_checkpoint(folder), "half", must=True)
    assert caught.value.code == "precision_refused"
    assert lowered(lambda: load_checkpoint(folder), "int8").model.model.embed_tokens.weight.dtype == torch.float32


@pytest.mark.usefixtures("times")
def test_what_runs_over_in_half_stays_exact_and_that_is_said(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = llama_folder()
    llama = make_llama()
    with torch.no_grad():  # each within float16, and their sums not
        llama.model.layers[0].mlp.down_proj.weight.fill_(3e4)
    llama.save_pretrained(folder)
    loaded, exact = lowered(lambda: load_checkpoint(folder), "half"), load_checkpoint(folder)
    assert (held_name(loaded.model), codes(loaded)) == ("float32", ["precision_overflow"])
    assert torch.equal(loaded.model(IDS).logits, exact.model(IDS).logits)
    with pytest.raises(PrecisionRefused, match="precision='half': its numbers run over in float16") as caught:
        lowered(lambda: load_checkpoint(folder), "half", must=True)
    assert (caught.value.code, caught.value.values["precision"]) == ("precision_overflow", "half")
    slow = {"float32": (1e9, 1e9), "float16": (1.0, 1.0), "bfloat16": (3.0, 3.0), "int8": (2.0, 2.0)}
    monkeypatch.setattr(precision_choice, "times_of", lambda config: slow)
    loaded = lowered(lambda: load_checkpoint(folder), "auto", must=True)
    assert (held_name(loaded.model), codes(loaded)) == ("float32", ["precision_overflow"]), "which auto may be"


def test_where_there_is_no_half_it_is_exact_and_who_must_have_it_is_refused(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_choice, "times_of", lambda config: {"float32": (2.0, 2.0)})
    folder = llama_folder()
    loaded = lowered(lambda: load_checkpoint(folder), "half")
    assert (held_name(loaded.model), codes(loaded)) == ("float32", ["precision_no_half"])
    with pytest.raises(PrecisionRefused, match="precision='half': neither float16 nor bfloat16") as caught:
        lowered(lambda: load_checkpoint(folder), "half", must=True)
    assert caught.value.code == "precision_no_half"
    assert codes(lowered(lambda: load_checkpoint(folder), "auto", must=True)) == ["precision_auto_exact"], (
        "which may be exact"
    )


@pytest.mark.usefixtures("times")
def test_weights_that_are_here_are_not_read_twice(llama_folder: Callable[..., Path]) -> None:
    checkpoint = prepare_checkpoint(llama_folder())
    exact, half = (LocalPrepared("mine", checkpoint, name, must=True).load() for name in ("exact", "half"))
    auto = LocalPrepared("mine", checkpoint, "auto", must=True)
    found = auto.same(exact)
    assert isinstance(found, LocalEngine)
    assert found.model is exact.model
    assert [note.code for note in found.notes if note.code.startswith("precision")] == ["precision_auto_exact"], (
        "why it is that"
    )
    assert auto.same(half) is None, "here auto is exact"
    assert LocalPrepared("mine", checkpoint, "int8").same(half) is None
    again = LocalPrepared("mine", checkpoint, "half").same(half)
    assert again is not None
    assert [note.code for note in again.describe().notes] == [note.code for note in half.notes], (
        "what it costs is as it was"
    )


def test_a_model_on_a_device_is_exact_and_says_what_of_it_stayed_behind(
    llama_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other device is here: the CPU stands for one that holds all, and for one that holds a part."""
    checkpoint = prepare_checkpoint(llama_folder())
    here = LocalPrepared("mine", checkpoint).load()
    assert isinstance(here, LocalEngine)
    monkeypatch.setattr(devices, "resolve_device", lambda name: torch.device("cpu"))
    for room, behind in ((None, []), (weight_bytes(here.model) - 1, ["layers_behind"])):
        monkeypatch.setattr(placing, "room_on", lambda device, room=room: room)
        there = LocalPrepared("mine", checkpoint, device="cuda").load()
        assert isinstance(there, LocalEngine)
        assert [note.code for note in there.notes if note.code == "layers_behind"] == behind
        texts = [
            [frame["token_id"] for frame in engine.start(Request("Once", settings={"max_new_tokens": 5})).frames]
            for engine in (here, there)
        ]
        assert texts[0] == texts[1]
    for precision in ("half", "int8"):
        with pytest.raises(
            PrecisionRefused, match="models are computed on cuda here, in float32; choose 'exact'"
        ) as refused:
            LocalPrepared("mine", checkpoint, precision, must=True, device="cuda").load()
        assert refused.value.code == "precision_device"


def test_a_run_that_runs_over_in_float16_is_told_so(llama_folder: Callable[..., Path]) -> None:
    loaded = load_checkpoint(llama_folder(), dtype=torch.float16)
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.down_proj.weight.fill_(6e4)
    with pytest.raises(FieldError, match=r"in float16 no number is above 65504.*--precision exact"):
        run(loaded.model, loaded.tokenizer, "Once", StreamSettings(max_new_tokens=2))


@pytest.mark.usefixtures("times")
def test_a_page_gets_it_so_and_its_runs_say_what_they_were_made_in(llama_folder: Callable[..., Path]) -> None:
    folder = llama_folder()
    prepared = LocalPrepared("mine", prepare_checkpoint(folder), "int8")
    assert prepared.need > LocalPrepared("mine", prepare_checkpoint(folder)).need
    engine = prepared.load()
    found = engine.describe()
    assert (found.dtype, found.n_bytes) == ("int8", weight_bytes(engine.model))
    assert found.shape.itemsize == 4
    meta = run_meta(engine.model, engine.tokenizer, "Once")
    assert meta["provenance"] == {"device": "cpu", "dtype": "int8"}
    exact = LocalPrepared("mine", prepare_checkpoint(folder)).load()
    assert isinstance(exact, LocalEngine)
    assert "provenance" not in run_meta(exact.model, exact.tokenizer, "Once")
    assert exact.parameters == engine.parameters


def test_runs_that_share_passes_say_what_each_says_alone() -> None:
    model, tokenizer = quantise(tiny.model(loop_layers=(1, 2), loop_count=3)), tiny.tokenizer()
    prompts, chosen = ("the dog", "a small dog. there was", "从"), StreamSettings(max_new_tokens=4, record="full")
    found: list[list[Any]] = [[] for _ in prompts]
    for place, frame in stream_many(model, tokenizer, prompts, chosen, at_once=3):
        found[place].append(frame)
    for prompt, frames in zip(prompts, found, strict=True):
        alone = run(model, tokenizer, prompt, chosen).frames
        assert len(frames) == len(alone)
        for one, other in zip(frames, alone, strict=True):
            if one["token_id"] != other["token_id"]:  # a near tie, rounded otherwise: from there on it is another text
                break
            assert one["next_logprob"] == pytest.approx(other["next_logprob"], abs=0.1)
            assert one["blocks"][0]["steps"]["rel_delta"] == pytest.approx(
                other["blocks"][0]["steps"]["rel_delta"], rel=0.1
            )


def test_a_word_of_an_int8_run_is_read_again() -> None:
    engine = LocalEngine("tiny", quantise(tiny.model(loop_layers=(1, 2), loop_count=3)), tiny.tokenizer())
    trace = run(engine.model, engine.tokenizer, "the dog", StreamSettings(max_new_tokens=4, record="full"))
    token = engine.read_again(trace).read(len(trace) - 1, threading.Event())
    assert token is not None
    assert token.picture.agreement["is_the_runs"]
    assert token.layer(1, 2).tensors["result"].shape


def test_a_word_of_a_run_on_packed_layers_is_read_again() -> None:
    pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")
    engine = LocalEngine("tiny", pack(tiny.model(loop_layers=(1, 2), loop_count=3), "nf4"), tiny.tokenizer())
    assert engine.describe().dtype == "nf4 (bitsandbytes), else float32"
    trace = run(engine.model, engine.tokenizer, "the dog", StreamSettings(max_new_tokens=4, record="full"))
    token = engine.read_again(trace).read(len(trace) - 1, threading.Event())
    assert token is not None
    assert token.picture.agreement["is_the_runs"]
    assert token.layer(1, 2).tensors["result"].shape


def test_runs_on_packed_layers_that_share_passes_say_what_each_says_alone() -> None:
    pytest.importorskip("bitsandbytes", reason="optional: pip install 'loopviz[bnb]'")
    model, tokenizer = pack(tiny.model(loop_layers=(1, 2), loop_count=3), "nf4"), tiny.tokenizer()
    prompts, chosen = ("the dog", "a small dog. there was"), StreamSettings(max_new_tokens=4)
    found: list[list[Any]] = [[] for _ in prompts]
    for place, frame in stream_many(model, tokenizer, prompts, chosen, at_once=2):
        found[place].append(frame)
    for prompt, frames in zip(prompts, found, strict=True):
        alone = run(model, tokenizer, prompt, chosen).frames
        assert [frame["token_id"] for frame in frames] == [frame["token_id"] for frame in alone]
        for one, other in zip(frames, alone, strict=True):
            assert one["next_logprob"] == pytest.approx(other["next_logprob"], abs=1e-4)
