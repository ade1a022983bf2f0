"""What a form of `teach` asks for: its numbers with their ends, the recipe they make, and the command that does the same.

Plain data, free of torch: a page shows it before anything is imported.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopviz.checks import ABSENT, FieldError, check_characters, check_one_of, check_real, check_whole
from loopviz.prompt_templates import TEMPLATES

from .teach_recipe import INSTRUCTIONS, KINDS, TEXT, TeachRecipe

LOOPS_BEYOND = 2  # so many loops more than are taught are measured too: whether it settles, or falls apart
MOST_LOOPS = 32
CLOSING_TOKENS = 4096  # measured on at the end, at most; the command's own number is twice that
OWN = "own"  # of templates: the model's own chat template, or none where it has none
TEMPLATE_CHOICES = (OWN, *TEMPLATES)  # how prompts are put, of prompts and responses
FILES = {TEXT: "text.txt", INSTRUCTIONS: "text.jsonl"}  # what a visitor's text is called


@dataclass(frozen=True)
class Number:
    """A number of the form.

    Attributes:
        name: of its field.
        low, high: its ends, both allowed.
        value: with which the form opens.
        whole: whether it is a whole number.
    """

    name: str
    low: float
    high: float
    value: float
    whole: bool = True

    def check(self, value: Any) -> None:
        """FieldError unless a value may stand here."""
        if self.whole:
            check_whole(self.name, value, int(self.low), int(self.high))
        else:
            check_real(self.name, value, self.low, self.high)


NUMBERS: tuple[Number, ...] = (
    Number("first", 0, 10_000, 0),  # layers of the block; the model says how many there are
    Number("last", 0, 10_000, 0),
    Number("least", 1, MOST_LOOPS, 1),  # loops that a step draws from
    Number("most", 1, MOST_LOOPS, 4),
    Number("rank", 1, 256, 8),
    Number("alpha", 0.01, 1024, 8, whole=False),
    Number("lr", 1e-6, 1, 1e-3, whole=False),
    Number("steps", 1, 100_000, 100),
    Number("batch", 1, 256, 4),
    Number("window", 2, 8192, 64),
    Number("every", 1, 10_000, 10),
    Number("seed", 0, 2**31 - 1, 0),
)
NAMES = frozenset({"kind", "template", "text", "prompt", "model", *(number.name for number in NUMBERS)})


def usual(first: int, last: int, context: int) -> dict[str, int]:
    """What of the form a model decides.

    Args:
        first, last: the block that it has, or that pages loop of it.
        context: tokens that it can read.
    """
    return {"first": first, "last": last, "window": min(64, context)}


def recipe_of(values: Mapping[str, Any], model: str) -> TeachRecipe:
    """The recipe that a form asks for.

    No dropout: torch draws it from numbers that a server's other runs draw from too, and the seed that is shown would not say
    what comes of it.

    Args:
        values: by field; what is missing is as the form opens.
        model: its name.

    Raises:
        FieldError: by the name of its field.
    """
    filled = {number.name: values.get(number.name, number.value) for number in NUMBERS}
    for number in NUMBERS:
        number.check(filled[number.name])
    kind = values.get("kind", TEXT)
    check_one_of("kind", kind, KINDS)
    template = values.get("template", OWN)
    check_one_of("template", template, TEMPLATE_CHOICES)
    if kind != INSTRUCTIONS and template != OWN:
        raise FieldError("template", template, "teach_template")
    if filled["first"] > filled["last"]:
        raise FieldError("last", filled["last"], "at_least", low=f"first={filled['first']}")
    if filled["least"] > filled["most"]:
        raise FieldError("most", filled["most"], "at_least", low=f"least={filled['least']}")
    check_whole("every", filled["every"], 1, filled["steps"])
    return TeachRecipe.from_dict(
        {
            "base": model,
            "kind": kind,
            "template": "" if template == OWN else template,
            "loop": {"loop_layers": [filled["first"], filled["last"]]},
            "loops": {"sampler": "uniform", "min": filled["least"], "max": filled["most"]},
            "lora": {"rank": filled["rank"], "alpha": float(filled["alpha"]), "dropout": 0.0},
            "optimizer": {"name": "adamw", "lr": float(filled["lr"]), "weight_decay": 0.001},
            "schedule": {"name": "trapezoid", "warmup": min(10, filled["steps"])},
            "steps": filled["steps"],
            "batch": filled["batch"],
            "length": filled["window"],
            "seed": filled["seed"],
            "closing_tokens": CLOSING_TOKENS,
            "checkpoint_every": max(filled["steps"], 1),  # a page's run is resumed by nobody
            "evaluation": {
                "every": filled["every"],
                "loops": list(range(1, filled["most"] + LOOPS_BEYOND + 1)),
                "tokens": 1024,
                "positions": [],
            },
        }
    )


def command_of(recipe: TeachRecipe, model: str) -> str:
    """The command line that teaches the same, the text in a file.

    Args:
        model: its name, without anybody's folders.
    """
    first, last = recipe.loop["loop_layers"]
    loops = f"{recipe.loops.min}-{recipe.loops.max}"
    named = ["--model", model, "--loop-layers", f"{first}-{last}", "--loops", loops, "--data", FILES[recipe.kind]]
    named += ["--template", recipe.template] if recipe.template else []
    named += ["--out", "my-loop", "--steps", str(recipe.steps)]
    named += ["--rank", str(recipe.lora.rank), "--alpha", f"{recipe.lora.alpha:g}"]
    evaluation = recipe.evaluation
    more = {
        "lora.dropout": "0",
        "optimizer.lr": f"{recipe.optimizer.lr:g}",
        "batch": str(recipe.batch),
        "length": str(recipe.length),
        "seed": str(recipe.seed),
        "closing_tokens": str(recipe.closing_tokens),
        "evaluation.every": str(evaluation.every),
        "evaluation.loops": "[" + ",".join(map(str, evaluation.loops)) + "]",
        "evaluation.tokens": str(evaluation.tokens),
    }
    for field, value in more.items():
        named += ["--set", f"{field}={value}"]
    return "python -m loopviz teach " + shlex.join(named)


def check_given(text: Any) -> None:
    """FieldError unless there is a text to learn from."""
    if not isinstance(text, str) or not text.strip():
        raise FieldError("text", ABSENT, "prompt_empty")
    check_characters("text", text)
