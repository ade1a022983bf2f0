"""Models beside the one that is measured: by name, looped or TTT; and a TTT model as the thing that is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from loopviz.checks import ABSENT, FieldError
from loopviz.engine.work import Shape
from loopviz.lab.task import Subject, Task
from loopviz.model import LoopLlamaConfig
from loopviz.model.checkpoints.find import BUNDLED_FOLDER, NAMED
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.model.packed import quantization_of
from loopviz.model.placing import check_room, place
from loopviz.model.precision import held_in, weight_bytes
from loopviz.paths import model_type_of
from loopviz.ttt import TTTConfig
from loopviz.ttt.checkpoint import load_ttt

COMES_ALONG = tuple(model.name for model in NAMED.values() if model.hub_id is None)


@dataclass(frozen=True)
class TTTSubject(Subject):
    """A TTT model as the thing that is measured; `model` is a :class:`~loopviz.ttt.TTTForCausalLM`."""

    model: Any

    def shape(self, view: Any = None) -> Shape:
        """What of the model decides what work costs."""
        config = self.model.config
        return Shape.of_ttt(config, self.model.dtype.itemsize, config.max_position_embeddings)

    def view(self, loop: dict[str, Any] | None) -> Any:
        """A model object of its own on the same weights.

        Raises:
            FieldError: loop fields, or the model without its loop: it has none.
        """
        if loop is None or loop:
            what = ", ".join(loop) if loop else "loop=null"
            raise FieldError("loop", ABSENT, "ttt_no_loop", what=what)
        return self.model.view()


def learns(subject: Subject) -> bool:
    """Whether it is a TTT model."""
    return isinstance(subject, TTTSubject)


def load_subject(name: str, *, dtype: torch.dtype = torch.float32, quantization: str | None = None) -> Subject:
    """A model of either kind, by name or folder.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        ValueError: a dtype that it is not held in; a quantization of a TTT model.
    """
    if model_type_of(name) != "ttt":
        return Subject.of(load_checkpoint(name, dtype=dtype, quantization=quantization))
    if quantization is not None:
        raise ValueError(
            f"quantization={quantization!r}: {name} is a TTT model, whose layers are not packed; leave it out"
        )
    if dtype is torch.int8:
        raise ValueError(f"dtype={dtype}: {name} is a TTT model, whose layers are not held in int8; use float32")
    found = load_ttt(name, dtype=dtype)
    return TTTSubject(found.model.requires_grad_(False).eval(), found.tokenizer, found.name, found.source)


def fellow(subject: Subject, name: str, field: str, dtype: torch.dtype | None = None) -> Subject:
    """The model of this name beside a subject, loaded the first time (and kept: `Subject.beside`); "": the subject itself.

    Args:
        field: the parameter that names it.
        dtype: to hold it in; None: as the subject is held.

    Raises:
        FieldError: it reads other tokens, may not be named here, or is a TTT model where layers are held in int8.
        CheckpointError: it cannot be had.
    """
    if name in ("", subject.name):
        return subject
    if name not in subject.beside:
        if not subject.free and name not in COMES_ALONG:
            raise FieldError(field, name, "comes_not_along", known=", ".join(COMES_ALONG))
        dtype = held_in(subject.model) if dtype is None else dtype
        if dtype is torch.int8 and model_type_of(name) == "ttt":
            raise FieldError(field, name, "ttt_not_int8")
        found = load_subject(name, dtype=dtype, quantization=quantization_of(subject.model))
        _put(found, subject.model.device)
        subject.beside[name] = found
    found = subject.beside[name]
    if found.tokenizer.get_vocab() != subject.tokenizer.get_vocab():
        raise FieldError(field, name, "other_tokens", name=subject.name)
    return found


def _put(subject: Subject, device: torch.device) -> None:
    """Move a subject's model to a device, or as much of it as fits.

    Raises:
        CheckpointError: it does not fit: a TTT model as a whole, of another what is no layer.
    """
    if learns(subject):
        check_room(weight_bytes(subject.model), device, f"model {subject.name!r}")
        subject.model.to(device)
    else:
        place(subject.model, device)


def shape_beside(subject: Subject, name: str) -> Shape:
    """What decides the cost of the model of this name; nothing is loaded for it.

    By its configuration where it comes along or is here; of another, until it is here, that of the subject stands for it.
    """
    if name in ("", subject.name):
        return subject.shape()
    if name in subject.beside:
        return subject.beside[name].shape()
    file = BUNDLED_FOLDER / name / "config.json"
    if name not in NAMED or not file.is_file():
        return subject.shape()
    said, itemsize = json.loads(file.read_text(encoding="utf-8")), subject.model.dtype.itemsize
    if said["model_type"] == "ttt":
        config = TTTConfig.from_dict(said)
        return Shape.of_ttt(config, itemsize, config.max_position_embeddings)
    return Shape.of(LoopLlamaConfig.from_dict(said), itemsize)


def check_kind(task: Task, subject: Subject, tasks: Iterable[Task]) -> None:
    """Refuse a TTT model where loops are measured.

    Args:
        tasks: all of them, to say which take one.

    Raises:
        FieldError: naming the model.
    """
    if learns(subject) and not task.learns:
        known = ", ".join(each.name for each in tasks if each.learns)
        raise FieldError("model", subject.name, "ttt_not_measured", known=known)
