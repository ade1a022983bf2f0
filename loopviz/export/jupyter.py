"""A run as a Jupyter notebook (``.ipynb``, format 4.5) that makes it again, saves and loads its trace, and draws three panels.

It needs LoopViz where it is run, and nothing else; what a notebook shows of a trace at hand is :mod:`loopviz.export.notebook`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loopviz.export import python_code as code

if TYPE_CHECKING:
    from loopviz.trace import Trace

PANELS = ("loops_per_token", "convergence", "kv_occupancy")  # of every run, whatever it recorded
TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "title": "# A run of LoopViz, made again\n\nRun all cells from top to bottom. They need LoopViz (`pip install` its folder or "
        "wheel) and the model. If the model was a folder or a file of somebody's machine, write where yours is.",
        "load": "## 1 The model, and how it loops",
        "run": "## 2 The run\n\nGreedy or with the same seed, the text is the one that was seen. On another processor a number may be "
        "rounded otherwise and a word turn out different; the last line says whether one did.",
        "trace": "## 3 Its trace\n\nEverything recorded, as one file, and as tables (`pandas`).",
        "panels": "## 4 Three panels\n\nThe page's own figures: move the slider, choose a word. `loopviz.panels.PANELS` names the others.",
        "same": "the same text as then",
        "differs": "another text than then; they part after",
        "characters": "characters",
    },
    "zh": {
        "title": "# 重新生成 LoopViz 的一次运行\n\n请从上到下运行所有单元格。需要安装 LoopViz（对其文件夹或 wheel 执行 `pip install`）以及模型。"
        "如果模型是某台机器上的文件夹或文件，请改为您自己的位置。",
        "load": "## 1 模型及其循环方式",
        "run": "## 2 运行\n\n贪心解码或使用同一随机种子时，文本与当时所见相同。在不同处理器上，数字的舍入可能不同，个别词也可能因此不同；"
        "最后一行会说明是否如此。",
        "trace": "## 3 轨迹\n\n记录的全部内容：存为一个文件，或作为表格（`pandas`）。",
        "panels": "## 4 三个面板\n\n与网页上的图相同：拖动滑块，或选择一个词。其他面板的名称见 `loopviz.panels.PANELS`。",
        "same": "与当时的文本相同",
        "differs": "与当时的文本不同；相同的开头字符数：",
        "characters": "",
    },
}


def notebook(trace: Trace, model: str | None = None, lang: str = "en") -> dict[str, Any]:
    """The notebook of the run of ``trace``, as JSON has it.

    Args:
        model: what to load; None: as the trace calls it.
        lang: of its words, "en" or "zh".
    """
    words = TEXTS[lang]
    cells = [
        _words(words["title"]),
        _words(words["load"]),
        _code(code.loading(trace, model)),
        _words(words["run"]),
        _code(f"{code.running(trace)}\nprint(trace.text)"),
        _code(_compared(trace.text, words)),
        _words(words["trace"]),
        _code(
            'from loopviz.trace import file\n\nfile.save(trace, "run.loopviz")\ntrace = file.load("run.loopviz")\ntrace.blocks.head()'
        ),
        _words(words["panels"]),
        *(_code(_panel(name, lang, first=name == PANELS[0])) for name in PANELS),
    ]
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": [{"id": f"loopviz-{n}", **cell} for n, cell in enumerate(cells)],
    }


def notebook_bytes(trace: Trace, model: str | None = None, lang: str = "en") -> bytes:
    """:func:`notebook` as a file."""
    text = json.dumps(notebook(trace, model, lang), ensure_ascii=False, indent=1) + "\n"
    return text.encode("utf-8", "replace")  # half a character cannot be in a file


def _compared(text: str, words: dict[str, str]) -> str:
    """Whether the text is the one that the trace has."""
    end = f', "{words["characters"]}"' if words["characters"] else ""
    return (
        f"then = {text!r}\n"
        "alike = next((n for n, (a, b) in enumerate(zip(then, trace.text)) if a != b), min(len(then), len(trace.text)))\n"
        f'print("{words["same"]}") if then == trace.text else print("{words["differs"]}", alike{end})'
    )


def _panel(name: str, lang: str, *, first: bool) -> str:
    """A cell that draws one panel."""
    begin = "import loopviz\n\n" if first else ""
    spoken = "" if lang == "en" else f', lang="{lang}"'
    return f'{begin}loopviz.explore(trace, panels=["{name}"], height=760{spoken})'


def _lines(text: str) -> Sequence[str]:
    """A cell's text as the format has it: its lines, each with its end."""
    return text.splitlines(keepends=True)


def _words(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": _lines(text)}
