"""generate(): greedy, sampled, beams with their states, padding on both sides, going on with a cache."""

import copy

import pytest
import torch
from transformers import GenerationConfig, StaticCache

from loopviz.ttt import TTTCache

from .tiny import ALL_ON, build, close, ids

pytestmark = pytest.mark.usefixtures("no_gradients")
KINDS = [{}, {**ALL_ON, "ttt_layer_type": "mlp"}]
kinds = pytest.mark.parametrize("fields", KINDS, ids=["linear", "mlp_all"])
NEW = {"max_new_tokens": 9, "pad_token_id": 0, "eos_token_id": None}


def by_hand(model, tokens, n: int = 9):
    """Greedy, the whole text anew for each token."""
    for _ in range(n):
        tokens = torch.cat((tokens, model(tokens).logits[:, -1:].argmax(-1)), dim=1)
    return tokens


@kinds
def test_greedy_is_the_whole_text_read_anew_for_every_token(fields):
    model = build(dtype=torch.double, **fields)
    tokens = ids(7, rows=2)
    out = model.generate(tokens, do_sample=False, return_dict_in_generate=True, output_logits=True, **NEW)
    assert torch.equal(out.sequences, by_hand(model, tokens))
    assert isinstance(out.past_key_values, TTTCache)
    whole = model(out.sequences).logits
    for index, logits in enumerate(out.logits):
        close(logits, whole[:, 6 + index], 1e-4)
    assert torch.equal(model.generate(tokens, do_sample=False, use_cache=False, **NEW), out.sequences)


@kinds
def test_a_token_at_a_time_goes_through_the_cache(fields):
    model, widths = build(dtype=torch.double, **fields), []
    model.model.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[1]))
    model.generate(ids(7), do_sample=False, **NEW)
    model.generate(inputs=ids(7), generation_config=GenerationConfig(do_sample=False, min_new_tokens=9, **NEW))
    assert widths == ([7] + [1] * 8) * 2  # though the published configuration says use_cache=False


@kinds
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts_are_continued_as_if_alone(side, fields):
    model, lengths = build(dtype=torch.double, **fields), (7, 3, 5)
    tokens, mask = ids(7, rows=3), torch.zeros(3, 7, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, slice(7 - n, 7) if side == "left" else slice(0, n)] = 1
    found = model.generate(tokens, attention_mask=mask, do_sample=False, **NEW)[:, 7:]
    for row in range(3):
        alone = by_hand(model, tokens[row : row + 1, mask[row].bool()])
        assert torch.equal(found[row], alone[0, -9:])


@kinds
def test_sampling_is_drawn_from_the_models_own_distribution(fields):
    model = build(dtype=torch.double, **fields)
    tokens = ids(5)
    torch.manual_seed(3)
    one = model.generate(tokens, do_sample=True, top_k=0, **NEW)
    torch.manual_seed(3)
    other, text = [], tokens
    for _ in range(9):
        other.append(torch.multinomial(model(text).logits[:, -1].softmax(-1), 1))
        text = torch.cat((text, other[-1]), dim=1)
    assert torch.equal(one, text)


def beams(model, tokens, n: int, width: int):
    """Beam search by hand: every beam is a text, read anew for each token."""
    texts, scores = [tokens], [0.0]
    for _ in range(n):
        found = []
        for text, score in zip(texts, scores, strict=True):
            logs = model(text).logits[0, -1].log_softmax(-1)
            for token in logs.topk(width).indices.tolist():
                found.append((score + float(logs[token]), torch.cat((text, torch.tensor([[token]])), dim=1)))
        found.sort(key=lambda each: -each[0])
        scores, texts = [each[0] for each in found[:width]], [each[1] for each in found[:width]]
    return texts[0]


@kinds
@pytest.mark.parametrize("seed", range(3))
def test_published_defect_beams_did_not_take_their_states_along(seed, fields):
    model = build(seed=seed, dtype=torch.double, **fields)
    tokens, moved = ids(6, seed=seed), []
    reorder = TTTCache.reorder_cache

    def watched(cache, index):
        moved.append(index.tolist())
        reorder(cache, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TTTCache, "reorder_cache", watched)
        found = model.generate(tokens, num_beams=3, do_sample=False, **{**NEW, "max_new_tokens": 6})
    assert torch.equal(found, beams(model, tokens, 6, 3))
    assert any(index != [0, 1, 2] for index in moved), "no beam was overtaken: the test would prove nothing"


def test_several_continuations_of_one_prompt():
    model, tokens = build(), ids(5, rows=2)
    found = model.generate(tokens, num_beams=3, num_return_sequences=2, do_sample=False, **NEW)
    assert found.shape == (4, 14)


@kinds
def test_it_goes_on_where_a_cache_is(fields):
    model, tokens = build(dtype=torch.double, **fields), ids(7)
    cache = TTTCache(model)
    model(tokens[:, :6], past_key_values=cache)
    kept = copy.deepcopy(cache)
    for each in (cache, kept):
        found = model.generate(tokens, past_key_values=each, do_sample=False, **NEW)
        assert torch.equal(found, by_hand(model, tokens))


@kinds
def test_the_prompt_in_pieces_or_as_embeddings_is_the_prompt(fields):
    model, tokens = build(dtype=torch.double, **fields), ids(11, rows=2)
    expected = model.generate(tokens, do_sample=False, **NEW)
    assert torch.equal(model.generate(tokens, do_sample=False, prefill_chunk_size=5, **NEW), expected)
    embeds = model.model.embed_tokens(tokens)
    assert torch.equal(model.generate(inputs_embeds=embeds, do_sample=False, **NEW), expected[:, 11:])


def test_caches_and_ways_that_cannot_be_are_refused_by_name():
    model = build()
    with pytest.raises(
        ValueError, match=r"^cache_implementation='static': a TTT model keeps its weights in a TTTCache"
    ):
        model.generate(ids(3), cache_implementation="static", **NEW)
    with pytest.raises(ValueError, match="past_key_values=StaticCache"):
        model(ids(3), past_key_values=StaticCache(model.config, max_cache_len=8))
    cache = TTTCache(model)
    with pytest.raises(ValueError, match=r"^use_cache=False: a cache is given"):
        model.generate(ids(3), past_key_values=cache, use_cache=False, **NEW)
    with pytest.raises(ValueError, match="not supported with stateful models"):
        model.generate(ids(3), assistant_model=build(seed=1), **NEW)
