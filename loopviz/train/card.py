"""The finished model's folder: weights, tokenizer, measured results and a model card.

Every number on the card comes from the run or from an evaluation of the saved weights.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from loopviz import csv_file, outputs
from loopviz.lab.reading.positions import PositionsResult
from loopviz.model import model_card
from loopviz.model.checkpoints.quiet import quiet_transformers
from loopviz.ttt import TTTConfig
from loopviz.version import version

from . import arrows
from .data_tasks import Task
from .evaluate import ArrowsResult, TextResult
from .recipe import Recipe, RecipeError
from .trainer import AnyModel, Progress, build_config, new_model


def save_model(model: AnyModel, recipe: Recipe, task: Task, folder: Path) -> AnyModel:
    """Save the weights in `recipe.save_dtype`, loops set as the recipe says, and load them back in float32.

    Raises:
        OSError: the folder cannot be written.
    """
    finished = new_model(build_config(recipe, task.tokenizer, finished=True))
    finished.load_state_dict(model.state_dict())
    with outputs.filling(folder, keep=["README.md"]) as part:
        with quiet_transformers():
            finished.to(getattr(torch, recipe.save_dtype)).save_pretrained(str(part))
        task.tokenizer.save_pretrained(str(part))
    outputs.write(folder / "recipe.json", (json.dumps(recipe.to_dict(), indent=2) + "\n").encode())
    with quiet_transformers():
        return type(finished).from_pretrained(str(folder), dtype=torch.float32, local_files_only=True).eval()


def result_table(result: TextResult | ArrowsResult) -> str:
    """A result as Markdown tables."""
    return _text_tables(result) if isinstance(result, TextResult) else _arrows_table(result)


def _text_tables(result: TextResult) -> str:
    names = [str(r) for r in result.loops] or ["no loop"]
    lines = [
        _row("loops", *names),
        _rule(len(names)),
        _row("loss (nats a token)", *(f"{x:.4f}" for x in result.loss)),
        _row("perplexity", *(f"{x:.2f}" for x in result.perplexity)),
    ]
    if result.cosine_gap:
        gaps = [f"{result.cosine_gap[r - 1]:.1e}" for r in result.loops]
        lines.append(_row("1 − cos(s_r, s_{r−1})", *gaps))
    least, most = result.lookback
    looked = f"each looking back at {least} to {most} tokens" if least else f"in windows of {most}"
    return "\n".join([*lines, "", f"{result.tokens:,} predicted tokens, {looked}; whole passes without a cache."])


def _arrows_table(result: ArrowsResult) -> str:
    names = [str(r) for r in result.loops] or ["no loop"]
    dynamic = ["dynamic stop: mean loops", "accuracy"] if result.dynamic_loops else []
    lines = [_row("hops \\ loops", *names, *dynamic), _rule(len(names) + len(dynamic))]
    for i, hops in enumerate(result.hops):
        stop = [f"{result.dynamic_loops[i]:.2f}", f"{result.dynamic_accuracy[i]:.3f}"] if dynamic else []
        lines.append(_row(str(hops), *(f"{x:.3f}" for x in result.accuracy[i]), *stop))
    return "\n".join([*lines, "", f"{result.problems} held-out problems a row, the same at every loop count."])


def positions_table(results: list[PositionsResult]) -> str:
    """Losses by place in the window as a Markdown table, a row a window."""
    ends = sorted({end for result in results for end in result.until})
    lines = [_row("tokens read", *(f"≤ {end:,}" for end in ends), "all"), _rule(len(ends) + 1)]
    for result in results:
        of = dict(zip(result.until, result.loss, strict=True))
        factor = "" if result.inner_lr_scale in (None, 1) else f", inner learning rate × {result.inner_lr_scale:g}"
        cells = (f"{of[end]:.3f}" if end in of else "" for end in ends)
        lines.append(_row(f"windows of {result.length:,}{factor}", *cells, f"{result.mean:.4f}"))
    counts = ", ".join(f"{sum(result.tokens) // result.length:,}" for result in results)
    return "\n".join(
        [
            *lines,
            "",
            "Nats a token by how many tokens of its window a prediction has read, each group from the end of the one before; "
            f"{counts} windows, which share no token.",
        ]
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return _row("---", *["---:"] * columns)


@dataclasses.dataclass(frozen=True)
class History:
    """One evaluation while training.

    Attributes:
        step: optimisation steps done.
        tokens: tokens read in training.
        train_loss: mean loss of the last `HISTORY_STEPS` training steps, dropout on, loops as drawn; nats a token.
        held_out: text: the lowest loss of all loop counts; arrows: mean accuracy at the largest loop count.
    """

    step: int
    tokens: int
    train_loss: float
    held_out: float


HISTORY_STEPS = 100


def read_history(run: Path) -> list[History]:
    """How a run went, from the logs in its folder."""
    with (run / "train.csv").open(newline="", encoding="utf-8") as file:
        losses = {int(row["step"]): float(row["loss"]) for row in csv_file.dict_reader(file)}
    moments: dict[tuple[int, int], dict[int, list[float]]] = {}
    with (run / "evaluation.csv").open(newline="", encoding="utf-8") as file:
        for row in csv_file.dict_reader(file):
            if row["metric"] in ("loss", "accuracy"):
                at = moments.setdefault((int(row["step"]), int(row["tokens"])), {})
                at.setdefault(int(row["loops"] or 0), []).append(float(row["value"]))
                lowest = row["metric"] == "loss"
    return [
        History(
            step,
            tokens,
            fmean(losses[s] for s in range(max(1, step - HISTORY_STEPS + 1), step + 1)),
            min(fmean(values) for values in at.values()) if lowest else fmean(at[max(at)]),
        )
        for (step, tokens), at in moments.items()
    ]


def _history_table(record: dict[str, Any]) -> list[str]:
    moments, arrows = record["history"], "generated" in record["data"]
    if not moments:
        return []
    every = -(-len(moments) // 12)
    moments = [*moments[every - 1 :: every]]
    measure = "mean accuracy, depths reached and the next" if arrows else "held-out loss (a sample)"
    return [
        _row("step", *(f"{m['step']:,}" for m in moments)),
        _rule(len(moments)),
        _row("training loss", *(f"{m['train_loss']:.3f}" for m in moments)),
        _row(measure, *(f"{m['held_out']:.3f}" for m in moments)),
        "",
    ]


def write_card(
    folder: Path,
    recipe: Recipe,
    task: Task,
    progress: Progress,
    result: TextResult | ArrowsResult,
    *,
    positions: list[PositionsResult],
    history: list[History],
    command: str,
    data_note: str,
    license: str,
    beside: list[dict[str, Any]],
    parameters: int,
    device: str,
) -> None:
    """Write `README.md` and `results.json`.

    Args:
        folder: of the finished model.
        recipe: what was trained.
        task: its data.
        progress: at the end of the run.
        result: of the closing evaluation, of the saved weights.
        positions: by place in the context, of the saved weights; may be empty.
        history: how it went, from `read_history`.
        command: as it was typed, folders left out.
        data_note: source and licence of the data, as the user gave them; may be empty.
        license: of the weights (SPDX), or empty.
        beside: other models' records, from `read_beside`.
        parameters: number of them.
        device: what it was trained on.
    """
    data = task.data()
    machine = {
        "device": device,
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loopviz": version(),
    }
    record = {
        "command": command,
        "data": data,
        "data_note": data_note,
        "license": license,
        "history": [dataclasses.asdict(moment) for moment in history],
        "parameters": parameters,
        "progress": vars(progress),
        "machine": machine,
        "result": dataclasses.asdict(result),
        **({"positions": [dataclasses.asdict(each) for each in positions]} if positions else {}),
    }
    outputs.write(folder / "results.json", (json.dumps(record, indent=2) + "\n").encode())
    front = ["---", *([f"license: {license.lower()}"] if license else []), f"library_name: {model_card.LIBRARY}"]
    front += ["pipeline_tag: text-generation", "tags:", f"  - {recipe.model_type}", "---"]
    outputs.write(folder / "README.md", "\n".join([*front, "", *_card(recipe, record, result, beside), ""]).encode())


def _card(
    recipe: Recipe, record: dict[str, Any], result: TextResult | ArrowsResult, beside: list[dict[str, Any]]
) -> list[str]:
    progress, machine = record["progress"], record["machine"]
    minutes = f"{progress['seconds'] / 60:.1f} minutes ({progress['cpu_seconds'] / 60:.1f} of processor time)"
    return [
        f"# {recipe.name}",
        "",
        *([recipe.notes, ""] if recipe.notes else []),
        "## Results",
        "",
        f"Held-out data, weights as saved ({recipe.save_dtype}), computed in float32.",
        "",
        result_table(result),
        "",
        *_positions(record),
        *(line for other in beside for line in _other(other)),
        *usage(recipe),
        "",
        *([] if recipe.arrows is None else ask_lines(recipe)),
        "## Training",
        "",
        "```",
        record["command"],
        "```",
        "",
        f"* {record['parameters']:,} parameters; {progress['step']:,} steps, {progress['tokens']:,} tokens",
        f"* {minutes}, evaluations included; {machine['device']}, {machine['cpus']} CPUs ({machine['processor']}), "
        f"{machine['threads']} threads, torch {machine['torch']}, loopviz {machine['loopviz']}",
        *_data_lines(record),
        *([f"* licence of these weights: {record['license']}"] if record["license"] else []),
        "",
        *_history_table(record),
        "The recipe, with every setting: `recipe.json`. The results as data: `results.json`.",
    ]


def usage(recipe: Recipe) -> list[str]:
    """How to load a recipe's model."""
    config = build_config(recipe, None, finished=True)
    if not isinstance(config, TTTConfig):
        return model_card.usage(config)
    return [
        "## Load it",
        "",
        "This model has TTT layers where others have attention. transformers knows the model type `ttt` once LoopViz is imported:",
        "without the first line, `AutoModelForCausalLM` says that it does not recognize the architecture.",
        "",
        "```python",
        "import loopviz.ttt  # makes ttt known to transformers' Auto classes",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # or the model\'s id',
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
    ]


def _positions(record: dict[str, Any]) -> list[str]:
    """The record's losses by place in the context, if it has them."""
    found = [PositionsResult(**each) for each in record.get("positions", ())]
    return ["By place in the context:", "", positions_table(found), ""] if found else []


def ask_lines(recipe: Recipe) -> list[str]:
    """How to ask a model of the arrows task: nobody guesses its words."""
    assert recipe.arrows is not None
    prompt, answer = arrows.example(recipe.arrows)
    letters = f"a to {chr(ord('a') + recipe.arrows.nodes - 1)}"
    return [
        "## Ask it",
        "",
        "```",
        f"python -m loopviz run --model {recipe.name} --prompt '{prompt}' --max-new-tokens 1",
        "```",
        "",
        f"Arrows between the nodes {letters}, separated by spaces, then the node one starts from with a question mark; the right "
        f"answer here is {answer}. Problems had {recipe.arrows.arrows} arrows in training. Other words are read as "
        f"`{arrows.UNKNOWN}`.",
        "",
    ]


def read_beside(folder: Path) -> dict[str, Any]:
    """A finished model's record: its `results.json`, its recipe's `name` and `notes`.

    Raises:
        RecipeError: the folder holds no finished model of `train`.
    """
    try:
        record = json.loads((folder / "results.json").read_text("utf-8"))
        recipe = json.loads((folder / "recipe.json").read_text("utf-8"))
        return {**record, "name": recipe["name"], "notes": recipe["notes"]}
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"--beside {folder}: not a finished model of train ({error})") from None


def _other(record: dict[str, Any]) -> list[str]:
    """The results of a model printed beside this one."""
    kind = TextResult if "loss" in record["result"] else ArrowsResult
    said = f"{record['parameters']:,} parameters, {record['progress']['tokens']:,} tokens in training."
    return [
        f"### Beside it: {record['name']}",
        "",
        f"{record['notes']} {said}",
        "",
        result_table(kind(**record["result"])),
        "",
        *_positions(record),
    ]


def _data_lines(record: dict[str, Any]) -> list[str]:
    data = record["data"]
    if "generated" in data:
        lines = [
            f"* data: generated; {json.dumps(data['generated'])}; curriculum ended at {data['depth_reached']} hops"
        ]
    else:
        epochs = record["progress"]["tokens"] / data["train_tokens"]
        lines = [f"* trained on {_source(data['train'])}: {data['train_tokens']:,} tokens, {epochs:.1f} times"]
        held = f"{data['held_out_tokens']:,} tokens"
        own = data["held_out"]
        lines.append(
            f"* measured on {held}, the end of the same file (the tokenizer has seen it)"
            if own is None
            else f"* measured on {_source(own)}: {held}"
        )
    return [*lines, *([f"* {record['data_note']}"] if record["data_note"] else [])]


def _source(source: dict[str, Any]) -> str:
    return (
        f"`{source['name']}` ({source['documents']:,} documents, {source['bytes']:,} bytes, "
        f"SHA-256 {source['sha256'][:16]}…)"
    )
