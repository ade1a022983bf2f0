"""A lesson with a step of each kind, for whoever needs one; the tiny model of the tests can play it."""

from __future__ import annotations

import copy
from typing import Any


def words(en: str, zh: str = "中文") -> dict[str, str]:
    return {"en": en, "zh": zh}


_TWICE = {
    "one": {
        "prompt": "Once upon a time",
        "called": words("one loop"),
        "loop": {"loop_layers": [1, 1], "loop_count": 1},
    },
    "four": {
        "prompt": "Once upon a time",
        "called": words("four loops"),
        "loop": {"loop_layers": [1, 1], "loop_count": 4},
    },
}
_TOY: dict[str, Any] = {
    "format": 1,
    "id": "toy",
    "version": 3,
    "title": words("A toy"),
    "about": words("What it is about."),
    "minutes": 5,
    "model": "tiny",
    "steps": [
        {
            "id": "count",
            "question": words("How many loops?"),
            "predict": {
                "kind": "choice",
                "choices": [{"text": words("two"), "value": 2}, {"text": words("four"), "value": 4}],
                "right": {"rule": "value", "of": ["loops"]},
            },
            "runs": {"run": {"prompt": "Once upon a time", "loop": {"loop_layers": [1, 1], "loop_count": 4}}},
            "measure": {"loops": {"what": "loops", "run": "run"}, "said": {"what": "guesses", "run": "run"}},
            "why": words("It took {loops}.", "用了 {loops} 次。"),
            "what_if": {
                "ask": words("With two?"),
                "runs": {"two": {"prompt": "Once upon a time", "loop": {"loop_layers": [1, 1], "loop_count": 2}}},
                "measure": {"now": {"what": "loops", "run": "two"}},
                "says": words("Now {now}.", "现在 {now} 次。"),
            },
        },
        {
            "id": "number",
            "question": words("How many on average?"),
            "predict": {
                "kind": "number", "of": "mean", "low": 1, "high": 8, "step": 0.5, "near": 1, "unit": words("loops"),
            },
            "runs": {"run": {"prompt": "Once upon a time", "loop": {"loop_layers": [1, 1], "loop_count": 4}}},
            "measure": {"mean": {"what": "mean_loops", "run": "run"}},
            "why": words("It was {mean}."),
        },
        {
            "id": "line",
            "question": words("How does it change?"),
            "predict": {
                "kind": "line", "of": "curve", "loops": 4, "low": 0.001, "high": 1, "scale": "log", "axis": words("change"),
            },
            "runs": {"run": {"prompt": "Once upon a time", "loop": {"loop_layers": [1, 1], "loop_count": 4}}},
            "measure": {"curve": {"what": "change", "run": "run"}},
            "why": words("It went {curve}."),
        },
        {
            "id": "blind",
            "question": words("Which is which?"),
            "predict": {"kind": "blind", "runs": ["one", "four"], "find": "one"},
            "runs": {name: {**run, "sampling": {"max_new_tokens": 6}} for name, run in _TWICE.items()},
            "measure": {"same": {"what": "same_text", "run": "one", "other": "four"}},
            "why": words("The same: {same}."),
        },
        {
            "id": "larger",
            "question": words("Which is more?"),
            "predict": {
                "kind": "choice",
                "choices": [{"text": words("one"), "value": "ones"}, {"text": words("four"), "value": "fours"}],
                "right": {"rule": "largest", "of": ["ones", "fours"]},
            },
            "runs": _TWICE,
            "measure": {"ones": {"what": "loops", "run": "one"}, "fours": {"what": "loops", "run": "four"}},
            "why": words("{ones} and {fours}."),
        },
        {
            "id": "table",
            "question": words("How far apart are the norms?"),
            "predict": {
                "kind": "choice",
                "choices": [{"text": words("near"), "high": 1}, {"text": words("far"), "low": 2}],
                "right": {"rule": "between", "of": ["batch"]},
            },
            "runs": {
                "norms": {
                    "prompt": "Once upon a time",
                    "task": "norms",
                    "params": {"loops": 2, "loop": {"loop_layers": [1, 1]}},
                },
            },
            "measure": {
                "batch": {
                    "what": "cell", "run": "norms", "column": "angle", "row": {"norm": "batch", "place": 2}, "called": words("degrees"),
                },
                "tokens": {"what": "cell", "run": "norms", "column": "tokens", "called": words("tokens")},
            },
            "why": words("{batch} degrees over {tokens} tokens."),
        },
    ],
}  # fmt: skip


def toy() -> dict[str, Any]:
    """A copy of it, to be changed."""
    return copy.deepcopy(_TOY)


def step(lesson: dict[str, Any], name: str) -> dict[str, Any]:
    """One of its steps."""
    return next(one for one in lesson["steps"] if one["id"] == name)
