"""Runs that take a second: tiny recipes and a text."""

from __future__ import annotations

from pathlib import Path

from loopviz.train.recipe import Recipe

WORDS = ["cat", "dog", "hat", "sun", "red", "big", "ran", "sat", "saw", "the", "a", "and"]


def story(path: Path, seed: int = 0, documents: int = 60) -> Path:
    """A text file of small made-up stories."""
    import random

    draw = random.Random(seed)
    tales = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(5, 20))) + "." for _ in range(documents)]
    path.write_text("".join(f"{tale}\n<|endoftext|>\n" for tale in tales), "utf-8")
    return path


MODEL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "max_loop_count": 16,
    "loop_layers": [0, 1],
    "loop_count": 3,
    "loop_injection": "add",
    "loop_norm": True,
    "virtual_attention_mode": "serial",
}


def text_recipe(**changes) -> Recipe:
    """A few steps on text, with everything on that a resumed run must get right."""
    values = {
        "name": "small",
        "task": "text",
        "model": MODEL,
        "steps": 9,
        "batch": 2,
        "length": 8,
        "vocab_size": 270,
        "backprop_steps": 2,
        "dropout": 0.2,
        "seed": 3,
        "checkpoint_every": 3,
        "save_dtype": "float32",
        "loops": {"sampler": "poisson", "mean": 3, "max": 6},
        "optimizer": {"name": "muon", "lr": 0.01},
        "schedule": {"name": "trapezoid", "warmup": 2, "decay": 0.4},
        "evaluation": {"every": 3, "loops": [1, 2, 4], "tokens": 64},
    }
    return Recipe.from_dict(values).with_values(changes)


TTT_MODEL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "mini_batch_size": 4,
    "tie_word_embeddings": False,
    "share_qk": True,
    "pre_conv": True,
    "use_gate": True,
}


def ttt_recipe(**changes) -> Recipe:
    """A few steps of a TTT model, dropout and both optimisers on."""
    own = {"name": "small-ttt", "model_type": "ttt", "model": TTT_MODEL, "loops": None, "backprop_steps": None}
    values = {**text_recipe().to_dict(), **own}
    return Recipe.from_dict(values).with_values({"evaluation.positions": [8, 40], **changes})


def arrows_recipe(**changes) -> Recipe:
    """A few steps of arrows, with a curriculum that is quickly content."""
    values = {
        "name": "small-arrows",
        "task": "arrows",
        "model": {**MODEL, "kv_cache_mode": "merge_strategy", "merge_strategy": "last"},
        "steps": 6,
        "batch": 4,
        "checkpoint_every": 2,
        "save_dtype": "float32",
        "loops": {"sampler": "hops", "max": 7, "extra": 3},
        "optimizer": {"lr": 0.01},
        "schedule": {"warmup": 1},
        "evaluation": {"every": 2, "loops": [1, 2, 4], "problems": 20, "final_problems": 30},
        "arrows": {"nodes": 6, "arrows": 4, "max_hops": 4, "promote_at": 0.05},
    }
    return Recipe.from_dict(values).with_values(changes)
