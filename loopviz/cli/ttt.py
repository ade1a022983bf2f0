"""``run`` of a TTT model: the text to stdout, and to stderr a line a layer of what its memory did."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from loopviz.checks import check_finite
from loopviz.cli.options import option
from loopviz.machine import UsageError
from loopviz.paths import model_type_of

if TYPE_CHECKING:
    from pathlib import Path

    from loopviz.engine.ttt_local import LocalTTT
    from loopviz.trace import Trace

PrintText = Callable[[Any, "Trace", bool], "BaseException | None"]
# Options of `run` that are about loops, or about what a TTT run does not record.
IDLE = ("beams", "change", "extras", "chat", "template", "input", "no_record", "top_tokens")
HEAD = f"{'layer':>5}  {'loss before':>11}  {'after':>8}  {'|W - W0|':>8}  {'of |W0|':>7}  {'rate':>8}"


def is_ttt(model: str) -> bool:
    """Whether `run --model` names a TTT model: one that comes along, or a folder whose config.json says so."""
    return model_type_of(model) == "ttt"


def run_ttt(
    options: argparse.Namespace,
    loop: Mapping[str, Any],
    fields: Mapping[str, Any],
    prompt: str,
    show: PrintText,
    save: Callable[[Trace, Any, Path], None],
) -> int:
    """Make the run.

    Args:
        loop: loop fields that were given: each is refused.
        fields: of `StreamSettings`.
        show: prints the text as it comes into the trace.
        save: writes the trace, with what its numbers come from, to the file of `--save`.
    """
    given = [*loop, *(name for name in IDLE if getattr(options, name))]
    if given:
        raise UsageError(f"{', '.join(map(option, given))}: no effect on a TTT model; leave it out")
    if options.dtype not in (None, "float32"):
        raise UsageError(f"--dtype {options.dtype}: a TTT model runs in float32 here; leave it out")
    if options.precision not in (None, "exact"):
        raise UsageError(f"--precision {options.precision}: a TTT model runs in float32 here; leave it out")
    if options.quantization is not None:
        raise UsageError(f"--quantization {options.quantization}: a TTT model runs in float32 here; leave it out")
    import torch

    from loopviz.engine.engine import TTTRequest
    from loopviz.engine.ttt_local import load_ttt
    from loopviz.engine.ttt_stream import MOST_LR_SCALE
    from loopviz.trace import Trace

    scale = 1.0 if options.inner_lr is None else options.inner_lr
    check_finite("--inner-lr", scale, 0, MOST_LR_SCALE)
    from loopviz.model.devices import resolve_device

    place = resolve_device(options.device, torch.float32)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    engine: LocalTTT = load_ttt(options.model, lambda stage, share: None, True)
    engine.model.to(place)
    handle = engine.start(TTTRequest(prompt, dict(fields), scale))
    trace = Trace(handle.meta)
    ended = show(handle.frames, trace, True)
    if len(trace):
        print(table(trace), file=sys.stderr)
        if options.save is not None:
            save(trace, engine.model, options.save)
    if ended is not None:
        raise ended
    return 0


def table(trace: Trace) -> str:
    """What the memory did: a line a layer, means over heads and tokens; then its bytes and the time of a token."""
    from loopviz.trace.schema import decode_singles

    meta = trace.meta["ttt"]
    shape = (meta["layers"], meta["heads"])

    def of(frame: Any, name: str) -> Any:
        return decode_singles(frame["ttt"][name], 1).reshape(shape).mean(1)  # [L]

    def mean(name: str) -> Any:
        return sum(of(frame, name) for frame in trace.frames) / len(trace)

    before, after, rate, last = mean("loss_before"), mean("loss_after"), mean("lr"), of(trace.frames[-1], "drift")
    lines = [HEAD]
    for layer in range(meta["layers"]):
        start = sum(meta["start_norm"][layer]) / meta["heads"]
        share = f"{last[layer] / start:.0%}" if start else "-"
        lines.append(
            f"{layer:>5}  {before[layer]:>11.4g}  {after[layer]:>8.4g}  {last[layer]:>8.4g}  {share:>7}  {rate[layer]:>8.3g}"
        )
    made = [
        frame["pass_ms"] for frame in trace.frames if frame["phase"] == "generated" and frame["pass_ms"] is not None
    ]
    ms = f", {sorted(made)[len(made) // 2]:.1f} ms a generated token (median)" if made else ""
    lines.append(
        f"{len(trace)} tokens read, {meta['mini_batch']} a mini-batch; state {meta['state_bytes']:,} bytes, whatever is read; "
        f"attention of the same sizes: {trace.frames[-1]['kv']['bytes_plain']:,} bytes by now{ms}"
    )
    return "\n".join(lines)
