"""The Anatomy page: a run's words, the way through a decoder layer, and what each stage of it computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from loopviz.anatomy.other_stages import OTHERS
from loopviz.anatomy.stage_list import ALL, AROUND, BETAS, Stage
from loopviz.app.anatomy.service import Anatomy
from loopviz.app.page import ScriptedPage, locate, page_data
from loopviz.app.sessions.job import Jobs
from loopviz.app.sessions.models import ModelRoom
from loopviz.figures import theme

LLAMA = "loopviz.anatomy.llama"
ARTICLE = (  # of that file, read from top to bottom
    "LlamaRMSNorm",
    "rope_rule",
    "rotary_frequencies",
    "rotation",
    "rotate",
    "KVCache",
    "visible",
    "repeat_kv",
    "LlamaAttention",
    "LlamaMLP",
    "LlamaDecoderLayer",
    "LlamaModel",
    "shifted_loss",
    "probabilities",
    "LlamaForCausalLM",
)

# Small experiments beside a stage: measurements of the Lab on real tensors.
EXPERIMENTS: Mapping[str, tuple[str, ...]] = {
    "norm": ("norms",),
    "query": ("grouped_queries",),
    "key": ("grouped_queries",),
    "rope": ("rope_length",),
    "keys": ("cache_or_not", "grouped_queries"),
    "norm_attended": ("norms",),
    "norm_stream": ("norms",),
    "norm_mlp": ("norms",),
    "norm_down": ("norms",),
    "norm_result": ("norms",),
    "down": ("roofline", "lora_count"),
    "final_norm": ("norms",),
    "head": ("llama_sizes", "roofline"),
}


def _place(reference: str, words: str = "") -> dict[str, str]:
    place = locate(reference, words)
    return {"name": place.name, "at": f"{place.path}:{place.line}", "url": place.url}


def entry(stage: Stage) -> dict[str, Any]:
    """A stage as the page's script takes it: its formula as MathML, and the line of code that computes it."""
    from loopviz.export.report import formula

    return {
        "key": stage.key,
        "name": stage.name,
        "title": stage.title or stage.name,
        "about": stage.about or stage.name,
        "tensors": list(stage.tensors),
        "axes": list(stage.axes),
        "formula": formula(stage.formula),
        "reads": list(stage.reads),
        "code": _place(stage.code, stage.line),
        "drawn": list(stage.drawn),
        "within": stage.name not in AROUND,
        "lab": list(EXPERIMENTS.get(stage.name, ())),
    }


def data(room: ModelRoom) -> dict[str, Any]:
    """What the page's script is told once."""
    article = [_place(f"{LLAMA}:{name}") for name in ARTICLE]
    return page_data(
        "anatomy",
        room,
        stages=[entry(stage) for stage in ALL],
        others=[entry(stage) for stage in OTHERS],
        betas=list(BETAS),
        colours=theme.SIGNS,
        article=article,
    )


class AnatomyPage(ScriptedPage):
    """The Anatomy page."""

    name, title = "anatomy", "Anatomy"

    def __init__(self, demo: gr.Blocks, anatomy: Anatomy) -> None:
        super().__init__(demo, anatomy, data(anatomy.room))


def add(demo: gr.Blocks, jobs: Jobs) -> None:
    """The page, as one of the app's."""
    AnatomyPage(demo, Anatomy(jobs))
