"""`python -m loopviz anatomy stages`: everything that one decoder layer computed for one token of a saved run, stage by stage."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from loopviz.cli.measure import printed
from loopviz.cli.options import add_machine, load
from loopviz.machine import UsageError, check_threads

if TYPE_CHECKING:
    from loopviz.anatomy.probe import LayerRun, Probed
    from loopviz.anatomy.reread import Agreement
    from loopviz.trace import Trace


def add_parser(parts: Any) -> None:
    """Add the sub-command to `anatomy`'s parser."""
    stages = parts.add_parser(
        "stages",
        help="what one layer computed for one token of a saved run, tensor by tensor",
        description="Reads the tokens of a saved run again, as the run read them, and prints every stage of one decoder layer "
        "for one token and loop step, with how far the states are from those that the run recorded. Exit code 1 if they "
        "are not the run's.",
    )
    stages.add_argument("file", help="a saved run (.loopviz)")
    stages.add_argument(
        "--model", help="that made it: named model, Hub id, folder or GGUF file (default: as the run says)"
    )
    stages.add_argument("--token", type=int, metavar="T", help="position, from 0 (default: the last)")
    stages.add_argument("--layer", type=int, metavar="L", help="from 0 (default: the first that loops)")
    stages.add_argument("--step", type=int, metavar="R", help="loop step, from 1 (default: the last the token ran)")
    add_machine(stages)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code: 1 where what is read is not what the run recorded.

    Raises:
        ValueError: a file that is no run, another model's run, a token, layer or step outside it.
    """
    check_threads(options.threads)

    from loopviz.trace.file import load as read

    trace = read(options.file)
    if "ttt" in trace.meta:
        raise UsageError(
            f"{options.file}: a run of a TTT model, whose layers have other stages; name a run of a loop or a plain Llama"
        )
    position = len(trace) - 1 if options.token is None else options.token

    import torch

    from loopviz.anatomy.reread import Reread, memory
    from loopviz.model.checkpoints.limits import gigabytes

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    loaded = load(options.model or trace.meta["model"], torch.float32, {}, options.device)
    reread = Reread(loaded.model, trace)
    shape, blocks = trace.meta["shape"], trace.meta["blocks"]
    most = sum((b["layers"][1] - b["layers"][0] + 1) * b["max_steps"] for b in blocks) + shape["layers"]
    slots = max((b["slots"] for b in blocks), default=1)
    need = memory(shape, most, len(trace) * slots, loaded.model.config.intermediate_size)
    print(f"loopviz: all stages of a token take up to {gigabytes(need)} of memory", file=sys.stderr)
    probed = reread.probe(position)
    found = _chosen(probed, trace, options.layer, options.step)
    agreement = reread.agreement(probed)
    print(_head(trace, probed, found))
    print(_verdict(agreement) + "\n")
    print(_stages(probed, found, loaded.model.config))
    return 1 if agreement.differs else 0


def _chosen(probed: Probed, trace: Trace, layer: int | None, step: int | None) -> LayerRun:
    blocks = trace.meta["blocks"]
    if layer is None:
        layer = blocks[0]["layers"][0] if blocks else 0
    if not 0 <= layer < trace.meta["shape"]["layers"]:
        raise ValueError(f"--layer {layer}: must be one of the model's, 0 to {trace.meta['shape']['layers'] - 1}")
    ran = [each.step for each in probed.layers if each.layer == layer]
    if not ran:
        raise ValueError(f"--layer {layer}: did not run for this token: its block was left out")
    chosen = ran[-1] if step is None else step
    found = probed.layer_run(layer, chosen)
    if found is None:
        steps = (
            "it does not loop; leave --step out" if ran == [0] else f"must be one that ran: {', '.join(map(str, ran))}"
        )
        raise ValueError(f"--step {chosen}: of layer {layer} and token {probed.position}: {steps}")
    return found


def _head(trace: Trace, probed: Probed, run: LayerRun) -> str:
    frame = trace.frames[probed.position]
    step = f", loop step {run.step}" if run.step else ""
    return f"token {probed.position} {frame['text']!r}, layer {run.layer}{step}; attention sees {int(run.visible.sum())} keys"


def _verdict(agreement: Agreement) -> str:
    if not agreement.steps:
        return "not the run's: the loop took other steps, or stopped for another reason"
    said = []
    if agreement.states is not None:
        said.append(f"states within {agreement.states:.3f} of float16's rounding, in which they were recorded")
    if agreement.norm is not None:
        said.append(f"norms within {agreement.norm:.1e}")
    if agreement.logprob is not None:
        said.append(f"log-probability of the next token within {agreement.logprob:.1e} nats")
    first = "the run's" if agreement.is_the_runs else "not the run's" if agreement.differs else "not checked"
    return (
        f"{first}: as many loop steps for the same reason; {'; '.join(said) or 'no number of this token was recorded'}"
    )


def _stages(probed: Probed, run: LayerRun, config: Any) -> str:
    import pandas as pd

    from loopviz.anatomy import stages

    rows = []
    for stage in stages.layer_stages(probed, run, config):
        first = getattr(run, stage.tensors[0]).double()
        sizes = " x ".join(f"{axis} {size}" for axis, size in stages.shape_of(stage, run).items())
        facts = ", ".join(f"{name} {value:.4g}" for name, value in stages.facts(stage, run).items())
        rows.append(
            {
                "stage": stage.name,
                "shape": sizes,
                "norm": float(first.norm()),
                "largest": float(first.abs().max()),
                "": facts,
            }
        )
    return printed(pd.DataFrame(rows))
