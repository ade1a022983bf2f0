"""A run in a few numbers, for a closing table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from loopviz.trace.exits import read_out_step
from loopviz.trace.pace import sharing_of, tokens_per_second
from loopviz.trace.trace import Trace


@dataclass(frozen=True)
class BlockSummary:
    """Loops of one block over all tokens of a trace.

    Attributes:
        layers: ``(a, b)``.
        mean_steps, max_steps: of N over tokens.
        reasons: stop reason to tokens, most frequent first.
        mean_read_out: the loop step that its exit gate had tokens read out from, on average over those that it spoke of
            (:func:`loopviz.trace.exits.read_out_step`); None without a gate.
    """

    layers: tuple[int, int]
    mean_steps: float
    max_steps: int
    reasons: dict[str, int]
    mean_read_out: float | None = None


@dataclass(frozen=True)
class Summary:
    """What a trace adds up to.

    Attributes:
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens chosen.
        finish: why it ended; None when it was stopped (or is not over).
        blocks: one record a looped block.
        bytes_used, bytes_allocated, bytes_plain, bytes_unrolled: of the cache at the last token, bytes.
        tokens_per_second: tokens generated a second by the clock, see :class:`loopviz.trace.pace.Pace`.
        model_tokens_per_second: passes of one token a second of ``pass_ms``: the model and its head alone, without
            choosing words, recording and showing them; None before the first such pass.
        runs_per_pass: runs that shared such a pass, this one counted, on average (:class:`loopviz.trace.pace.Sharing`): above
            1, both speeds are those of passes in which others' tokens were read too; None when it is not known.
    """

    prompt_tokens: int
    new_tokens: int
    finish: str | None
    blocks: list[BlockSummary]
    bytes_used: int
    bytes_allocated: int
    bytes_plain: int
    bytes_unrolled: int
    tokens_per_second: float | None
    model_tokens_per_second: float | None
    runs_per_pass: float | None


def summarize(trace: Trace) -> Summary:
    """The Summary of ``trace``; ValueError when it has no frame yet."""
    if not trace.frames:
        raise ValueError("trace: no frame yet, nothing to sum up")
    blocks = []
    for i, spec in enumerate(trace.meta["blocks"]):
        counts = [frame["blocks"][i]["n_steps"] for frame in trace.frames]
        reasons = Counter(frame["blocks"][i]["stop_reason"] for frame in trace.frames)
        gates = [gate for frame in trace.frames if (gate := frame["blocks"][i]["gate"]) is not None]
        blocks.append(
            BlockSummary(
                layers=tuple(spec["layers"]),
                mean_steps=sum(counts) / len(counts),
                max_steps=max(counts),
                reasons=dict(reasons.most_common()),
                mean_read_out=sum(map(read_out_step, gates)) / len(gates) if gates else None,
            )
        )
    last, prompt = trace.frames[-1], trace.meta["prompt_tokens"]
    passes = [frame["pass_ms"] for frame in trace.frames if frame["phase"] == "generated"]
    spent = sum(ms for ms in passes if ms is not None)
    return Summary(
        prompt_tokens=prompt,
        new_tokens=max(0, len(trace) - prompt + 1),
        finish=last["finish"],
        blocks=blocks,
        **{name: last["kv"][name] for name in ("bytes_used", "bytes_allocated", "bytes_plain", "bytes_unrolled")},
        tokens_per_second=tokens_per_second(trace.frames),
        model_tokens_per_second=1000 * len(passes) / spent if spent else None,
        runs_per_pass=sharing_of(trace.frames).mean,
    )
