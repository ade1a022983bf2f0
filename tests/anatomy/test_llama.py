"""The Llama from scratch computes what transformers' does, in float64 to 1e-10, and is one short file of plain torch."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import DynamicCache

from loopviz.anatomy import llama
from loopviz.anatomy.llama import IGNORED, KVCache, LlamaForCausalLM, probabilities, rotary_frequencies, shifted_loss
from tests.anatomy.pairs import LLAMA_3, ROPES, configuration, pair, random_configuration, tokens

CLOSE = 1e-10
SOURCE = Path(llama.__file__).read_text(encoding="utf-8")


def padded(side: str, rows: int = 3, length: int = 11) -> torch.Tensor:
    """A mask whose row r has 2 r tokens of padding on one side."""
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(1, rows):
        place = slice(0, 2 * row) if side == "left" else slice(length - 2 * row, length)
        mask[row, place] = 0
    return mask if side else torch.ones_like(mask)


def real_labels(labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Labels with padding left out by hand, token by token."""
    kept = torch.full_like(labels, IGNORED)
    for row in range(len(labels)):
        for place in range(1, labels.shape[1]):
            if mask[row, place] and mask[row, place - 1]:
                kept[row, place] = labels[row, place]
    return kept


def test_it_is_one_file_of_at_most_300_lines_without_transformers():
    assert len(SOURCE.splitlines()) <= 300
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= {"__future__", "collections", "math", "torch", "typing"}


@pytest.mark.parametrize("side", ["", "left", "right"])
@pytest.mark.parametrize("seed", range(12))
def test_logits_and_loss_are_those_of_transformers(seed, side):
    theirs, ours = pair(random_configuration(seed))
    ids, mask = tokens(3, 11, seed), padded(side)
    labels = tokens(3, 11, seed + 100)
    labels[0, 3:5] = IGNORED
    with torch.no_grad():
        told = theirs(ids, attention_mask=mask, labels=real_labels(labels, mask))
        loss, logits = ours(ids, mask, labels)
    rows = (
        mask.bool() if side == "left" else torch.ones_like(mask).bool()
    )  # a padding row that sees nothing is undefined
    assert (told.logits - logits)[rows].abs().max() < CLOSE
    assert abs(told.loss - loss) < CLOSE
    assert logits.isfinite().all()


def test_eager_attention_in_float32_agrees_to_the_last_digits():
    theirs, ours = pair(configuration(), torch.float32, "eager")
    with torch.no_grad():
        told, (_, logits) = theirs(tokens(2, 20)).logits, ours(tokens(2, 20))
    assert (told - logits).abs().max() <= 1e-5 * told.abs().max()


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope["rope_type"])
def test_frequencies_of_every_rule_are_those_of_transformers(rope):
    config = configuration(rope_parameters=dict(rope), head_dim=16)
    theirs, _ = pair(config, torch.float32)
    torch.testing.assert_close(rotary_frequencies(config), theirs.model.rotary_emb.inv_freq, rtol=1e-6, atol=0)
    old = SimpleNamespace(
        hidden_size=64, num_attention_heads=4, rope_theta=rope["rope_theta"], max_position_embeddings=64,
        rope_scaling={"type": rope["rope_type"], **{k: v for k, v in rope.items() if k.partition("_")[0] != "rope"}},
    )  # fmt: skip
    assert torch.equal(rotary_frequencies(old), rotary_frequencies(config)), "the older spelling"


def test_a_factor_of_none_under_the_default_rule_is_none():
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    one, other = (
        SimpleNamespace(hidden_size=24, num_attention_heads=4, rope_parameters=rule)
        for rule in (plain, {**plain, "factor": None})
    )
    assert torch.equal(rotary_frequencies(one), rotary_frequencies(other))


def test_llama_3_slows_slow_pairs_leaves_quick_ones_and_mixes_between():
    config = configuration(rope_parameters=dict(LLAMA_3), head_dim=16)
    plain = configuration(rope_parameters={"rope_type": "default", "rope_theta": 100.0}, head_dim=16)
    share = rotary_frequencies(config) / rotary_frequencies(plain)
    assert share[0] == 1
    assert share[-1] == pytest.approx(1 / 8)
    assert ((share[1:] <= share[:-1]) & (share[1:] >= 1 / 8)).all()
    assert ((share > 0.13) & (share < 0.99)).any()


@pytest.mark.parametrize("side", ["", "left"])
def test_a_cache_gives_the_logits_of_one_pass(side):
    theirs, ours = pair(configuration(num_key_value_heads=1))
    ids, mask = tokens(3, 11), padded(side)
    past, their_past = KVCache(), DynamicCache()
    with torch.no_grad():
        _, whole = ours(ids, mask)
        for start, end in ((0, 7), (7, 8), (8, 11)):
            _, part = ours(ids[:, start:end], mask[:, :end], past=past)
            told = theirs(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=their_past).logits
            real = mask[:, start:end].bool()
            assert (part - whole[:, start:end])[real].abs().max() < CLOSE
            assert (part - told)[real].abs().max() < CLOSE
            assert len(past) == end
    assert past.layers[0][0].shape == (3, 1, 11, 6)


def test_the_loss_of_a_cached_part_leaves_its_own_padding_out():
    _, ours = pair(configuration())
    ids, mask, past = tokens(3, 11), padded("right"), KVCache()
    with torch.no_grad():
        ours(ids[:, :4], mask[:, :4], past=past)
        loss, logits = ours(ids[:, 4:], mask, ids[:, 4:], past)
    assert loss == shifted_loss(logits, ids[:, 4:], mask[:, 4:])


@pytest.mark.parametrize("cached", [0, 4])
def test_the_loss_of_no_token_after_a_past_is_none(cached):
    """`-0:` took all of the mask."""
    _, ours = pair(configuration())
    ids, past = tokens(3, cached), KVCache()
    with torch.no_grad():
        if cached:
            ours(ids, past=past)
        loss, logits = ours(ids[:, :0], torch.ones(3, cached), ids[:, :0], past)
    assert logits.shape == (3, 0, 67)
    assert loss.isnan()


def test_the_shifted_loss_by_hand():
    logits, labels = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)), tokens(2, 5) % 7
    mask = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels[0, 3] = IGNORED
    counted = [(0, 2), (0, 4), (1, 1), (1, 2)]  # no padding, nothing told by padding, no -100
    by_hand = [-logits[row, place - 1].log_softmax(-1)[labels[row, place]] for row, place in counted]
    assert shifted_loss(logits, labels, mask) == pytest.approx(float(sum(by_hand)) / len(by_hand))
    counted += [(0, 1), (1, 3), (1, 4)]
    by_hand = [-logits[row, place - 1].log_softmax(-1)[labels[row, place]] for row, place in counted]
    assert shifted_loss(logits, labels) == pytest.approx(float(sum(by_hand)) / len(by_hand)), "as the article counts"
    assert shifted_loss(logits, torch.full_like(labels, IGNORED)).isnan()


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("side", ["", "left"])
def test_greedy_generation_is_that_of_transformers(side, use_cache):
    theirs, ours = pair(configuration(tie_word_embeddings=True))
    ids, mask = tokens(3, 11), padded(side)
    told = theirs.generate(ids, attention_mask=mask, max_new_tokens=15, do_sample=False, pad_token_id=0)
    assert torch.equal(ours.generate(ids, 15, mask, use_cache=use_cache), told)


@pytest.mark.parametrize("mask", [padded("right"), torch.zeros(3, 11, dtype=torch.long)], ids=["right", "all padding"])
def test_a_prompt_that_ends_in_padding_is_refused(mask):
    """Its next token would be told by padding."""
    _, ours = pair(configuration())
    with pytest.raises(ValueError, match="attention_mask: each prompt must end in a token; pad on the left"):
        ours.generate(tokens(3, 11), 2, mask)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 0, dtype=torch.long)], ids=["no mask", "its mask"])
def test_an_empty_prompt_is_refused(mask):
    _, ours = pair(configuration())
    with pytest.raises(ValueError, match="each prompt must end in a token"):
        ours.generate(tokens(2, 0), 2, mask)


def test_a_sequence_that_ended_repeats_its_end_while_others_go_on():
    theirs, ours = pair(configuration(tie_word_embeddings=True))
    ids = tokens(3, 11)
    free = ours.generate(ids, 15)
    end = int(free[0, 14])  # what the first says at once, or after some tokens
    told = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=15, do_sample=False, eos_token_id=end, pad_token_id=end
    )
    made = ours.generate(ids, 15, ends=[end])
    assert torch.equal(made, told)
    assert (made[0, 14:] == end).all()
    alone = ours.generate(ids[:1], 15, ends=[end])
    assert alone.shape[1] < 11 + 15, "it stops when nobody goes on"


def test_sampling_draws_what_transformers_draws():
    theirs, ours = pair(configuration())
    ids = tokens(2, 5)
    sampling = {"temperature": 0.8, "top_k": 20, "top_p": 0.9}
    torch.manual_seed(7)
    told = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=True, pad_token_id=0, **sampling
    )
    torch.manual_seed(7)
    assert torch.equal(ours.generate(ids, 12, sampling=sampling), told)


def test_probabilities_by_hand():
    logits = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    assert probabilities(logits).tolist()[0] == pytest.approx([0.5, 0.2, 0.2, 0.1])
    assert probabilities(logits, temperature=0.5).tolist()[0] == pytest.approx([25 / 34, 4 / 34, 4 / 34, 1 / 34])
    assert probabilities(logits, top_k=1).tolist()[0] == [1, 0, 0, 0]
    assert probabilities(logits, top_p=0.45).tolist()[0] == [1, 0, 0, 0]
    assert probabilities(logits, top_p=0.95)[0, 3] > 0
    assert probabilities(logits, top_k=9).tolist()[0] == pytest.approx([0.5, 0.2, 0.2, 0.1])
    many = torch.zeros(1, 100_003)
    assert (probabilities(many) > 0).all(), "with top_p=1 nothing is lost to rounding"


@pytest.mark.parametrize(
    "bad", [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_probabilities_refuse_what_is_no_setting(bad):
    name = next(iter(bad))
    with pytest.raises(ValueError, match=f"{name}="):
        probabilities(torch.zeros(1, 3), **bad)


def test_a_tied_checkpoint_without_its_head_and_one_with_old_frequencies_load():
    theirs, _ = pair(configuration(tie_word_embeddings=True))
    state = dict(theirs.state_dict())
    del state["lm_head.weight"]
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    ours = LlamaForCausalLM(theirs.config).double()
    ours.load_state_dict(state)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    with torch.no_grad():
        assert (theirs(tokens(1, 5)).logits - ours(tokens(1, 5))[1]).abs().max() < CLOSE
    with pytest.raises(RuntimeError, match="Missing key"):
        LlamaForCausalLM(configuration()).load_state_dict(state)


def test_names_of_weights_are_those_of_transformers():
    for seed in range(6):
        theirs, ours = pair(random_configuration(seed))
        assert set(ours.state_dict()) == set(theirs.state_dict())


def test_any_object_with_the_fields_is_a_configuration():
    fields = SimpleNamespace(
        vocab_size=67,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        rms_norm_eps=1e-6,
    )
    _, ours = pair(configuration(num_key_value_heads=4))
    other = LlamaForCausalLM(fields).double()
    other.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert torch.equal(other(tokens(1, 9))[1], ours(tokens(1, 9))[1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads=3: must divide num_attention_heads=4"),
        ({"head_dim": 5}, "head_dim=5: must be even"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu': must be 'silu'"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
            "rope_type='yarn': must be one of",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_written_here_is_refused_by_name(fields, words):
    values = {**vars(configuration()), **fields}
    with pytest.raises(ValueError, match=words):
        LlamaForCausalLM(SimpleNamespace(**values))


def test_a_mask_that_does_not_cover_past_and_new_tokens_is_refused():
    _, ours = pair(configuration())
    past = KVCache()
    ours(tokens(1, 4), past=past)
    with pytest.raises(ValueError, match=r"attention_mask \[1, 2\]: must be \[1, 6\]"):
        ours(tokens(1, 2), torch.ones(1, 2), past=past)


def test_gradients_are_those_of_transformers():
    theirs, ours = pair(configuration())
    ids = tokens(2, 9)
    theirs(ids, labels=ids).loss.backward()
    loss, _ = ours(ids, labels=ids)
    loss.backward()
    for (name, one), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-7), name


def test_the_norm_in_half_precision_squares_in_float32():
    norm = llama.LlamaRMSNorm(4, 1e-6).half()
    assert torch.allclose(norm(torch.full((1, 4), 1000.0).half()), torch.ones(1, 4).half()), "1000^2 is no float16"
    assert (
        F.cosine_similarity(norm(torch.tensor([[1.0, 2, 3, 4]]).half()).float(), torch.tensor([[1.0, 2, 3, 4]])) > 0.999
    )
