"""One precision for all models of what a page asks for: what was chosen, what its control says, why it cannot be had and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from loopviz.app import controls as st
from loopviz.app.controls.face import plain_face
from loopviz.app.controls.model_name import short_name
from loopviz.app.controls.refusal import told
from loopviz.app.sessions.job import Job, Refused
from loopviz.app.sessions.model_status import Status
from loopviz.app.sessions.models import ModelRefused, ModelRoom
from loopviz.app.texts import text
from loopviz.checks import FieldError

NAME = "precision"  # of the control
CONTROL = st.BY_NAME[NAME]


def chosen(said: Any, lang: str) -> tuple[str, list[st.Problem]]:
    """What a page, or a program, chose; where it said nothing as the server has it. What is no precision is refused by name."""
    try:
        return (st.SERVER if said in (None, "") else str(st.read_control(CONTROL, said))), []
    except FieldError as error:
        return st.SERVER, [st.Problem(NAME, told(error, lang))]


def refusals(statuses: Iterable[Status], lang: str) -> list[st.Problem]:
    """Of models that could not be had, those that could not for their precision: each names its model."""
    return [st.Problem(NAME, now.reason(lang)) for now in statuses if now.state == "failed" and now.field == NAME]


def face_of(precision: str, problems: list[st.Problem], room: ModelRoom, lang: str) -> dict[str, Any]:
    """How the control stands, as on Explore: what the choice means on this server, or why it cannot be had."""
    return plain_face(CONTROL, {NAME: precision}, problems, lang, server=room.precision)


def way_out(precision: str, room: ModelRoom, lang: str) -> dict[str, str] | None:
    """A button that asks for the same in a precision that can be had (`contract.Act`); None where there is no other."""
    if room.profile.engine:  # a cluster has its own, and no other
        return {"label": text(lang, "precision.server"), "precision": st.SERVER}
    return None if precision == "exact" else {"label": text(lang, "precision.again"), "precision": "exact"}


def is_overflow(error: BaseException) -> bool:
    """Whether numbers grew beyond what float16 holds, which exact has room for."""
    return isinstance(error, FieldError) and error.rule == "logits_nan_float16"


def told_of(error: BaseException, lang: str) -> str:
    """An error of a measurement in words: what is said of numbers that grew beyond float16 is said of the control here."""
    return text(lang, "precision.overflow") if is_overflow(error) else told(error, lang)


def overflow(lang: str) -> Refused:
    """What is said of that: beside the control."""
    return Refused(st.Problem(NAME, text(lang, "precision.overflow")))


def measured_in(held: dict[str, str], lang: str) -> str:
    """A sentence on what the models of a measurement were held in; "" where that is float32.

    Args:
        held: by model.
    """
    dtypes = [*dict.fromkeys(held.values())]
    if dtypes in ([], ["float32"]):
        return ""
    joint = text(lang, "compare.and")
    if len(dtypes) > 1:
        names = {dtype: joint.join(short_name(name) for name in held if held[name] == dtype) for dtype in dtypes}
        dtypes = [f"{dtype} ({names[dtype]})" for dtype in dtypes]
    return text(lang, "measured.held", dtype=joint.join(dtypes))


class InPrecision(Job):
    """A job whose visitor chose what its models are held in: what cannot be had so is told beside that control, with a way out.

    Attributes:
        room: where its models are.
    """

    room: ModelRoom

    def beside(self, error: BaseException) -> str:
        """The model, or its precision, where it cannot be had."""
        return error.field if isinstance(error, ModelRefused) else super().beside(error)

    def refused(self, refused: Refused) -> Iterator[str]:
        """Its last message; `act`: a button, and the precision in which it asks for the same."""
        if refused.problems[0].control == NAME and (act := way_out(self.precision, self.room, self.lang)) is not None:
            refused.more = {**refused.more, "act": act}
        return super().refused(refused)
