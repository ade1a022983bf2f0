"""What a precision costs: one model held in several formats, compared with float32 and timed in turns.

Exact is the reference of everything: a format's logits stand beside float32's for the same tokens of a held-out text. Times are
medians of rounds in which every format takes its turn, so that what disturbs one disturbs all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopviz.engine.lowered import fidelity
from loopviz.engine.single_run import context_length
from loopviz.lab.reading.windows import encode
from loopviz.model import LoopLlamaForCausalLM, LoopStep
from loopviz.model.checkpoints.errors import CheckpointError
from loopviz.model.checkpoints.layout_choice import arrange
from loopviz.model.checkpoints.load import load_checkpoint, prepare_checkpoint
from loopviz.model.checkpoints.precision_choice import measured
from loopviz.model.precision import weight_bytes
from loopviz.trace.metrics import rel_delta

EXACT = "float32"
FORMATS = (EXACT, "float16", "bfloat16", "int8")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        tokens, window: of the text that is compared, in windows that know nothing of each other.
        loops: for the floor, how often a looped block runs.
        prompt, new: tokens of a timed prefill, and decoded after it.
        rounds: of which the times are medians.
    """

    tokens: int = 1024
    window: int = 256
    loops: int = 32
    prompt: int = 64
    new: int = 16
    rounds: int = 5


@dataclass(frozen=True)
class Cost:
    """What one format costs a model.

    Attributes:
        kl: KL(float32 || it), nats, mean over the tokens; same: share of tokens with the same likeliest next one.
        n_tokens: that both are of.
        floor: the smallest relative change |s_r - s_{r-1}| / |s_r| that late loops settle to, median over tokens; 0 where rounding lets
            it stand still; None without a loop.
        n_bytes: of its weights.
        decode_ms, prefill_ms: a token, decoded and of a prefill.
    """

    model: str
    held: str
    kl: float
    same: float
    n_tokens: int
    floor: float | None
    n_bytes: int
    decode_ms: float
    prefill_ms: float


def costs(
    name: str,
    text: str,
    formats: Sequence[str] = FORMATS,
    plan: Plan | None = None,
    *,
    loop: Mapping[str, Any] | None = None,
    quantizations: Sequence[str] = (),
    told: Callable[[str], object] = lambda line: None,
) -> list[Cost]:
    """The costs of a model's formats, float32 first.

    Args:
        name: of the model, as `load_checkpoint` takes it.
        text: held out of what it was trained on.
        formats: names of `loopviz.machine.HELD_IN`; float32 is measured whether it is among them or not.
        loop: loop fields; None: the model's own.
        quantizations: of `loopviz.machine.QUANTIZATIONS`, rows of their own: packed by bitsandbytes, all else float32.
        told: told why a format that cannot be had is left out.

    Raises:
        CheckpointError: the model cannot be had at all.
        ValueError: the text has fewer than two tokens.
    """
    plan = plan or Plan()
    models, tokenizer = _loaded(name, formats, quantizations, loop or {}, told)
    ids = encode(tokenizer, text, plan.tokens)
    window = min(plan.window, context_length(models[EXACT]))
    if len(ids) < 2:
        raise ValueError(f"text: {len(ids)} tokens for {name}, and at least 2 are needed; give a longer one")
    times = _in_turns(models, torch.tensor([list(ids)]), plan)
    exact = torch.cat([logits for _, logits in _windows(models[EXACT], ids, window)])
    found = []
    for held, model in models.items():
        beside = fidelity(exact, torch.cat([logits for _, logits in _windows(model, ids, window)]))
        floor = convergence_floor(model, next(_windows(model, ids, window))[0], plan.loops)
        found.append(Cost(name, held, beside.kl, beside.same, beside.tokens, floor, weight_bytes(model), *times[held]))
    return found


def _loaded(
    name: str,
    formats: Sequence[str],
    quantizations: Sequence[str],
    loop: Mapping[str, Any],
    told: Callable[[str], object],
) -> tuple[dict[str, LoopLlamaForCausalLM], Any]:
    first = load_checkpoint(name, **loop)
    models = {EXACT: first.model}
    ways: dict[str, dict[str, Any]] = {held: {"dtype": getattr(torch, held)} for held in formats if held != EXACT}
    ways |= {f"{kind} (bitsandbytes)": {"quantization": kind} for kind in quantizations}
    for held, way in ways.items():
        try:
            models[held] = load_checkpoint(name, **way, **loop).model
        except CheckpointError as error:
            told(f"{name} is not held in {held}: {error}")
    for model in models.values():
        arrange(model)  # as it is run
    return models, first.tokenizer


def seconds_to_choose(name: str, loop: Mapping[str, Any] | None = None) -> float:
    """Seconds in which `half` and `auto` are measured for a model on this machine, where no cache knows them yet.

    Args:
        name, loop: as :func:`costs` takes them.

    Raises:
        CheckpointError: the model cannot be had.
    """
    config = prepare_checkpoint(name, **(loop or {})).config
    began = time.perf_counter()
    measured(config.hidden_size)
    return time.perf_counter() - began


@torch.inference_mode()
def _windows(model: LoopLlamaForCausalLM, ids: Any, window: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each window's tokens `[1, T]`, and the logits `[T, V]` after them."""
    for part in range(0, len(ids), window):
        tokens = torch.tensor([[int(each) for each in ids[part : part + window]]])
        yield tokens, model(tokens, use_cache=False).logits[0].float()


@torch.inference_mode()
def convergence_floor(model: LoopLlamaForCausalLM, tokens: Tensor, loops: int) -> float | None:
    """The smallest relative change of a state that the later half of `loops` loops comes to: of each, the median over tokens and blocks.

    Args:
        tokens: `[1, T]`.
    """
    if not model.config.loop_blocks():
        return None
    view = model.with_loop(loop_count=loops, loop_strategy="fixed_count", max_loop_count=loops)
    changes: dict[int, list[Tensor]] = {}

    def hear(step: LoopStep) -> None:
        changes.setdefault(step.step, []).append(rel_delta(step.state, step.previous).flatten())

    handle = view.register_loop_hook(hear)
    try:
        view.model(tokens, use_cache=False)
    finally:
        handle.remove()
    late = [torch.cat(found).median() for step, found in changes.items() if step > loops // 2]
    return float(min(late))


def _in_turns(models: Mapping[str, LoopLlamaForCausalLM], ids: Tensor, plan: Plan) -> dict[str, tuple[float, float]]:
    """Median milliseconds a token of each format, decoded and of a prefill; who goes first changes each round."""
    decode: dict[str, list[float]] = {held: [] for held in models}
    prefill: dict[str, list[float]] = {held: [] for held in models}
    for turn in range(plan.rounds + 1):
        for held in [*models] if turn % 2 else [*models][::-1]:
            first, rest = _timed(models[held], ids, plan)
            if turn:  # the first warms up
                prefill[held].append(first)
                decode[held].extend(rest)
    return {held: (statistics.median(decode[held]), statistics.median(prefill[held])) for held in models}


@torch.inference_mode()
def _timed(model: LoopLlamaForCausalLM, ids: Tensor, plan: Plan) -> tuple[float, list[float]]:
    """Milliseconds a token of a prefill, and of every token after it: the text's own, so that every format reads the same."""
    room = min(ids.shape[1], context_length(model))
    prompt = max(1, min(plan.prompt, room - 1))
    started = time.perf_counter()
    cache = model(ids[:, :prompt], use_cache=True, logits_to_keep=1).past_key_values
    first, found = (time.perf_counter() - started) * 1000 / prompt, []
    for at in range(prompt, min(prompt + plan.new, room)):
        started = time.perf_counter()
        cache = model(ids[:, at : at + 1], past_key_values=cache, use_cache=True).past_key_values
        found.append((time.perf_counter() - started) * 1000)
    return first, found


def markdown(rows: Sequence[Cost], about: str) -> str:
    """The costs as a Markdown table, under a line that says where they were measured."""
    lines = [
        about,
        "",
        "| model | held in | KL to float32, nats | same likeliest token | floor of a loop | weights, MB | ms a token, decode | prefill |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        floor = (
            "" if row.floor is None else f"{row.floor:.1e}" if row.floor else "0"
        )  # 0: it stands still, to the last bit
        kl = "0" if row.held == EXACT else f"{row.kl:.2g}"
        lines.append(
            f"| {row.model} | {row.held} | {kl} | {100 * row.same:.1f} % | {floor} | {row.n_bytes / 1e6:,.1f} | "
            f"{row.decode_ms:.3g} | {row.prefill_ms:.3g} |"
        )
    return "\n".join(lines)
