"""What an application of Ray Serve is asked to serve, and how a replica of it gets its model (:mod:`loopviz.engine.ray_app`).

This knows nothing of Ray: tests run it without.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz.checks import FieldError, check_one_of, check_whole
from loopviz.fields import kind_of, read_value, typed_values
from loopviz.machine import PRECISIONS

if TYPE_CHECKING:
    from loopviz.engine.local import LocalEngine

MOST = 10_000  # of replicas, and of processors of one


@dataclass(frozen=True)
class Serving:
    """The arguments of the application.

    Attributes:
        models: names or paths, as `loopviz` takes them; whoever asks for one asks by what is written here.
        replicas, least: of each model, at most and at least; with `least=0` one that nobody asks for takes nothing, and who asks then
            waits until it is loaded.
        cpus: of a replica; so many threads it computes with.
        precision: what weights are held in.

    Raises:
        FieldError: naming the argument, its value and the rule.
    """

    models: tuple[str, ...]
    replicas: int = 4
    least: int = 1
    cpus: int = 1
    precision: str = "exact"

    def __post_init__(self) -> None:
        if not all(self.models) or not self.models:
            raise FieldError("models", ",".join(self.models), "missing")
        check_whole("replicas", self.replicas, 1, MOST)
        check_whole("least", self.least, 0, self.replicas)
        check_whole("cpus", self.cpus, 1, MOST)
        check_one_of("precision", self.precision, PRECISIONS)

    def deployments(self) -> dict[str, str]:
        """What Ray Serve calls the deployment of each model, by the model's name."""
        return {
            name: f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}-{i}"
            for i, name in enumerate(dict.fromkeys(self.models))
        }


def serving(args: Mapping[str, Any]) -> Serving:
    """The arguments as `serve run` gives them, in words, or a file for `serve deploy`; FieldError as :class:`Serving`, and for a name that
    there is not."""
    hints, given = typing.get_type_hints(Serving), dict(args)
    for name, value in args.items():
        if isinstance(value, str) and name in hints:
            try:
                given[name] = read_value(value, hints[name])
            except ValueError:
                raise FieldError(name, value, "kind", kind=kind_of(hints[name])) from None
    return Serving(**typed_values(Serving, given))


def served_engine(name: str, precision: str) -> LocalEngine:
    """A model of this process, the host's own choice; CheckpointError where it cannot be had."""
    from loopviz.engine.local import LocalPrepared
    from loopviz.model.checkpoints.load import prepare_checkpoint

    checkpoint = prepare_checkpoint(os.path.expanduser(name))
    return LocalPrepared(name, checkpoint, precision).load()
