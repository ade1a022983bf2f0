"""Running a prompt: an iterator of Frames, one a token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from loopviz.engine.batch import rooms_of
from loopviz.engine.pieces import encode_prompt
from loopviz.engine.provenance import held, shown_name
from loopviz.engine.sampling import StreamSettings
from loopviz.engine.single_run import Run
from loopviz.engine.single_run import context_length as context_length
from loopviz.engine.steering import Steering, block_metas
from loopviz.model.interrupt import until
from loopviz.trace.schema import SCHEMA_VERSION, Frame
from loopviz.trace.trace import Trace
from loopviz.version import version

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaForCausalLM


def stream(
    model: LoopLlamaForCausalLM,
    tokenizer: Any,
    prompt: str,
    settings: StreamSettings | None = None,
    stop: threading.Event | None = None,
    steering: Steering | None = None,
    *,
    shared: bool = False,
) -> Iterator[Frame]:
    """Continue ``prompt`` and yield a Frame for every token the model reads, the prompt's first.

    The frame of a token carries the token chosen after it; the last token chosen is never read and has no frame. The
    run works on a view of the model of its own (``model.with_loop()``): several runs may share one model's weights, in
    several threads. Nothing is left behind when the iterator ends, is closed or is dropped.

    Args:
        model: a LoopLlama; later changes of its loop settings do not reach this run.
        tokenizer: of the model, a transformers tokenizer.
        prompt: text; the model reads it in one pass.
        settings: default ``StreamSettings()``.
        stop: once set, the iterator ends, in the middle of a pass too; the last frame then has no ``finish``.
        steering: changes the run's loop between two passes, when asked; one for every run.
        shared: while other such runs of the same weights are being read, in other threads, decode in passes that all
            share (:mod:`loopviz.engine.batch`): numbers may then differ from those of the run alone by rounding.

    Raises:
        ValueError: at this call, not at the first frame: a model that is no LoopLlama, a prompt that is empty or longer
            than the context, a chat template that does not exist, a steering that another run has or whose changes the
            model refuses.
    """
    check_model(model)
    settings, steering = settings or StreamSettings(), steering or Steering()
    ids = encode_prompt(tokenizer, prompt, context=context_length(model), **settings.wording)
    steering.bind(model)
    view, stop = model.with_loop(), stop or threading.Event()
    return until(stop, _frames(view, tokenizer, ids, settings, steering, shared))


def check_model(model: Any) -> None:
    """ValueError unless ``model`` is a LoopLlama (or passes for one, as PEFT's wrapper does)."""
    if not hasattr(model, "with_loop"):
        raise ValueError(
            f"model={type(model).__name__}: no LoopLlama, so nothing can loop or be watched; load it with "
            "loopviz.model.checkpoints.load_checkpoint, or make one of it with as_loop_llama(model)"
        )


def _frames(
    view: LoopLlamaForCausalLM,
    tokenizer: Any,
    ids: list[int],
    settings: StreamSettings,
    steering: Steering,
    shared: bool,
) -> Generator[Frame, None, None]:
    run = Run(view, tokenizer, ids, settings, steering)
    with closing(run), rooms_of(view).entered(run) if shared else nullcontext() as rooms:
        tokens = ids
        while True:
            for frame in run.read(tokens) if rooms is None else rooms.read(run, tokens):
                yield frame
            if frame["finish"] is not None:
                return
            tokens = [frame["next_id"]]


def run_meta(
    model: LoopLlamaForCausalLM,
    tokenizer: Any,
    prompt: str,
    settings: StreamSettings | None = None,
    *,
    model_name: str | None = None,
    steering: Steering | None = None,
) -> dict[str, Any]:
    """The Meta of the run that ``stream`` with the same arguments makes; raises as it does.

    The model is called ``model_name``, or what it was loaded as, without the folder it lies in. With ``steering`` it has ``changes``: that steering's own list, which grows as the run's loop is changed.
    """
    check_model(model)
    settings = settings or StreamSettings()
    config, held_in = model.config, held(model)
    ids = encode_prompt(tokenizer, prompt, context=context_length(model), **settings.wording)
    return {
        "version": SCHEMA_VERSION,
        "model": model_name or shown_name(getattr(config, "_name_or_path", "")) or type(model).__name__,
        "prompt": prompt,
        "prompt_tokens": len(ids),
        "top_k": min(settings.top_tokens, config.vocab_size),
        "shape": {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "itemsize": model.dtype.itemsize,
            "vocab": config.vocab_size,
        },
        "loop": config.loop_fields(),
        "blocks": block_metas(config),
        "settings": settings.to_dict(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "loopviz": version(),
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
        },
        **({} if held_in["dtype"] == "float32" and "quantization" not in held_in else {"provenance": held_in}),
        **({} if steering is None else {"changes": steering.changes}),
    }


def run(
    model: LoopLlamaForCausalLM,
    tokenizer: Any,
    prompt: str,
    settings: StreamSettings | None = None,
    *,
    stop: threading.Event | None = None,
    model_name: str | None = None,
    on_frame: Callable[[Frame], Any] | None = None,
    steering: Steering | None = None,
) -> Trace:
    """The whole Trace of a prompt; ``on_frame`` is called with each frame as it comes. Raises as ``stream`` does."""
    frames = stream(model, tokenizer, prompt, settings, stop, steering)
    trace = Trace(run_meta(model, tokenizer, prompt, settings, model_name=model_name, steering=steering))
    for frame in frames:
        trace.append(frame)
        if on_frame is not None:
            on_frame(frame)
    return trace
