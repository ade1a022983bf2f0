"""The models the page offers: for each some prompts to try, and what to look for (`look.<name>` in the texts)."""

from __future__ import annotations

from dataclasses import dataclass

EXAMPLES_SHOWN = 4


@dataclass(frozen=True)
class Offer:
    """A model of the list.

    Attributes:
        name: as `load_checkpoint` knows it.
        examples: prompts to try, at most `EXAMPLES_SHOWN`; the first is the one the page suggests.
    """

    name: str
    examples: tuple[str, ...]


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
        "arrows-loop",
        (
            "j>i k>c f>j d>i e>c c>n p>o l>o b>f m>b h>b g>p h?",  # 4 arrows to follow
            "g>m d>b h>d o>e j>n b>k i>c e>h a>m m>j p>n c>l m?",  # 2
            "f>j m>n g>j i>p k>e l>n n>e c>g e>c a>c d>m b>g d?",  # 6
            "m>p d>b n>a c>b j>e b>f p>l f>k o>m g>m l>h h>c g?",  # 8
        ),
    ),
    Offer("glassbox", ("a", "abc", "hal9", "loopz")),
    Offer(
        "smollm2-135m-instruct",
        (
            "Once upon a time, a small robot",
            "The capital of France is",
            "To make a good cup of tea, first",
            "def fibonacci(n):",
        ),
    ),
)
OFFERED = {offer.name: offer for offer in OFFERS}
OWN = Offer("", OFFERED["smollm2-135m-instruct"].examples)  # of a model the visitor names


def offer_of(name: str) -> Offer:
    """The offer of a model; of one that is not in the list, general prompts."""
    return OFFERED.get(name, OWN)


def is_example(prompt: str) -> bool:
    """Whether a prompt is one we suggested, so that it may give way to another suggestion."""
    return any(prompt == example for offer in OFFERS for example in offer.examples)
