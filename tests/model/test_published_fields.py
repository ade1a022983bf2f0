"""The fields that published looped models need, each against the formula written out, and against what they must not change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from loopviz.checks import FieldError
from loopviz.lab.reading.exit_replay import max_loop_view
from loopviz.lab.reading.full_pass import each_exit, fixed
from loopviz.loop_fields import NORM_PLACEMENTS, QK_NORMS
from loopviz.model import LoopCache, LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.checkpoints import load_model
from loopviz.model.exit_gate import ExitGate, exit_pdf, exit_steps, read_out
from loopviz.model.start_state import _noise, start_state

from .tiny import SHAPE, build, close, ids, record

PUBLISHED = {
    "ouro": {"loop_layers": (0, 3), "loop_final_norm": "every_step", "exit_selection": "gate", "exit_threshold": 0.6},
    "huginn": {
        "loop_layers": (1, 2),
        "loop_final_norm": "last_step",
        "loop_init": "random",
        "loop_init_std": 0.6,
        "loop_injection": "linear",
    },
    "weighted": {"loop_layers": (2, 3), "exit_selection": "gate_weighted"},
    "two blocks": {
        "loop_layers": [(0, 1), (2, 3)],
        "loop_final_norm": ["every_step", "last_step"],
        "loop_init": ["entry", "zeros"],
        "loop_injection": ["none", "add"],
    },
}
SERIAL = {"virtual_attention_mode": "serial", "virtual_layer_count": 3, "loop_count": 3}


def stepped(model: LoopLlamaForCausalLM, tokens: Tensor, **more: Tensor) -> Tensor:
    """Logits token by token through a cache."""
    cache, found = LoopCache(model.config), []
    for t in range(tokens.shape[1]):
        mask = {"attention_mask": more["attention_mask"][:, : t + 1]} if more else {}
        found.append(model(tokens[:, t : t + 1], past_key_values=cache, use_cache=True, **mask).logits)
    return torch.cat(found, dim=1)


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("placement", NORM_PLACEMENTS)
@pytest.mark.parametrize("qk", QK_NORMS)
def test_norms_stand_where_the_formula_has_them(placement, qk):
    model = build(norm_placement=placement, qk_norm=qk)
    layer = model.model.layers[0]
    x = torch.randn(2, 5, SHAPE["hidden_size"], generator=torch.Generator().manual_seed(1))
    cos, sin = model.model.rotary_emb(x, position_ids=torch.arange(5)[None])
    mask = torch.full((5, 5), -torch.inf).triu(1)[None, None]

    def norm(of: LlamaRMSNorm, values: Tensor) -> Tensor:
        return of.weight * values * (values.pow(2).mean(-1, keepdim=True) + of.variance_epsilon).rsqrt()

    def attention(values: Tensor) -> Tensor:
        a, heads = layer.self_attn, {}
        for name in ("q", "k", "v"):
            projection = getattr(a, f"{name}_proj")
            made = values @ projection.weight.T
            if name != "v" and qk == "full":
                made = norm(projection.norm, made)
            made = made.unflatten(-1, (-1, a.head_dim))
            if name != "v" and qk == "head":
                made = norm(projection.norm, made)
            made = made.transpose(1, 2)
            if name != "v":
                half = a.head_dim // 2
                made = made * cos[:, None] + torch.cat((-made[..., half:], made[..., :half]), -1) * sin[:, None]
            heads[name] = made if name == "q" else made.repeat_interleave(2, dim=1)
        scores = heads["q"] @ heads["k"].transpose(2, 3) * a.head_dim**-0.5 + mask
        return (scores.softmax(-1) @ heads["v"]).transpose(1, 2).flatten(2) @ a.o_proj.weight.T

    stream = x
    for f, name in ((attention, "input_layernorm"), (layer.mlp, "post_attention_layernorm")):
        before, after = getattr(layer, name), getattr(layer, f"{name}_2", None)
        if placement == "pre":
            stream = stream + f(norm(before, stream))
        elif placement == "pre_branch":
            stream = stream + norm(after, f(norm(before, stream)))
        elif placement == "pre_stream":
            stream = norm(after, stream + f(norm(before, stream)))
        else:
            stream = stream + norm(after, f(stream))
    close(layer(x, attention_mask=mask, position_embeddings=(cos, sin)), stream, 5e-5)


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("loop", PUBLISHED.values(), ids=PUBLISHED)
@pytest.mark.parametrize("placement", ["pre_branch", "branch"])
def test_token_by_token_is_one_pass(loop, placement):
    model = build({**SERIAL, **loop}, norm_placement=placement, qk_norm="head", embedding_scale=1.7)
    tokens = ids(9, rows=2)
    close(stepped(model, tokens), model(tokens).logits, 5e-5)


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("loop", PUBLISHED.values(), ids=PUBLISHED)
def test_padding_and_neighbours_change_nothing(loop):
    model = build({**SERIAL, **loop}, norm_placement="pre_stream")
    tokens, mask = ids(9, rows=2), torch.ones(2, 9, dtype=torch.int64)
    mask[1, :4] = 0
    alone = model(tokens[1:, 4:]).logits
    close(model(tokens, attention_mask=mask).logits[1:, 4:], alone, 5e-5)
    close(stepped(model, tokens, attention_mask=mask)[1:, 4:], alone, 5e-5)


@pytest.mark.parametrize("loop", PUBLISHED.values(), ids=PUBLISHED)
def test_it_is_saved_generates_and_learns(loop, tmp_path):
    model = build({**SERIAL, **loop}, norm_placement="branch", qk_norm="full", embedding_scale=0.5)
    model.save_pretrained(tmp_path)
    again = LoopLlamaForCausalLM.from_pretrained(tmp_path)
    tokens = ids(6, rows=2)
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    said = model.generate(tokens, max_new_tokens=4, do_sample=False, num_beams=2)
    assert torch.equal(again.generate(tokens, max_new_tokens=4, do_sample=False, num_beams=2), said)
    model(tokens, labels=tokens).loss.backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    chooses = model.config.exit_selection == "gate"  # which state is taken has no gradient
    assert all("loop_gates" in name for name in still)
    assert bool(still) == chooses


@pytest.mark.usefixtures("no_gradients")
def test_noise_follows_from_seed_block_and_place():
    loop = {**SERIAL, "loop_layers": (1, 2), "loop_init": "random", "loop_init_std": 0.7}
    model, tokens = build(loop), ids(150)

    def starts(view: LoopLlamaForCausalLM, *args: Tensor) -> Tensor:
        events, handle = record(view)
        view(*args)
        handle.remove()
        return events[0].previous

    found = starts(model, tokens)
    assert torch.equal(found, starts(model, tokens))
    assert torch.equal(found[:, :70], starts(model, tokens[:, :70]))
    assert not torch.equal(found, starts(model.with_loop(loop_init_seed=1), tokens))
    assert not torch.equal(found[:, 0], found[:, 1])
    assert float(found.abs().max()) <= 3 * 0.7
    assert 0.6 < float(found.std()) < 0.75
    assert not bool(starts(model.with_loop(loop_init="zeros"), tokens).any())
    assert not bool(starts(model.with_loop(loop_init_std=0.0), tokens).any())
    model.train()
    assert not torch.equal(starts(model, tokens), starts(model, tokens))


def test_a_gates_probabilities_by_hand():
    rates = torch.tensor([0.5, 0.2, 0.9])[:, None, None].expand(3, 2, 1)
    steps = torch.tensor([3, 2])
    pdf = exit_pdf(rates, steps)
    close(pdf[:, 0, 0], torch.tensor([0.5, 0.1, 0.4]), 1e-6)
    close(pdf[:, 1, 0], torch.tensor([0.5, 0.5, 0.0]), 1e-6)
    for threshold, first in ((0.0, [1, 1]), (0.5, [1, 1]), (0.55, [2, 2]), (0.7, [3, 2])):
        assert exit_steps(pdf, threshold, steps).flatten().tolist() == first


@pytest.mark.usefixtures("no_gradients")
def test_what_is_normed_already_is_not_normed_again():
    model = build({**SERIAL, "loop_layers": (2, 3), "loop_final_norm": "every_step"})
    tokens = ids(7)
    events, handle = record(model)
    logits = model(tokens).logits
    handle.remove()
    assert torch.equal(logits, model.lm_head(events[-1].state))
    close(model.exit_lens(torch.stack([event.state for event in events]))[-1], logits, 1e-5)


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("layers", [(1, 2), (2, 3)])
def test_the_recorded_lens_norms_once(layers):
    from loopviz.trace.recording.recorder import Recorder

    model = build({**SERIAL, "loop_layers": layers, "loop_final_norm": "every_step"})
    recorder = Recorder(model, 3, str, extras=("exit",))
    tokens = ids(6)
    events, handle = record(model)
    cache = LoopCache(model.config)
    try:
        hidden = model.model(tokens, past_key_values=cache, use_cache=True).last_hidden_state
        (reading,) = recorder.read(hidden, cache)
    finally:
        handle.remove()
        recorder.close()
    close(reading.logits[1:4], torch.stack([model.lm_head(event.state[0]) for event in events]), 1e-5)
    close(reading.logits[0], model.lens(events[0].previous[0]), 1e-5)


@pytest.mark.usefixtures("no_gradients")
def test_unreached_slots_hold_the_latest():
    loop = {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "convergence_criterion": "cosine",
        "cosine_threshold": 1e-6,
        "min_loop_count": 2,
        "virtual_layer_count": 4,
        "virtual_attention_mode": "serial",
    }
    with pytest.raises(FieldError, match="unreached_slots='latest'"):
        build(loop)
    model = build({**loop, "unreached_slots": "latest"})
    cache = LoopCache(model.config)
    model(ids(5, rows=2), past_key_values=cache, use_cache=True)
    steps = cache.loop_steps[0].tolist()
    assert min(steps) < 4
    for row, n in enumerate(steps):
        keys = cache.layers[1].keys[row, :, :5]
        assert all(torch.equal(keys[:, :, slot], keys[:, :, n - 1]) for slot in range(n, 4))
        assert not torch.equal(keys[:, :, 0], keys[:, :, n - 1])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loop_init_std": -1.0}, r"loop_init_std=-1.0: must be a finite number in \[0, 1000\]"),
        ({"loop_init_std": float("nan")}, r"loop_init_std=nan: must be a finite number in \[0, 1000\]"),
        ({"loop_init_std": 1e39}, "loop_init_std=1e.39: must be"),
        ({"loop_init_seed": -1}, "loop_init_seed=-1: must be a whole number from 0 to"),
        ({"loop_init_seed": 2**31}, "loop_init_seed=2147483648: must be a whole number from 0 to"),
        ({"embedding_scale": 1e39}, "embedding_scale=1e.39: must be a finite number in"),
        ({"exit_threshold": 1.5}, r"exit_threshold=1.5: must be a finite number in \[0, 1\]"),
        ({"exit_selection": "first"}, "exit_selection='first': must be one of 'last', 'gate', 'gate_weighted'"),
        ({"exit_selection": "gate_weighted"}, "exit_selection='gate_weighted': layers follow block 0"),
        (
            {"norm_placement": "post"},
            "norm_placement='post': must be one of 'pre', 'pre_branch', 'pre_stream', 'branch'",
        ),
        ({"qk_norm": True}, "qk_norm=True: must be one of"),
        ({"embedding_scale": 0}, "embedding_scale=0: must be a finite number in"),
        ({"criterion_threshold": -0.1}, "criterion_threshold=-0.1: must be a finite number >= 0"),
    ],
)
def test_what_a_field_may_not_be(fields, said):
    with pytest.raises(FieldError, match=said):
        LoopLlamaConfig(**SHAPE, loop_layers=(1, 2), **fields)


def test_a_rule_that_reads_the_end_is_for_the_last_block():
    loop = {"loop_layers": [(0, 0), (2, 2)], "loop_strategy": "dynamic_stop", "virtual_layer_count": 1}
    with pytest.raises(FieldError, match="which block 0 cannot know"):
        LoopLlamaConfig(**SHAPE, **loop, convergence_criterion="huginn_kl")
    LoopLlamaConfig(**SHAPE, **loop, convergence_criterion=["cosine", "huginn_kl"])


def test_a_live_model_cannot_grow_a_gate_and_a_broken_one_is_named():
    plain = build({"loop_layers": (1, 2)})
    with pytest.raises(FieldError, match="exit_selection='gate': block 0 has no weights"):
        plain.set_loop(exit_selection="gate")
    model = build({**SERIAL, "loop_layers": (1, 2), "exit_selection": "gate"})
    cache = LoopCache(model.config)
    model(ids(4), past_key_values=cache, use_cache=True)
    with torch.no_grad():
        model.model.loop_gates["0"].bias.fill_(torch.nan)
    with pytest.raises(FieldError, match="the exit gate of block 0 gives what is no number"):
        model(ids(1), past_key_values=cache, use_cache=True)
    assert cache.get_seq_length() == 4


def test_embedding_scale_is_of_embeddings_alone():
    model = build(embedding_scale=3.0, tie_word_embeddings=True)
    tokens = ids(5)
    embeds = model.model.embed_tokens(tokens)
    assert torch.equal(model(tokens).logits, model(inputs_embeds=3.0 * embeds).logits)
    hidden = model.model(tokens).last_hidden_state
    assert torch.equal(model(tokens).logits, hidden @ model.model.embed_tokens.weight.T)


@pytest.mark.usefixtures("no_gradients")
def test_a_random_start_is_the_same_token_by_token_and_as_dear_far_on():
    """The whole table of places was made anew for every token."""
    block = build({**SERIAL, "loop_layers": (1, 2), "loop_init": "random", "loop_init_std": 0.7}).config.loop_blocks()[
        0
    ]
    entry = torch.zeros(1, 300, 32)
    places = torch.arange(300)[None]
    whole = start_state(block, entry, places, False)
    for t in (0, 63, 64, 65, 200, 299):
        assert torch.equal(start_state(block, entry[:, :1], places[:, t : t + 1], False), whole[:, t : t + 1])
    made = _noise.cache_info().misses
    far = start_state(block, entry[:, :1], torch.tensor([[1_000_000]]), False)
    assert _noise.cache_info().misses == made + 1
    assert bool(far.any())


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize(
    "off",
    [
        ({"exit_selection": "gate", "exit_threshold": 0.5}, {"exit_selection": "last"}),
        ({"loop_injection": "linear"}, {"loop_injection": "none"}),
        ({"loop_norm": True}, {"loop_norm": False}),
    ],
)
def test_what_was_switched_off_is_not_saved_and_the_folder_opens(off, tmp_path):
    """It was refused: its weights were there, and its config.json asked for none."""
    made, changed = off
    model = build({**SERIAL, "loop_layers": (1, 3), **made})
    model.set_loop(**changed)
    model.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert torch.equal(again.eval()(ids(9)).logits, model.eval()(ids(9)).logits)
    model.set_loop(**made)
    model.save_pretrained(tmp_path / "with")
    assert torch.equal(load_model(tmp_path / "with").eval()(ids(9)).logits, model(ids(9)).logits)


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize(
    "how", [{"exit_selection": "gate", "exit_threshold": 0.4}, {"exit_selection": "gate_weighted"}, {}]
)
def test_each_loop_count_is_what_a_model_set_to_it_says_also_under_a_gate(how):
    """The exit lens knows of no gate: logits were off by up to 7."""
    model = build({**SERIAL, "loop_layers": (1, 3), "loop_count": 4, "loop_final_norm": "every_step", **how})
    for gate in model.model.loop_gates.values():
        gate.weight.normal_(generator=torch.Generator().manual_seed(3))
    tokens, found = ids(11), {}
    each_exit(model, tokens, (1, 2, 4), lambda r, hidden: found.update({r: model.lm_head(hidden)}))
    for r in (1, 2, 4):
        close(found[r], fixed(model, r)(tokens, use_cache=False).logits, 1e-4)
    if how:
        with pytest.raises(ValueError, match="exit_selection='gate"):
            each_exit(model, tokens, (1, 2), lambda *_: None, watch=lambda _: None)
        with pytest.raises(FieldError, match="set exit_selection='last'"):
            max_loop_view(model, {}, 3)


@pytest.mark.usefixtures("no_gradients")
def test_a_chooser_looks_at_what_a_block_before_has_normed_as_it_is():
    model = build(
        {"loop_layers": [(0, 1), (2, 3)], "loop_count": 2, "loop_final_norm": ["every_step", "none"]}
        | {"layer_chooser": ["none", "difficulty"], "virtual_layer_count": 1}
    )
    seen, lens = [], model.model.lens
    model.model.lens = lambda states, normed=False: seen.append(normed) or lens(states, normed=normed)
    model(ids(6), use_cache=False)
    assert seen
    assert all(seen), "the difficulty of a token is told of e, which the first block has normed"


def test_a_gate_is_held_to_numbers_of_real_tokens_alone():
    block = LoopLlamaConfig(**SHAPE, loop_layers=(1, 3), exit_selection="gate").loop_blocks()[0]
    gate = ExitGate(4).double()
    states = torch.randn(2, 1, 3, 4, dtype=torch.float64)
    states[:, 0, 0] = float("nan")
    real = torch.tensor([[False, True, True]])
    _, exits = read_out(block, gate, list(states), list(states), torch.tensor([2]), real)
    assert exits.pdf.dtype == torch.float64
    with pytest.raises(FieldError, match="exit_selection"):
        read_out(block, gate, list(states), list(states), torch.tensor([2]), None)
