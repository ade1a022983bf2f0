"""What visitors ask for: each something of their own, and one the most of everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MODEL = "stories-loop"
SUBJECTS = ("dog", "robot", "girl", "boat", "bird", "king", "tree", "fish", "boy", "cat")
MOODS = ("little", "big", "sad", "happy")
SENTENCE = "Once upon a time, there was a little girl named Lily. She saw a big dog in the park and was not afraid. "
WORDS = 50_000  # tokens, about, of the text that is measured by her who asks for the most

# Of three lists whose lengths have no common divisor: no two of 210 visitors have the same of all.
LOOPS: tuple[Mapping[str, Any], ...] = (
    {"loop_strategy": "fixed_count", "loop_count": 2},
    {"loop_strategy": "fixed_count", "loop_count": 8},
    {"loop_strategy": "dynamic_stop", "convergence_criterion": "cosine", "cosine_threshold": -3.0},
    {"loop_strategy": "fixed_count", "loop_count": 4},
    {"loop_strategy": "dynamic_stop", "convergence_criterion": "kl", "kl_threshold": -3.3},
    {"loop_strategy": "fixed_count", "loop_count": 12},
)
_SLOTS = {"kv_cache_mode": "virtual_layers", "unreached_slots": "latest"}
CACHES: tuple[Mapping[str, Any], ...] = (
    {**_SLOTS, "virtual_layer_count": 8, "virtual_attention_mode": "serial"},
    {"kv_cache_mode": "merge_strategy", "merge_strategy": "ema", "merge_ema_alpha": 0.7},
    {**_SLOTS, "virtual_layer_count": 4, "virtual_attention_mode": "parallel"},
    {"kv_cache_mode": "merge_strategy", "merge_strategy": "average"},
    {**_SLOTS, "virtual_layer_count": 1, "virtual_attention_mode": "serial"},
)
SAMPLINGS: tuple[Mapping[str, Any], ...] = (
    {"greedy": True},
    {"greedy": False, "temperature": 0.8, "top_k": 50, "top_p": 0.95},
    {"greedy": False, "temperature": 0.6, "top_k": 0, "top_p": 1.0, "min_p": 0.1},
    {"greedy": True, "repetition_penalty": 1.1},
    {"greedy": False, "temperature": 1.1, "top_k": 20, "top_p": 0.9},
    {"greedy": False, "temperature": 0.7, "top_k": 0, "top_p": 0.9, "repetition_penalty": 1.2},
    {"greedy": False, "temperature": 1.0, "top_k": 100, "top_p": 1.0},
)
FEWEST, MOST = 2, 16  # loops of those that stop by themselves


@dataclass(frozen=True)
class Ask:
    """A run as a visitor asks for it.

    Attributes:
        values: of the form's controls.
        wishes: how it is looked at, as the page's script says; empty: as a page opens.
    """

    prompt: str
    values: Mapping[str, Any]
    wishes: Mapping[str, Any] = field(default_factory=dict)


def prompt_of(n: int) -> str:
    """No two of forty visitors ask the same."""
    mood, subject = MOODS[n // len(SUBJECTS) % len(MOODS)], SUBJECTS[n % len(SUBJECTS)]
    return f"Once upon a time there was a {mood} {subject}"


def values_of(tokens: int) -> dict[str, Any]:
    """The form as Explore opens with it: the model's own loop."""
    from loopviz.app.explore import first_run

    found = first_run.settings(MODEL)
    if found is None:
        raise SystemExit(f"{MODEL}: no recorded run, so its own settings are not known")
    return {**found[0], "model": MODEL, "max_new_tokens": tokens}


def own(n: int, tokens: int, wishes: Mapping[str, Any] | None = None) -> Ask:
    """What visitor `n` asks for: a prompt, loops, strategy, cache, sampling and seed of its own."""
    some = {**LOOPS[n % len(LOOPS)], **CACHES[n % len(CACHES)], **SAMPLINGS[n % len(SAMPLINGS)]}
    ends = {"min_loop_count": FEWEST, "max_loop_count": MOST, "seed": n}
    return Ask(prompt_of(n), {**values_of(tokens), **ends, **some}, wishes or {})


# --- the most of everything -------------------------------------------------------------------------------------------


def all_panels() -> dict[str, Any]:
    """Every panel is on, and drawn."""
    from loopviz.panels import PANELS

    return {"panels": [*PANELS], "on": [*PANELS]}


def longest_loop(part: int) -> dict[str, Any]:
    """As many loops and slots as the controls hold, through `part`: a token stops as late as the strictest thresholds let it."""
    from loopviz.app.controls.controls import BY_NAME

    most = int(BY_NAME["max_loop_count"].high) // part
    own = {"max_loop_count": most, "min_loop_count": min(most, int(BY_NAME["min_loop_count"].high))}
    own |= {"virtual_layer_count": min(most, int(BY_NAME["virtual_layer_count"].high))}
    own |= {"loop_strategy": "dynamic_stop", "convergence_criterion": "both", "virtual_attention_mode": "parallel"}
    return {
        **own,
        **_SLOTS,
        "cosine_threshold": BY_NAME["cosine_threshold"].low,
        "kl_threshold": BY_NAME["kl_threshold"].low,
    }


def largest_runs() -> Iterator[Ask]:
    """Runs, the largest first: a server may refuse the first ones."""
    from loopviz.app.controls.controls import BY_NAME

    tokens = int(BY_NAME["max_new_tokens"].high)
    for part in (1, 2, 4, 8):
        for fewer in (1, 2, 4, 8, 16):
            yield Ask(prompt_of(0), {**values_of(tokens // fewer), **longest_loop(part)}, all_panels())


def largest_comparisons() -> Iterator[dict[str, Any]]:
    """Comparisons, the largest first."""
    from loopviz.app.compare.request import MOST as CARDS
    from loopviz.app.controls.controls import BY_NAME

    tokens = int(BY_NAME["max_new_tokens"].high)
    for part in (1, 2, 4, 8):
        for fewer in (1, 2, 4, 8, 16):
            cards = [{"name": f"{n}", "plain": False, "values": longest_loop(part)} for n in range(CARDS)]
            shared = {"max_new_tokens": tokens // fewer}
            asked = {"model": MODEL, "prompt": prompt_of(0), "continuation": SENTENCE, "shared": shared}
            yield {**asked, "cards": cards, "baseline": 0}


def largest_measurements() -> Iterator[dict[str, Any]]:
    """Measurements of perplexity, the largest first."""
    text = SENTENCE * (WORDS // 25)
    for loops in (256, 128, 64, 32, 16):
        for limit in (WORDS, 16_000, 4_000, 1_000):
            values = {"text": text, "loops": f"{loops // 2}, {loops}", "limit_tokens": str(limit)}
            yield {"model": MODEL, "task": "perplexity", "values": values}
