"""The models the page offers: for each some prompts to try, and what to look for (`look.<name>` in the texts)."""

from __future__ import annotations

from dataclasses import dataclass

from loopviz.app.contract import ARROW_TASK
from loopviz.paths import ASSETS

EXAMPLES_SHOWN = 4
_TEXTS = ASSETS / "texts"


@dataclass(frozen=True)
class Offer:
    """A model of the list.

    Attributes:
        name: as `load_checkpoint` knows it.
        examples: prompts to try, at most `EXAMPLES_SHOWN`; the first is the one the page suggests.
        sample: a text of ours, of the kind the model knows, to measure it on: a file of `assets/texts`.
    """

    name: str
    examples: tuple[str, ...]
    sample: str = "little-stories"


STORIES = (
    "One sunny day, a boy named Tim",
    "Lily and Ben were playing in the park. Lily saw a big",
    "The dog was sad because",
    "One day, a bird found a shiny key. The bird",
)
OFFERS = (
    Offer("stories-loop", STORIES),
    Offer("stories-noinject", STORIES),
    Offer(
        str(ARROW_TASK["model"]),
        (
            "j>i k>c f>j d>i e>c c>n p>o l>o b>f m>b h>b g>p h?",  # 4 arrows to follow
            "g>m d>b h>d o>e j>n b>k i>c e>h a>m m>j p>n c>l m?",  # 2
            "f>j m>n g>j i>p k>e l>n n>e c>g e>c a>c d>m b>g d?",  # 6
            "m>p d>b n>a c>b j>e b>f p>l f>k o>m g>m l>h h>c g?",  # 8
        ),
        "arrows",
    ),
    Offer("glassbox", ("a", "abc", "hal9", "loopz"), "letters"),
    Offer(
        "smollm2-135m-instruct",
        (
            "Once upon a time, a small robot",
            "The capital of France is",
            "中国的首都是",
            "def fibonacci(n):",
        ),
    ),
)
OFFERED = {offer.name: offer for offer in OFFERS}
UNLISTED = ("stories-attention",)  # ours too: it has no loop, and is named where others are held against it
OWN = Offer("", OFFERED["smollm2-135m-instruct"].examples)  # of a model the visitor names


def offer_of(name: str) -> Offer:
    """The offer of a model; of one that is not in the list, general prompts."""
    return OFFERED.get(name, OWN)


def samples() -> dict[str, dict[str, str]]:
    """The texts to measure on, each once: `of` by model (under "" any other) the name of its text, `texts` by that name."""
    of = {offer.name: offer.sample for offer in (*OFFERS, OWN)}
    return {"of": of, "texts": {name: (_TEXTS / f"{name}.txt").read_text(encoding="utf-8") for name in {*of.values()}}}


def sample_of(model: str) -> str:
    """The text to measure a model on."""
    found = samples()
    return found["texts"][found["of"].get(model, found["of"][""])]


def is_example(prompt: str) -> bool:
    """Whether a prompt is one we suggested, so that it may give way to another suggestion."""
    return any(prompt == example for offer in OFFERS for example in offer.examples)
