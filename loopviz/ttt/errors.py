"""The inner loop's own refusal."""

from __future__ import annotations

from typing import Any

from loopviz.checks import FieldError


class InnerLossError(FieldError):
    """An inner loss that is no number: the pass ends, and the cache is as it was before it.

    Pages say it in their language, as a field's refusal; by itself it says more, to who has the model at hand.

    Attributes:
        layer, head, row: where.
        token: which column of the pass.
        position: how many of its row's tokens came before it.
    """

    def __init__(self, layer: int, head: int, row: int, token: int, position: int, value: float, broken: bool) -> None:
        self.layer, self.head, self.row, self.token, self.position = layer, head, row, token, position
        why = (
            "what enters this layer is not finite already: the weights before it or the input are broken; take another "
            "checkpoint, or look for the first of its tensors that is not finite"
            if broken
            else "the inner steps are too large; lower ttt_base_lr or inner_lr_scale, or take another checkpoint"
        )
        super().__init__("inner_loss", value, "inner_loss_nan", layer=layer, head=head, token=position, text="…")
        said = (
            f"inner loss = {value} at layer {layer}, head {head}, row {row}, token {position} of its text (column {token} of "
            f"the pass): {why}. Nothing of this pass is kept"
        )
        self.args = (said,)

    def inside(self, name: str) -> FieldError:
        """The same of what belongs to `name`."""
        places: dict[str, Any] = dict(self.places)
        within = f"{name}: {self.within}" if self.within else name
        return FieldError(self.field, self.value, self.rule, within=within, **places)

    def __reduce__(self) -> tuple[object, ...]:
        return (_again, (self.args, dict(self.__dict__)))


def _again(args: tuple[object, ...], fields: dict[str, object]) -> InnerLossError:
    error = InnerLossError.__new__(InnerLossError, *args)
    error.args = args
    error.__dict__.update(fields)
    return error
