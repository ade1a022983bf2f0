"""A run's tokens read again are the run's: its states, norms and log-probabilities, whatever was set, changed, asked for."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loopviz.anatomy.probe import check_normed_alone
from loopviz.anatomy.reread import Reread, memory
from loopviz.checks import FieldError
from loopviz.engine import Steering, StreamSettings, run
from loopviz.loop_fields import MODEL_FIELDS, NORM_PLACEMENTS, QK_NORMS
from loopviz.model.checkpoints import load_model
from loopviz.model.interrupt import Interrupted, interruptible
from loopviz.trace import Trace
from tests.anatomy.kinds import ENDS_OF_5, LAYERS, SOME, loops
from tests.engine import tiny
from tests.model.families.official import DATA, ORACLES
from tests.model.tiny import DYNAMIC, LOOP, MODES, TWO

KINDS: dict[str, dict[str, Any]] = {
    **{name: {**LOOP, **mode} for name, mode in MODES.items()},
    "dynamic": {**DYNAMIC, "cosine_threshold": 0.9},
    "two blocks": TWO,
    "plain": {},
}
OTHERS = {**LAYERS, **loops(ENDS_OF_5)}  # what a plain Llama, or a loop that only repeats layers, has not
KINDS |= {name: OTHERS[name] for name in SOME}
EVERY = {**KINDS, **OTHERS}
PROMPT = "Once upon a time"


def stirred(model: Any) -> None:
    """Gains of norms, and gates, are no longer what they are drawn as: alike in every layer."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))


def made(kind: str, **more: Any) -> tuple[Any, Trace]:
    model = tiny.model(**EVERY[kind])
    stirred(model)
    return model, run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=6, record="full", seed=1, **more))


def letters(rows: int) -> PreTrainedTokenizerFast:
    """A tokenizer of single letters, as many tokens as a model has rows."""
    known = ["<pad>", *"abcdefghijklmnopqrstuvwxyz"]
    known += [f"#{i}" for i in range(len(known), rows)]
    inner = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(known)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>")


def is_the_runs(reread: Reread, position: int) -> None:
    found = reread.agreement(reread.probe(position))
    assert found.steps
    assert found.states is None or found.states < 1.1  # of float16's rounding, and a little of float32's
    assert found.norm is None or found.norm < 1e-4
    assert found.logprob is not None
    assert found.logprob < 1e-3


@pytest.mark.parametrize("kind", EVERY)
def test_every_token_is_the_runs(kind):
    model, trace = made(kind)
    reread = Reread(model, trace)
    for position in range(len(trace)):
        is_the_runs(reread, position)


@pytest.mark.parametrize("placement", [None, *NORM_PLACEMENTS], ids=str)
@pytest.mark.parametrize("family", ORACLES)
def test_every_token_of_a_published_family_is_the_runs(family: str, placement: str | None) -> None:
    """As it was published, and with its norms in each of the other places (and fewer loops)."""
    model = load_model(DATA / family)
    if placement is not None:
        model.set_loop(loop_count=3, virtual_layer_count=3)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model.config.norm_placement = placement
            model = type(model)(model.config).eval()
        stirred(model)
    rows = model.config.vocab_size
    trace = run(model, letters(rows), "abcab", StreamSettings(max_new_tokens=3, record="full", seed=1))
    reread = Reread(model, trace)
    for position in (0, len(trace) - 1, 3):
        is_the_runs(reread, position)


@given(kind=st.sampled_from([*EVERY]), order=st.lists(st.integers(0, 9), min_size=2, max_size=5))
@settings(max_examples=15)
def test_in_any_order(kind, order):
    model, trace = made(kind)
    reread, fresh = Reread(model, trace), {}
    for position in (each % len(trace) for each in order):
        found = reread.probe(position)
        if position not in fresh:
            fresh[position] = Reread(model, trace).probe(position)
        assert torch.equal(found.logits, fresh[position].logits)
        for mine, other in zip(found.layers, fresh[position].layers, strict=True):
            assert torch.equal(mine.result, other.result)
            assert torch.equal(mine.keys, other.keys)


def test_each_token_under_the_settings_it_was_read_under():
    model, steering = tiny.model(**{**LOOP, "virtual_layer_count": 1, "virtual_attention_mode": "serial"}), Steering()
    steering.set_loop(token=7, loop_count=5)
    steering.set_loop(token=9, loop_count=1)
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=12, record="full"), steering=steering)
    assert {frame["blocks"][0]["n_steps"] for frame in trace.frames} == {3, 5, 1}
    reread = Reread(model, trace)
    for position in (10, 4, 8, 6, 9, 7):
        is_the_runs(reread, position)


def test_a_token_before_a_change_whose_pass_was_interrupted_is_read_under_its_own_settings() -> None:
    model, steering = tiny.model(**{**LOOP, "virtual_layer_count": 1, "virtual_attention_mode": "serial"}), Steering()
    steering.set_loop(token=9, loop_count=5)
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=6, record="full"), steering=steering)
    changed = trace.meta["changes"][0]["index"]
    assert trace.meta["prompt_tokens"] < changed < len(trace)
    reread, stop = Reread(model, trace), threading.Event()
    is_the_runs(reread, changed - 1)
    stop.set()
    with interruptible(stop), pytest.raises(Interrupted):
        reread.probe(changed)
    for position in (changed - 1, changed, changed - 1):
        is_the_runs(reread, position)


def test_a_state_that_float16_cannot_hold_is_compared_as_it_was_recorded() -> None:
    """The recorder writes the largest that it can hold."""
    model = tiny.model(**KINDS["serial"])
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 3] = 1e7
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=3, record="full"))
    reread = Reread(model, trace)
    found = reread.agreement(reread.probe(len(trace) - 1))
    assert found.states is not None
    assert found.states < 1.1


def test_what_is_not_the_runs_is_seen():
    _model, trace = made("serial")
    other = tiny.model(seed=1, **KINDS["serial"])
    reread = Reread(other, trace)  # of the same sizes
    found = reread.agreement(reread.probe(5))
    assert found.states is not None
    assert found.states > 100


@pytest.mark.parametrize(("place", "named"), [(-1, "position=-1"), (99, "position=99")])
def test_a_token_outside_the_run_is_refused(place, named):
    model, trace = made("plain")
    with pytest.raises(ValueError, match=named):
        Reread(model, trace).probe(place)


def test_a_model_of_other_sizes_is_refused():
    _, trace = made("plain")
    with pytest.raises(ValueError, match=r"layers=3: .* 5"):
        Reread(tiny.model(layers=3), trace)


def test_what_a_model_may_have_is_known_here() -> None:
    """A field of the layers that Anatomy knows nothing of would be shown as a plain Llama's: whoever adds one tells it."""
    assert set(MODEL_FIELDS) == {"norm_placement", "embedding_scale", "qk_norm"}
    assert set(NORM_PLACEMENTS) == {"pre", "pre_branch", "pre_stream", "branch"}
    assert set(QK_NORMS) == {"none", "head", "full"}


def test_a_lora_that_lies_on_what_is_normed_is_refused_by_name() -> None:
    """It adds to the normed query: neither is what is drawn."""
    peft = pytest.importorskip("peft")
    model, trace = made("heads normed")
    check_normed_alone(model)
    worn = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).base_model.model
    with pytest.raises(FieldError, match="qk_norm='head': a LoRA lies unmerged"):
        Reread(worn, trace)


def test_a_run_that_ended_inside_its_prompt_is_refused():
    model, trace = made("serial")
    with pytest.raises(ValueError, match="prompt"):
        Reread(model, Trace(trace.meta, trace.frames[:2]))


def forged(trace: Trace, **loop: Any) -> Trace:
    """A file that runs another loop than it says it recorded."""
    return Trace({**trace.meta, "loop": {**trace.meta["loop"], **loop}}, trace.frames)


@pytest.mark.parametrize(
    ("loop", "named"),
    [
        ({"loop_count": 4000, "max_loop_count": 4000}, "max_steps=4000"),
        ({"virtual_layer_count": 400}, "slots=400"),
        ({"loop_layers": [0, 3]}, r"layers=\[0, 3\]"),
        ({"loop_layers": None}, "0 blocks"),
    ],
)
def test_a_loop_that_does_not_give_the_recorded_blocks_is_refused(loop: dict[str, Any], named: str) -> None:
    """Memory is reckoned by the recorded ones."""
    model, trace = made("serial")
    with pytest.raises(ValueError, match=f"meta.loop: .*{named}"):
        Reread(model, forged(trace, **loop))


def test_a_change_that_does_not_give_its_recorded_blocks_is_refused() -> None:
    model, steering = tiny.model(**{**LOOP, "virtual_layer_count": 1, "virtual_attention_mode": "serial"}), Steering()
    steering.set_loop(token=7, loop_count=5)
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=4), steering=steering)
    assert len(Reread(model, trace).probe(len(trace) - 1).steps) == 5  # an honest one is read
    trace.meta["changes"][0]["loop"].update(loop_count=3000, max_loop_count=3000)
    with pytest.raises(ValueError, match=r"meta.changes\[0\].loop: max_steps=3000"):
        Reread(model, trace)


@pytest.mark.parametrize("kind", EVERY)
def test_memory_is_what_the_tensors_take(kind):
    model, trace = made(kind)
    found = Reread(model, trace).probe(len(trace) - 1)
    runs = found.layers
    taken = sum(value.nbytes for each in runs for value in vars(each).values() if isinstance(value, torch.Tensor))
    said = memory(
        trace.meta["shape"], len(runs), max(len(each.visible) for each in runs), model.config.intermediate_size
    )
    assert taken <= said <= 3 * taken
