"""What is written beside an adapter: the table of loops, as people and as data read it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from loopviz import outputs
from loopviz.engine.provenance import shown_name
from loopviz.version import version

from .teach_trainer import DAMPED, Closing, TeachTrainer
from .trainer import Progress


def closing_table(closing: Closing) -> str:
    """Perplexity by loops as a Markdown table: naive, damped, taught, and the plain model under it."""
    counts = [str(r) for r in closing.taught.loops]
    rows = {"naive": closing.naive, f"damped ({DAMPED:g})": closing.damped, "taught": closing.taught}
    lines = [_row("perplexity by loops", *counts), _row("---", *["---:"] * len(counts))]
    lines += [_row(name, *(f"{value:.2f}" for value in result.perplexity)) for name, result in rows.items()]
    least, most = closing.taught.lookback
    looked = f"each looking back at {least} to {most} tokens" if least else f"in windows of at most {most}"
    said = f"The plain model, without a loop: {closing.plain.perplexity[0]:.2f}. "
    return "\n".join(
        [*lines, "", f"{said}{closing.taught.tokens:,} held-out tokens, {looked}; whole passes without a cache."]
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _steps_said(count: int) -> str:
    last = f"Loop steps after step {count} use that step's." if count > 1 else "Every later step uses the first one's."
    return (
        f"Each of its first {count} loop steps has a LoRA of its own (relaxed recursion; Bae et al. 2024, arXiv 2410.20672). "
        f"{last} They cannot be merged into one set of weights."
    )


def _processor_said(progress: Progress) -> str:
    return "" if progress.cpu_seconds is None else f" ({progress.cpu_seconds / 60:.1f} of processor time)"


def _packed_said(kind: str) -> str:
    return (
        f"* on weights that bitsandbytes has packed ({kind}, QLoRA): `--quantization {kind}` computes as it was taught; without it, and merged, "
        "the adapter lies on the floats that were packed, which is close and not the same"
    )


def write_teach_card(folder: Path, trainer: TeachTrainer, closing: Closing, *, command: str) -> None:
    """Write `README.md` and `results.json` of an adapter.

    Args:
        folder: of the adapter.
        trainer: at the end of its run.
        closing: the closing evaluation.
        command: as it was typed, folders left out.
    """
    recipe, progress, name = trainer.recipe, trainer.progress, shown_name(trainer.recipe.base)
    best, data = closing.best(recipe), trainer.task.data()
    first, last = recipe.loop["loop_layers"]
    record: dict[str, Any] = {
        "command": command,
        "base": name,
        "loop_count": best,
        "data": data,
        "trained_parameters": trainer.trained,
        "progress": {name: value for name, value in vars(progress).items() if value is not None},
        "machine": {
            "device": str(trainer.device),
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            "torch": torch.__version__,
            "loopviz": version(),
        },
        "result": {
            thing.name: dataclasses.asdict(getattr(closing, thing.name)) for thing in dataclasses.fields(closing)
        },
    }
    outputs.write_text(folder / "results.json", json.dumps(record, indent=2) + "\n")
    drawn = f"{recipe.loops.sampler}, at most {recipe.loops.most}"
    through = "all loop steps" if recipe.backprop_steps is None else f"the last {recipe.backprop_steps} loop steps"
    packed = "" if recipe.quantization is None else f" --quantization {recipe.quantization}"
    files = (
        "the folders `step-1`, `step-2`, ..."
        if recipe.step_adapters
        else "`adapter_config.json` and `adapter_model.safetensors`"
    )
    lines = [
        "---",
        "library_name: peft",
        "pipeline_tag: text-generation",
        "tags:",
        "  - lora",
        "  - loop_llama",
        "---",
        "",
        f"# {shown_name(str(folder))}",
        "",
        f"A LoRA adapter that teaches {name} to repeat its layers {first} to {last}. Of the counts it was taught at, {best} loops "
        "measured best; that is its default.",
        *(["", _steps_said(recipe.step_adapters)] if recipe.step_adapters else []),
        "",
        *([recipe.notes, ""] if recipe.notes else []),
        closing_table(closing),
        "",
        "## Use it",
        "",
        "```",
        f"python -m loopviz run --model {name} --adapter FOLDER{packed} --prompt '...'",
        *([] if recipe.step_adapters else ["python -m loopviz merge FOLDER OUT"]),
        "```",
        "",
        f"`FOLDER` is where this file lies; Explore and Compare open it by that path. Its files: {files} are peft's, "
        "`loop_adapter.json` says which loop and which base.",
        "",
        "## Teaching",
        "",
        "```",
        command,
        "```",
        "",
        f"* {'one LoRA a loop step, each' if recipe.step_adapters else 'LoRA'} of rank {recipe.lora.rank}, alpha {recipe.lora.alpha:g}, on {', '.join(recipe.lora.targets)}; "
        f"{trainer.trained:,} parameters trained",
        *([_packed_said(recipe.quantization)] if recipe.quantization else []),
        f"* {progress.step:,} steps, {progress.tokens:,} tokens; loops drawn ({drawn}); gradients through {through}",
        f"* {progress.seconds / 60:.1f} minutes{_processor_said(progress)}, evaluations included; "
        f"{record['machine']['device']}, torch {record['machine']['torch']}, loopviz {record['machine']['loopviz']}",
        f"* data: `{json.dumps(data)}`",
        "",
    ]
    outputs.write_text(folder / "README.md", "\n".join(lines))
