"""A run as Python code that makes it again: the library's own call, with this run's very settings.

Text and trace are the run's wherever the model is the same and the machine computes alike; the code says which versions made it.
Everything in it that comes from the trace stands as a Python literal: a trace may be a stranger's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from loopviz import imports
from loopviz.loop_fields import BY_NAME, FIELDS
from loopviz.machine import QUANTIZATIONS
from loopviz.trace import changes_of

if TYPE_CHECKING:
    from loopviz.trace import Trace

# Settings of a run (`StreamSettings`) in the order in which they are written; those of `_DRAWN` act on drawn tokens alone.
_SETTINGS = (
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "repetition_penalty",
    "chat",
    "template",
    "input",
    "record",
    "top_tokens",
    "extras",
)
_DRAWN = ("temperature", "top_k", "top_p", "min_p", "seed")
_DTYPES = ("float32", "bfloat16", "float16", "float64", "int8")


def python_code(trace: Trace, model: str | None = None) -> str:
    """Code that makes the run of ``trace`` again, and prints its text.

    Args:
        model: what to load; None: what the trace calls its model, which of a folder is the last part only.
    """
    return f"{loading(trace, model)}\n\n{running(trace)}\n\nprint(trace.text)\n"


def loading(trace: Trace, model: str | None = None) -> str:
    """The part of :func:`python_code` that loads the model and gives it the run's loop."""
    meta = trace.meta
    made = ", ".join(f"{_quiet(name)} {_quiet(meta['versions'][name])}" for name in sorted(meta["versions"]))
    dtype = meta.get("provenance", {}).get("dtype", "float32")
    typed = dtype in _DTYPES and dtype != "float32"
    packed = meta.get("provenance", {}).get("quantization")
    held = (f", dtype=torch.{dtype}" if typed else "") + (
        f", quantization={packed!r}" if packed in QUANTIZATIONS else ""
    )
    device = meta.get("provenance", {}).get("device", "cpu")
    steered = ", Steering" if changes_of(meta) else ""
    lines = [
        f"# A run of LoopViz, made on {_quiet(meta['created'])} with {made}.",
        *(["import torch", ""] if typed else []),
        f"from loopviz.engine import StreamSettings{steered}, run",
        "from loopviz.model.checkpoints import load_checkpoint",
        *_own_modules(meta),
        "",
        f"loaded = load_checkpoint({(model or meta['model'])!r}{held})",
        *([f"loaded.model.to({device!r})"] if device != "cpu" else []),
        *_call("model = loaded.model.with_loop", *_loop(meta)),
    ]
    return "\n".join(lines)


def running(trace: Trace) -> str:
    """The part of :func:`python_code` that makes the trace."""
    meta = trace.meta
    lines = [*_call("settings = StreamSettings", _settings(trace))]
    changes = changes_of(meta)
    if changes:
        lines.append("steering = Steering()  # the loop was changed while it ran")
        for change in changes:
            given = {name: value for name, value in change["loop"].items() if name in BY_NAME}
            written = "".join(f", {name}={value!r}" for name, value in given.items())
            lines.append(f"steering.set_loop(token={int(change['index'])}{written})")
    steered = ", steering=steering" if changes else ""
    lines += [
        f"prompt = {meta['prompt']!r}",
        f"trace = run(model, loaded.tokenizer, prompt, settings, model_name={meta['model']!r}{steered})",
    ]
    return "\n".join(lines)


def _own_modules(meta: Mapping[str, Any]) -> list[str]:
    """Imports of the visitor's own modules, where the loop goes by a name that one of them registered."""
    own = [field for field in FIELDS if field.kind == "choice" and _others(meta["loop"].get(field.name), field.choices)]
    found = [module["name"].removesuffix(".py") for module in imports.loaded()] if own else []
    return [f"import {name}  # registers what the loop goes by" for name in found if _is_module(name)]


def _others(value: Any, known: Iterable[str]) -> list[Any]:
    return [one for one in (value if isinstance(value, list) else [value]) if one is not None and one not in known]


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _loop(meta: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The loop's fields that act in this run, and the others: those are given too, for a model may have values of its own."""
    loop = {field.name: meta["loop"][field.name] for field in FIELDS if field.name in meta["loop"]}
    if not meta["blocks"]:
        return {"loop_layers": loop.get("loop_layers")}, {}
    acting = {name: value for name, value in loop.items() if name == "loop_layers" or _acts(name, meta["blocks"])}
    return acting, {name: value for name, value in loop.items() if name not in acting}


def _acts(name: str, blocks: Iterable[Mapping[str, Any]]) -> bool:
    needs = BY_NAME[name].needs
    return any(all(need.holds(block[BY_NAME[need.field].meta]) for need in needs) for block in blocks)


def _settings(trace: Trace) -> dict[str, Any]:
    """How tokens were chosen and what was recorded. A run that was ended from outside is made as long as it became."""
    meta = trace.meta
    given = {name: meta["settings"][name] for name in _SETTINGS if name in meta["settings"]}
    if not given.get("do_sample"):
        given = {name: value for name, value in given.items() if name not in _DRAWN}
    if "template" in given:  # what a file of before calls chat alone
        given.pop("chat", None)
    if not given.get("input"):
        given.pop("input", None)
    if isinstance(given.get("extras"), list):
        given["extras"] = tuple(given["extras"])
    if trace.frames and trace.frames[-1]["finish"] is None:
        given["max_new_tokens"] = max(1, len(trace) + 1 - meta["prompt_tokens"])
    return given


def _call(name: str, arguments: Mapping[str, Any], idle: Mapping[str, Any] | None = None) -> list[str]:
    """A call, an argument a line."""
    lines = [f"    {key}={value!r}," for key, value in arguments.items()]
    if idle:
        lines.append("    # of no effect beside these:")
        lines += [f"    {key}={value!r}," for key, value in idle.items()]
    return [f"{name}(", *lines, ")"]


def _quiet(text: Any) -> str:
    """A stranger's text within a comment: one line, short."""
    return "".join(char for char in str(text) if char.isascii() and char.isprintable())[:40]
