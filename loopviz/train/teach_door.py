"""How a page has a model taught: the one door from an engine to a :class:`TeachSession`.

An engine goes in; what is taught is a copy of its model, read anew in float32, for the engine's own is shared with everybody's
runs and is never changed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loopviz import outputs
from loopviz.checks import ABSENT, FieldError, check_whole
from loopviz.engine.local import LocalEngine
from loopviz.engine.pieces import encode
from loopviz.engine.provenance import shown_name
from loopviz.model.checkpoints.adapter import is_adapter
from loopviz.model.checkpoints.find import NAMED
from loopviz.model.checkpoints.inspect import available_memory
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.model.precision import weight_count
from loopviz.paths import install_hint

from . import text
from .teach_data import TeachInstructions, TeachText
from .teach_form import FILES, NAMES, check_given, command_of, recipe_of
from .teach_recipe import INSTRUCTIONS, TeachRecipe
from .teach_session import TeachSession, settled, task_of, untrained
from .teach_trainer import adapter_parameters
from .trainer import BYTES_A_PARAMETER

if TYPE_CHECKING:
    from loopviz.engine.engine import Engine
    from loopviz.model import LoopLlamaForCausalLM

MOST_PROMPT = 256  # tokens of the fixed prompt: it is read at every evaluation
LOGS = "run"  # folder, inside a run's own, of its logs and tokens
_FLOAT = 4  # bytes of a number
_READING = threading.Lock()  # a copy at a time is read: what another takes is seen by then
_LOOP = "loop"  # that a refusal of the model's own loop belongs to


@dataclass(frozen=True)
class Needs:
    """Bytes of memory that a teaching takes.

    Attributes:
        copy: of the model that is taught, with its adapter.
        step: about, of a step of training beside it.
        evaluation: about, of measuring beside it.
    """

    copy: int
    step: int
    evaluation: int


@dataclass(frozen=True)
class Prepared:
    """What may be taught: all that can be refused has been looked at, and nothing is loaded yet.

    Attributes:
        recipe: how.
        task: its data, as tokens.
        prompt: ids of the fixed prompt.
        folder: the run's own.
        command: that does the same.
        needs: memory.
    """

    recipe: TeachRecipe
    task: TeachText | TeachInstructions
    prompt: tuple[int, ...]
    folder: Path
    command: str
    needs: Needs

    def begin(self) -> TeachSession:
        """Read the model anew, and put a fresh adapter on it.

        Raises:
            FieldError: memory does not hold it any more.
        """
        with _READING:
            check_memory(self.needs, self.recipe)
            return self._session()

    def again(self, taught: TeachRecipe) -> TeachSession:
        """The session that was left, with what it had learned by then (:meth:`TeachSession.save`): the model is read once more, so that
        nobody holds a copy of it in between.

        Args:
            taught: its recipe.

        Raises:
            FieldError: memory does not hold it just now; the model is another than the one that was taught.
        """
        with _READING:
            needed, free = self.needs.copy + self.needs.evaluation, available_memory()
            if needed > free:
                places = {"needed": f"{needed / 1e9:,.1f}", "free": f"{free / 1e9:,.1f}"}
                raise FieldError("model", ABSENT, "teach_keep_memory", **places)
            return self._session(taught)

    def _session(self, taught: TeachRecipe | None = None) -> TeachSession:
        loaded = load_checkpoint(self.recipe.base, dtype=torch.float32, **self.recipe.fields)
        recipe = settled(self.recipe, loaded.model, torch.device("cpu"), untrained(loaded))
        if taught is not None and recipe.base_sha256 != taught.base_sha256:
            raise FieldError("model", ABSENT, "teach_base_changed")
        how: dict[str, Any] = {"prompt": self.prompt, "resume": taught is not None}
        return TeachSession(recipe, self.task, self.folder / LOGS, loaded, **how, alone=False)


def prepare(engine: Engine, values: Mapping[str, Any], given: Any, prompt: str, folder: Path) -> Prepared:
    """Look at what is asked for, as a page's visitor filled it in.

    Args:
        engine: of the model.
        values: the form's numbers and choice (:mod:`.teach_form`).
        given: the text, or JSON lines.
        prompt: the fixed one.
        folder: of the run; its files are written there.

    Raises:
        FieldError: beside the form's field that it is about, or the text's line.
        ValueError: the model is not in this process.
    """
    if find_spec("peft") is None:
        raise FieldError("", ABSENT, "teach_peft", install=install_hint("teach"))
    if not isinstance(engine, LocalEngine):
        raise ValueError(f"engine={type(engine).__name__}: its model runs elsewhere; teach it where it runs")
    check_given(given)
    named = engine.name in NAMED
    if not named and is_adapter(engine.name):
        raise FieldError("model", engine.name, "teach_adapter")
    model, tokenizer = engine.model, engine.tokenizer
    base = (
        os.path.abspath(os.path.expanduser(engine.name)) if not named and os.path.exists(engine.name) else engine.name
    )
    recipe = _fitting(recipe_of(values, base), model)
    if recipe.template == "chat" and not tokenizer.chat_template:
        raise FieldError("template", recipe.template, "chat_none")
    ids = _prompt(prompt, tokenizer, model.config.max_position_embeddings)
    needs = needed_bytes(model, recipe)
    check_memory(needs, recipe)
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    data = folder / FILES[recipe.kind]
    outputs.write_text(data, given)
    task = _task(recipe, data, folder / LOGS, tokenizer)
    return Prepared(recipe, task, ids, folder, command_of(recipe, shown_name(base)), needs)


def _fitting(recipe: TeachRecipe, model: LoopLlamaForCausalLM) -> TeachRecipe:
    """The recipe, if the model can be taught by it."""
    config = model.config
    first, last = recipe.loop["loop_layers"]
    check_whole("first", first, 0, config.num_hidden_layers - 1)
    check_whole("last", last, first, config.num_hidden_layers - 1)
    check_whole("window", recipe.length, 2, min(8192, config.max_position_embeddings))
    try:
        model.with_loop(**recipe.fields)  # whatever else its own loop will not have; a view, which changes nothing
    except FieldError as error:
        raise error.inside(_LOOP) from None
    return recipe


def _prompt(prompt: str, tokenizer: Any, context: int) -> tuple[int, ...]:
    if not isinstance(prompt, str) or not prompt.strip():
        raise FieldError("prompt", ABSENT, "prompt_blank")
    ids, most = encode(tokenizer, prompt), min(MOST_PROMPT, context)
    if not ids:
        raise FieldError("prompt", ABSENT, "prompt_no_token")
    if len(ids) > most:
        raise FieldError("prompt", ABSENT, "teach_prompt", n=len(ids), most=most)
    return tuple(ids)


def _task(recipe: TeachRecipe, data: Path, folder: Path, tokenizer: Any) -> TeachText | TeachInstructions:
    """Its data; too little of it is refused in the page's words."""
    if recipe.kind == INSTRUCTIONS:
        try:
            return task_of(recipe, data, None, folder, tokenizer)
        except text.TextError:  # of a file that was just written as UTF-8: one record, which leaves none to measure on
            raise FieldError("text", ABSENT, "teach_rows") from None
    n = len(text.encode_file(data, tokenizer, folder, "train")[0])  # kept: the task reads them again
    least = least_tokens(recipe)
    if n < least:
        raise FieldError("text", ABSENT, "teach_short", n=n, window=recipe.length, least=least)
    task = TeachText(recipe, data, None, folder, tokenizer)
    task.unmap()
    return task


def least_tokens(recipe: TeachRecipe) -> int:
    """Tokens of a text at least: a window and one more to train on, beside two that are held out."""
    n = recipe.length + 1
    while n - int(n * recipe.held_out) <= recipe.length or int(n * recipe.held_out) < 2:
        n += 1
    return n


def needed_bytes(model: LoopLlamaForCausalLM, recipe: TeachRecipe) -> Needs:
    """Bytes that teaching takes.

    A step keeps, of every pass through a layer from the block on, what its gradients need: some ten states, three of the MLP's
    inner ones, two squares of attention a head; and logits, their softmax and its gradient. An evaluation keeps the logits of every
    loop count, and gradients of none.
    """
    config, tokens = model.config, recipe.batch * recipe.length
    first, last = recipe.loop["loop_layers"]
    passes = recipe.loops.most * (last - first + 1) + config.num_hidden_layers - last - 1
    states = 10 * config.hidden_size + 3 * config.intermediate_size + 2 * config.num_attention_heads * recipe.length
    measured = len(recipe.evaluation.loops) * config.vocab_size
    return Needs(
        copy=_FLOAT * weight_count(model) + BYTES_A_PARAMETER * adapter_parameters(model, recipe),
        step=_FLOAT * tokens * (passes * states + max(3 * config.vocab_size, measured)),
        evaluation=_FLOAT * tokens * measured,
    )


def check_memory(needs: Needs, recipe: TeachRecipe) -> None:
    """FieldError where this machine's memory does not hold it."""
    free = available_memory()
    places = {"held": f"{needs.copy / 1e9:,.1f}", "step": f"{needs.step / 1e9:,.1f}", "free": f"{free / 1e9:,.1f}"}
    if needs.copy > free:
        raise FieldError("model", ABSENT, "teach_memory", **places)
    if needs.copy + needs.step > free:
        raise FieldError("batch", recipe.batch, "teach_memory", **places)


def field_of(error: FieldError) -> str:
    """The form's field that a refusal stands beside: of what stands in the text the text; "" for none."""
    if error.within == _LOOP:
        return "first"
    if (error.within or error.field).startswith(FILES[INSTRUCTIONS]):
        return "text"
    return error.field if error.field in NAMES else ""
