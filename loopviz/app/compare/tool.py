"""Compare's work for programs: configurations on one prompt, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

from loopviz.app import controls as st
from loopviz.app.compare.request import Asked
from loopviz.app.compare.run import ComparisonRun, columns
from loopviz.app.compare.service import ComparisonJob, Comparisons
from loopviz.app.sessions.tools import Call, Made, Tool, known
from loopviz.checks import check_one_of

_OWN = tuple(control.name for control in st.CONTROLS if control.group in st.LOOP_GROUPS)
_SHARED = tuple(control.name for control in st.CONTROLS if control.group == "sampling")


@dataclass(frozen=True)
class Configuration:
    """One configuration of a comparison.

    Attributes:
        settings: of its loop, by name; those left out are the model's own.
        plain: the model without its loop.
        model: another model than the comparison's, as it comes.
        sweep: up to how many loops it is measured, as a curve; 0: once.
    """

    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    plain: bool = False
    model: str = ""
    sweep: int = 0


class Compared(TypedDict):
    """What a comparison comes to."""

    verdict: str
    end: str | None
    columns: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    texts: dict[str, str]
    refused: dict[str, str]
    manifest: dict[str, Any]


def tool(comparisons: Comparisons) -> Tool:
    """`compare`, as the page Compare makes comparisons."""

    def compare(
        call: Call,
        prompt: str,
        configurations: tuple[Configuration, ...],
        model: str = "",
        continuation: str = "",
        settings: dict[str, Any] | None = None,
        baseline: int = 0,
        precision: str = st.SERVER,
    ) -> Made:
        """Run two to six configurations of looped models on one prompt, and measure what differs: texts of one model together, times of each alone.

        Args:
            prompt: the text that all go on from.
            configurations: each `{"name", "settings", "plain", "model", "sweep"}`, all of them optional: settings of its loop by name;
                `plain` for the model without its loop; another model as it comes; `sweep` for a curve up to so many loops.
            model: one of the models that this server offers; empty for its default.
            continuation: a text whose perplexity after the prompt each is measured on; empty for none.
            settings: of sampling, the same for all (`max_new_tokens`, `greedy`, `temperature`, ...).
            baseline: the place in `configurations` that the others are compared with, from 0.
            precision: what the weights of all their models are held in: "exact" (float32), "half" (the quicker half on that machine),
                "int8" (a byte a weight), "auto" (exact where that is quick enough, else the mildest that is), or "server", as the server
                has it. A TTT model is float32 alone, and refused in others.

        Returns:
            verdict in words, columns, rows (a row a configuration), texts by name, refused (by place, why one was left out), end,
            manifest (enough to make it again; `model.dtype` is what it was held in).
        """
        check_one_of("precision", precision, st.BY_NAME["precision"].choices)
        shared = settings or {}
        known((*_SHARED, *st.OLD_NAMES), shared, "settings")
        for place, one in enumerate(configurations):
            known(_OWN, one.settings, f"configurations.{place}.settings")
        cards = [
            {"name": form.name, "plain": form.plain, "values": form.settings, "model": form.model, "sweep": form.sweep}
            for form in configurations
        ]
        asked = {"lang": call.lang, "prompt": prompt, "continuation": continuation, "shared": shared}
        asked |= {"cards": cards, "baseline": baseline, "precision": precision}
        asked |= {"model": model.strip() or comparisons.room.default}
        job = ComparisonJob(comparisons, Asked.read(asked, comparisons.room.default), call.session)
        return Made(job, lambda run: answer(run, call.lang))

    schemas = {"precision": {"enum": [*st.BY_NAME["precision"].choices]}}
    return Tool(comparisons.jobs, compare, schemas, answer=Compared)


def answer(run: ComparisonRun, lang: str) -> dict[str, Any]:
    """What a comparison comes to, as plain data."""
    comparison = run.comparison
    texts = {
        setup.name: "".join(result.pieces)
        for setup, result in zip(comparison.setups, comparison.results, strict=True)
        if setup.swept is None
    }
    return {
        "verdict": run.snapshot()["verdict"],
        "end": run.end,
        "columns": columns(lang, run.learning, run.gated),
        "rows": [row for row in run.rows if row is not None],
        "texts": texts,
        "refused": {str(place): reason for place, reason in run.refused.items()},
        "manifest": run.experiment.manifest,
    }
