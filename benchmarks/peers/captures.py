"""The same capture of every token by others' means, each as its own tool does it quickest.

A looped model is to others a plain Llama in whose list of layers the block's stand once a loop, on the same weight tensors, each with a
cache layer of its own (`benchmarks.decode.unrolled_llama`); ours computes the same with a slot a loop (`serial`). Captured of a
token: the state after each loop, and the likeliest tokens that norm and head read from it. Keys and values of every loop are in the
run's cache, on all sides, and cost nothing more there.

nnsight and TransformerLens are imported by the functions that need them: the rest runs without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from benchmarks.decode import Turnstile, encoded, streamed, unrolled_llama
from loopviz.model import LoopLlamaForCausalLM
from loopviz.trace.packed import decode_states

TOP = 5  # likeliest tokens that are kept of every loop, as StreamSettings has it
NEAR = 0.02  # relative: a Frame keeps states in float16, and another order of sums is another rounding

Read = Callable[[Tensor], Tensor]  # states [loops, H] to logits [loops, V]


@dataclass(frozen=True)
class Captured:
    """What is kept of a token, read at position t.

    Attributes:
        next_id: the token chosen after it.
        states: s_1 .. s_N, each `[H]`.
        top_ids, top_logprobs: of the lens at each loop, `[N, TOP]`, best first; log-probabilities in nats.
    """

    next_id: int
    states: Sequence[Tensor]
    top_ids: Tensor
    top_logprobs: Tensor


def loop_ends(block: Mapping[str, Any]) -> list[int]:
    """Of the unrolled layers, the last of each loop."""
    (a, b), count = block["loop_layers"], block["loop_count"]
    return [a + (b - a + 1) * loop - 1 for loop in range(1, count + 1)]


def captured(logits: Tensor, states: Sequence[Tensor], read: Read) -> Captured:
    """What a forward pass gave for its last token: logits `[1, T, V]`, the states after each loop `[H]`."""
    found = read(torch.stack(list(states))).float().log_softmax(-1).topk(TOP)
    return Captured(int(logits[0, -1].argmax()), states, found.indices, found.values)


def by_hidden_states(llama: LlamaForCausalLM, ends: Sequence[int], ids: Tensor) -> Iterator[Captured]:
    """transformers' own: `output_hidden_states` in a greedy loop over `forward`, and a lens beside it."""
    cache, token = DynamicCache(), ids
    while True:
        with torch.inference_mode():
            out = llama(token, past_key_values=cache, use_cache=True, output_hidden_states=True, logits_to_keep=1)
            states = [out.hidden_states[end + 1][0, -1] for end in ends]  # the first is what enters layer 0
            found = captured(out.logits, states, lambda rows: llama.lm_head(llama.model.norm(rows)))
        yield found
        token = torch.tensor([[found.next_id]])


def by_nnsight(llama: LlamaForCausalLM, tokenizer: Any, ends: Sequence[int], ids: Tensor, n: int) -> Iterator[Captured]:
    """nnsight: one traced `generate()`, each step of which reads the layers that end a loop."""
    from nnsight import TransformersModel

    traced, gate, found = TransformersModel(llama, tokenizer=tokenizer), Turnstile(), []

    def work() -> None:
        call = {"attention_mask": torch.ones_like(ids), "max_new_tokens": n, "do_sample": False, "streamer": gate}
        with torch.inference_mode(), traced.generate(ids, **call) as tracer:
            for _ in tracer.iter[:n]:
                states = [traced.model.layers[end].output[0, -1] for end in ends]
                logits = traced.lm_head.output
                found.append(captured(logits, states, lambda rows: traced.lm_head(traced.model.norm(rows))))

    threading.Thread(target=work, daemon=True).start()
    for _ in range(n):
        gate.go.release()
        gate.done.acquire()
        yield found.pop()
    gate.go.release()  # the last token's, that the thread may end


def by_transformer_lens(
    llama: LlamaForCausalLM, ends: Sequence[int], ids: Tensor, all_of_it: bool = False
) -> Iterator[Captured]:
    """TransformerLens: its bridge over the model, which it changes, and `run_with_cache` a token.

    Args:
        all_of_it: every activation is kept, as it is where no names are given; else the states after each loop.
    """
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.utilities.attn_implementation import force_eager_attention

    force_eager_attention(llama)  # as its own loader does
    bridge = build_bridge_from_module(llama, "LlamaForCausalLM", hf_config=llama.config)  # tokens go in
    names = [f"blocks.{end}.hook_out" for end in ends]
    call = {"return_type": "logits_and_cache", "use_cache": True, "names_filter": None if all_of_it else names}
    past, token = None, ids
    while True:
        with torch.inference_mode():
            (logits, past), kept = bridge.run_with_cache(token, past_key_values=past, **call)
            states = [kept[name][0, -1] for name in names]
            found = captured(logits, states, lambda rows: bridge.unembed(bridge.ln_final(rows[None]))[0])
        yield found
        token = torch.tensor([[found.next_id]])


def by_stream(model: LoopLlamaForCausalLM, tokenizer: Any, n: int, extras: Sequence[str] = ()) -> Iterator[Any]:
    """Ours: the Frames of a run that records everything."""
    return streamed(model, tokenizer, n, "full", extras)


def of_frame(frame: Mapping[str, Any], hidden: int) -> Captured:
    """What a Frame has of the same, of a model of so many hidden numbers."""
    block = frame["blocks"][0]
    steps, states = block["steps"], torch.tensor(decode_states(block["states"], hidden))
    top = torch.tensor(steps["topk_ids"]), torch.tensor(steps["topk_logprobs"])
    return Captured(frame["next_id"], [*states[1:]], *top)


def same(one: Captured, other: Captured) -> str:
    """What of two captures of a token differs; "" where nothing does beyond rounding."""
    if one.next_id != other.next_id:
        return f"next token {one.next_id} and {other.next_id}"
    for loop, (a, b) in enumerate(zip(one.states, other.states, strict=True), 1):
        off = float((a.float() - b.float()).norm() / a.float().norm())
        if not off <= NEAR:
            return f"the state after loop {loop} is off by {off:.3g} of its norm"
    if not torch.allclose(one.top_logprobs.float(), other.top_logprobs.float(), atol=0.05):
        return "the lens' log-probabilities"
    return ""


def check_same(sides: Mapping[str, Iterable[Any]], tokens: int, hidden: int) -> None:
    """Let all sides capture a few tokens.

    Args:
        sides: of which the first is what the others are held to; an item is a Captured or a Frame.
        hidden: numbers of a state.

    Raises:
        SystemExit: one captures something else: times of it would mean nothing.
    """
    started = {name: iter(side) for name, side in sides.items()}
    first = next(iter(started))
    for at in range(tokens):
        found = {name: next(side) for name, side in started.items()}
        found = {name: of_frame(item, hidden) if isinstance(item, dict) else item for name, item in found.items()}
        for name, item in found.items():
            if what := same(found[first], item):
                raise SystemExit(f"token {at} of {name} is not that of {first}: {what}")


def peers(model: LoopLlamaForCausalLM, tokenizer: Any, block: Mapping[str, Any], n: int) -> dict[str, Iterator[Any]]:
    """The peers' sides by name, on one model's weights: each on modules of its own, for they change what they watch."""
    ids, ends = encoded(tokenizer), loop_ends(block)
    return {
        "hidden states + lens": by_hidden_states(unrolled_llama(model, block), ends, ids),
        "nnsight": by_nnsight(unrolled_llama(model, block), tokenizer, ends, ids, n),
        "TransformerLens": by_transformer_lens(unrolled_llama(model, block), ends, ids),
        "TransformerLens, all of it": by_transformer_lens(unrolled_llama(model, block), ends, ids, True),
    }
