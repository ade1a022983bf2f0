"""generate() and every way of feeding a LoopLlama, in every cache mode."""

import copy

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache
from transformers.generation.streamers import BaseStreamer

from loopviz.model import LoopCache

from .tiny import MODES, SHAPE, TOLERANCE, build, close, ids, plain_twin, reference, unrolled

WIDE = TOLERANCE[torch.float32]
LOOP = {"loop_layers": (1, 2), "loop_count": 3}
DYNAMIC = {**LOOP, "loop_strategy": "dynamic_stop", "min_loop_count": 3, "loop_damping": 0.5, "max_loop_count": 6}


@pytest.fixture(
    params=[(mode, strategy) for mode in MODES for strategy in ("fixed_count", "dynamic_stop")], ids="-".join
)
def looped(request):
    """A looped model and its loop fields, in every cache mode under both strategies."""
    mode, strategy = request.param
    loop = {**(LOOP if strategy == "fixed_count" else DYNAMIC), **MODES[mode]}
    return build(loop), loop


def generate(model, tokens, **how):
    how = {"max_new_tokens": 6, "do_sample": False, **how}
    return model.generate(tokens, attention_mask=torch.ones_like(tokens), **how)


def by_hand(model, tokens, steps):
    """Greedy decoding over forward, as plainly as it can be written."""
    cache = None
    part = tokens
    with torch.no_grad():
        for _ in range(steps):
            out = model(part, past_key_values=cache)
            cache = out.past_key_values
            part = out.logits[:, -1:].argmax(-1)
            tokens = torch.cat((tokens, part), dim=1)
    return tokens


def test_greedy_equals_the_reference(looped):
    model, loop = looped
    slow, cache = reference(model, loop), None
    tokens = ids(4)
    expected, part = tokens[0].tolist(), tokens[0].tolist()
    for _ in range(6):
        result = slow(part, cache)
        cache = result.cache
        part = [int(result.logits[-1].argmax())]
        expected += part
    assert generate(model, tokens)[0].tolist() == expected
    assert by_hand(model, tokens, 6)[0].tolist() == expected


def test_sampling_is_drawn_from_the_models_distribution(looped):
    """With one seed, generate() draws what a plain loop over forward draws from the same logits."""
    model, _ = looped
    tokens = ids(4)
    torch.manual_seed(5)
    sampled = generate(model, tokens, do_sample=True, temperature=0.7, top_k=0)
    torch.manual_seed(5)
    cache, part, expected = None, tokens, tokens
    with torch.no_grad():
        for _ in range(6):
            out = model(part, past_key_values=cache)
            cache = out.past_key_values
            part = torch.multinomial(torch.softmax(out.logits[:, -1] / 0.7, dim=-1), 1)
            expected = torch.cat((expected, part), dim=1)
    assert sampled.tolist() == expected.tolist()


def test_without_a_cache(looped):
    """In fixed-count serial V >= N the cache changes nothing; elsewhere it does, by design, and must still run."""
    model, loop = looped
    tokens = ids(4)
    out = generate(model, tokens, use_cache=False, output_logits=True, return_dict_in_generate=True)
    with torch.no_grad():
        whole = model(out.sequences[:, :-1], use_cache=False).logits
    if loop.get("loop_strategy") is None:  # under dynamic_stop later tokens take part in the mean that decides
        close(torch.stack(out.logits, dim=1)[0], whole[0, 3:], WIDE)
    if loop == {**LOOP, **MODES["serial"]}:
        assert torch.equal(out.sequences, generate(model, tokens))


@pytest.mark.parametrize("n", [1, 3])
def test_beams_of_serial_equal_the_unrolled_llama(n):
    model = build({**LOOP, **MODES["serial"]})
    deep = unrolled(model, [3])
    how = {
        "num_beams": 3,
        "num_return_sequences": min(n, 2),
        "max_new_tokens": 12,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    ours, theirs = (generate(one, ids(4, rows=n), **how) for one in (model, deep))
    assert torch.equal(ours.sequences, theirs.sequences)
    close(ours.sequences_scores, theirs.sequences_scores, WIDE)
    assert not torch.equal(ours.sequences[:1], generate(model, ids(4), max_new_tokens=12)), "beams changed nothing"


def test_beam_scores_are_those_of_the_sequences(looped):
    """Reordered caches must hold each beam's own past: a beam's score is its tokens' log-probability fed one by one."""
    model, _ = looped
    tokens = ids(4)
    out = generate(
        model,
        tokens,
        num_beams=4,
        num_return_sequences=2,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    with torch.no_grad():
        for sequence, score in zip(out.sequences, out.sequences_scores, strict=True):
            cache, part, total = None, tokens, 0.0
            for token in sequence[4:]:
                step = model(part, past_key_values=cache)
                cache = step.past_key_values
                total += torch.log_softmax(step.logits[0, -1], dim=-1)[token]
                part = token[None, None]
            close(score, total, 1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_num_return_sequences(looped, beams):
    model, _ = looped
    torch.manual_seed(0)
    out = generate(model, ids(4, rows=2), do_sample=True, num_beams=beams, num_return_sequences=2)
    assert out.shape == (4, 10)
    assert torch.equal(out[0, :4], out[1, :4])
    assert torch.equal(out[2, :4], ids(4, rows=2)[1])


@pytest.mark.parametrize("drafter", ["twin", "stranger"])
def test_assisted_decoding_equals_greedy(looped, drafter):
    """Rejected drafts are cropped from the cache. A chunk of several drafts is one pass: where that pass means the
    same as token by token (fixed count, one slot per step), the text must be the very same."""
    model, loop = looped
    tokens = ids(4)
    torch.manual_seed(1)
    stranger = LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": 1})).eval()
    assistant = plain_twin(model) if drafter == "twin" else stranger
    out = generate(model, tokens, assistant_model=assistant, max_new_tokens=12)
    assert out.shape == (1, 16)
    if loop == {**LOOP, **MODES["serial"]}:
        assert torch.equal(out, generate(model, tokens, max_new_tokens=12))


def test_looped_model_as_assistant():
    model = build({**LOOP, **MODES["serial"]})
    plain = plain_twin(model)
    tokens = ids(4)
    assert torch.equal(
        generate(plain, tokens, assistant_model=model, max_new_tokens=12), generate(plain, tokens, max_new_tokens=12)
    )


def test_prompt_lookup(looped):
    model, loop = looped
    tokens = torch.cat((ids(5), ids(5), ids(3)), dim=1)
    out = generate(model, tokens, prompt_lookup_num_tokens=3, max_new_tokens=10)
    assert out.shape == (1, 23)
    if loop == {**LOOP, **MODES["serial"]}:
        assert torch.equal(out, generate(model, tokens, max_new_tokens=10))


class Collector(BaseStreamer):
    def __init__(self):
        self.tokens, self.ended = [], False

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.ended = True


def test_streamer(looped):
    model, _ = looped
    streamer = Collector()
    out = generate(model, ids(4), streamer=streamer)
    assert streamer.tokens == out[0].tolist()
    assert streamer.ended


def test_prefill_in_chunks_by_generate_and_by_hand(looped):
    """`prefill_chunk_size` feeds the prompt in passes; the result is that of the same passes made by hand."""
    model, _ = looped
    tokens = ids(7)
    out = generate(model, tokens, prefill_chunk_size=3, output_logits=True, return_dict_in_generate=True)
    cache, logits = None, []
    with torch.no_grad():
        for part in (tokens[:, :3], tokens[:, 3:6], tokens[:, 6:], *out.sequences[:, 7:-1].split(1, dim=1)):
            step = model(part, past_key_values=cache)
            cache = step.past_key_values
            logits.append(step.logits[:, -1])
    close(torch.stack(out.logits), torch.stack(logits[2:]), WIDE)


def test_continuing_from_a_returned_cache(looped):
    model, _ = looped
    tokens = ids(5)
    first = generate(model, tokens, return_dict_in_generate=True, max_new_tokens=4)
    assert isinstance(first.past_key_values, LoopCache)
    assert first.past_key_values.get_seq_length() == 8  # the last token chosen has not been read
    second = generate(model, first.sequences, past_key_values=first.past_key_values, max_new_tokens=5)
    assert torch.equal(second, generate(model, tokens, max_new_tokens=9))


def test_a_prompt_cache_is_copied_and_used_twice(looped):
    """The usual way to reuse a system prompt: `copy.deepcopy` of its cache."""
    model, _ = looped
    tokens = ids(5)
    with torch.no_grad():
        cache = model(tokens[:, :4], past_key_values=LoopCache(model.config)).past_key_values
        kept = copy.deepcopy(cache)
        first = model(tokens[:, 4:], past_key_values=cache).logits
        assert kept.get_seq_length() == 4
        again = model(tokens[:, 4:], past_key_values=kept).logits
    assert torch.equal(first, again)


def test_crop_is_as_if_the_tokens_had_never_been_read(looped):
    model, _ = looped
    tokens, others = ids(6), ids(3, seed=7)
    with torch.no_grad():
        cache = model(tokens[:, :4]).past_key_values
        fresh = copy.deepcopy(cache)
        model(tokens[:, 4:5], past_key_values=cache)
        model(tokens[:, 5:], past_key_values=cache)
        cache.crop(-2)
        assert cache.get_seq_length() == 4
        assert cache.occupancy().bytes_used == fresh.occupancy().bytes_used
        for part in (others[:, :2], others[:, 2:]):
            assert torch.equal(model(part, past_key_values=cache).logits, model(part, past_key_values=fresh).logits)
        assert cache.occupancy() == fresh.occupancy()


@pytest.mark.parametrize("implementation", ["static", "quantized", "offloaded", "offloaded_static"])
def test_cache_implementations_that_know_no_loops_are_refused(implementation):
    model = build(LOOP)
    with pytest.raises(ValueError, match="cache_implementation"):
        generate(model, ids(4), cache_implementation=implementation)


@pytest.mark.parametrize("foreign", [DynamicCache, lambda: StaticCache(LlamaConfig(**SHAPE), max_cache_len=32)])
def test_a_foreign_cache_is_refused_on_a_looped_model(foreign):
    model = build(LOOP)
    with pytest.raises(ValueError, match=r"past_key_values.*LoopCache"):
        model(ids(4), past_key_values=foreign())
    with pytest.raises(ValueError, match=r"past_key_values.*LoopCache"):
        generate(model, ids(4), past_key_values=foreign())


LAYOUTS = [
    {"loop_layers": (0, 2)},
    {"loop_layers": (1, 1)},
    {"loop_layers": None},
    {"loop_layers": [(0, 0), (2, 2)]},
    {"virtual_layer_count": 3},
    {"kv_cache_mode": "merge_strategy"},
]


@pytest.mark.parametrize("change", LAYOUTS, ids=str)
def test_a_cache_of_another_layout_is_refused_and_left_as_it_was(change):
    model = build({**LOOP, "virtual_layer_count": 2})
    with torch.no_grad():
        cache = model(ids(4)).past_key_values
        before = cache.occupancy()
        expected = model(ids(1), past_key_values=copy.deepcopy(cache)).logits
        model.set_loop(**change)
        with pytest.raises(ValueError, match="cache") as refused:
            model(ids(1), past_key_values=cache)
        assert next(iter(change)) in str(refused.value)
        assert cache.occupancy() == before
        model(ids(1))  # a new cache is fine
        model.set_loop(loop_layers=(1, 2), virtual_layer_count=2, kv_cache_mode="virtual_layers")
        assert torch.equal(model(ids(1), past_key_values=cache).logits, expected)


def test_prefill_under_inference_mode_goes_on_under_no_grad(looped):
    model, _ = looped
    tokens = ids(6)
    with torch.inference_mode():
        cache = model(tokens[:, :5]).past_key_values
    with torch.no_grad():
        plain = model(tokens[:, :5]).past_key_values
        expected = model(tokens[:, 5:], past_key_values=plain).logits
        assert torch.equal(model(tokens[:, 5:], past_key_values=cache).logits, expected)
