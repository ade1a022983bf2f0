"""What a comparison measures one after the other: each configuration once, or one at several numbers of loops (a sweep)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopviz.checks import FieldError
from loopviz.engine.work import Shape
from loopviz.lab.fellows import learns
from loopviz.lab.reading.full_pass import fixed

if TYPE_CHECKING:
    from loopviz.lab.task import Subject


@dataclass(frozen=True)
class Setup:
    """One row's worth of a comparison.

    Attributes:
        of: the configuration it is of, from 0.
        name: that one's.
        loop: its loop fields; None: without a loop.
        swept: how many loops it runs, of a sweep; None: as `loop` says.
        model: the name of its model; "": the one that is measured.
    """

    of: int
    name: str
    loop: dict[str, Any] | None
    swept: int | None = None
    model: str = ""

    def view(self, subject: Subject) -> Any:
        """The model so configured, of the subject that :attr:`model` names. A sweep keeps no more notes of a token than it runs loops, where none that is left out is read.

        Raises:
            ValueError: a field that the model refuses.
        """
        view = subject.view(self.loop)
        if self.swept is None:
            return view
        if learns(subject):
            raise FieldError("sweeps", self.swept, "ttt_no_loop", what="sweeps")
        config = view.config
        # read in turn (serial), slots beyond the last loop would be copies that nobody reads
        if config.kv_cache_mode == "virtual_layers" and config.virtual_attention_mode == "serial":
            view = view.with_loop(virtual_layer_count=min(config.virtual_layer_count, self.swept))
        return fixed(view, self.swept)


def counts_to(most: int) -> list[int]:
    """The numbers of loops of a sweep: powers of two, the middle between two of them, and `most`: 1, 2, 3, 4, 6, 8, 12, 16."""
    found, power = {most}, 1
    while power <= most:
        found |= {count for count in (power, power * 3 // 2) if count <= most}
        power *= 2
    return sorted(found)


def setups_of(
    names: Sequence[str], loops: Sequence[dict[str, Any] | None], sweeps: Sequence[int], models: Sequence[str] = ()
) -> list[Setup]:
    """Every configuration, those that are swept at each number of loops.

    Args:
        sweeps: of each configuration up to how many loops it is swept, 0: not; what is missing is 0.
        models: of each configuration the name of its model, "": the one that is measured; what is missing is "".
    """
    found: list[Setup] = []
    for i, (name, loop) in enumerate(zip(names, loops, strict=True)):
        most = sweeps[i] if i < len(sweeps) else 0
        model = models[i] if i < len(models) else ""
        found += [Setup(i, name, loop, count, model) for count in (counts_to(most) if most else [None])]
    return found


def shapes_of(shape: Shape, sweep: int) -> list[Shape]:
    """What decides the cost of each row of a configuration, swept up to so many loops (0: not at all)."""
    return [shape.at(count) for count in counts_to(sweep)] if sweep else [shape]
