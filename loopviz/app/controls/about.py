"""A loop's settings in a few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loopviz.app.texts import text


def memory(block: Mapping[str, Any], lang: str) -> str:
    """In a few words, what a block of a run's meta keeps of every token."""
    kept, dtype = _slots(block, lang), block.get("kv_dtype", "exact")
    return kept if dtype == "exact" else text(lang, "about.kept_in", kept=kept, dtype=dtype)


def _slots(block: Mapping[str, Any], lang: str) -> str:
    if block["kv_mode"] == "merge_strategy":
        return text(lang, "about.merged", merge=block["merge"])
    if block["slots"] == 1:
        return text(lang, "about.one_slot")
    return text(lang, f"about.{block['attention_mode']}", slots=block["slots"])


def held_in(meta: Mapping[str, Any], lang: str) -> list[str]:
    """What a run's model was held in, where that is not float32: a few words, or none."""
    dtype = meta.get("provenance", {}).get("dtype", "float32")
    return [] if dtype == "float32" else [text(lang, "about.held_in", dtype=dtype)]


def about_loop(blocks: Iterable[Mapping[str, Any]], lang: str) -> list[str]:
    """How a model loops and what it remembers, in a few words a block; of a BlockMeta only some fields are read."""
    words = []
    for block in blocks:
        fields = {"a": block["layers"][0], "b": block["layers"][1], "n": block["max_steps"]}
        one = ".one" if fields["a"] == fields["b"] else ""
        if block["strategy"] == "fixed_count":
            words.append(text(lang, f"about.fixed{one}", **fields))
        else:
            fields["criterion"] = block["criterion"]
            words.append(text(lang, f"about.dynamic{one}", **fields))
        words.append(memory(block, lang))
        if (chooser := block.get("chooser", "none")) != "none":
            words.append(text(lang, "about.chooser", name=chooser, threshold=f"{block['layer_threshold']:g}"))
    return words or [text(lang, "about.plain")]
