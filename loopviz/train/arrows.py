"""The task "follow the arrows", generated: `b>c f>a a>b ... f? c`.

A problem lists arrows (one token each, so that following one is one attention look-up) and asks where a node ends: the
answer is the node, reached by 0 or more further arrows, that has none of its own. The problem's depth is the number of
arrows on the way. Other arrows lead elsewhere, or into the way, and other nodes are ends too.
"""

from __future__ import annotations

from string import ascii_lowercase

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .recipe import Arrows

END, UNKNOWN = "<end>", "<unk>"
IGNORE = -100  # label of positions that are not trained, as in torch's cross_entropy


def vocabulary(nodes: int) -> list[str]:
    """Every token, by id: the end mark, the unknown word, answers `a`, questions `a?`, arrows `a>b`."""
    letters = ascii_lowercase[:nodes]
    arrows = [f"{a}>{b}" for a in letters for b in letters if a != b]
    return [END, UNKNOWN, *letters, *(f"{a}?" for a in letters), *arrows]


def make_tokenizer(nodes: int) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, separated by spaces; what it decodes reads like what was typed."""
    words = {word: index for index, word in enumerate(vocabulary(nodes))}
    inner = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )


def sequence_length(task: Arrows) -> int:
    """Tokens of a training sequence: arrows, question, answer."""
    return task.arrows + 2


def draw_problems(task: Arrows, hops: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random problems.

    Args:
        task: the recipe's settings.
        hops: `[B]` int, the depth of each, in `1..task.arrows`.
        rng: where the draws come from.

    Returns:
        ids `[B, arrows + 2]` int64 (arrows in random order, question, answer) and labels `[B, arrows + 2]` int64, the
        token after each position where it is trained (the answer, then the end mark), else `IGNORE`.

    Raises:
        ValueError: a depth the arrows cannot give.
    """
    n, A = task.nodes, task.arrows
    hops = np.asarray(hops, dtype=np.int64)
    if hops.size and not (hops.min() >= 1 and hops.max() <= A):
        raise ValueError(f"hops={hops.min()}..{hops.max()}: must be in 1..{A} (arrows.arrows)")
    B, h = len(hops), hops[:, None]
    place = rng.permuted(np.tile(np.arange(n), (B, 1)), axis=1)  # [B, n]; places 0..h are the way, place h its end
    source = np.tile(np.arange(A + 1), (B, 1))  # places 0..A without h have an arrow, places above A are ends too
    # A place off the way points to any place on it or after itself: there is no circle, so every walk ends.
    free = rng.integers(0, h + n - source)  # of h + 1 places on the way and n - 1 - source after it
    target = np.where(source < h, source + 1, np.where(free <= h, free, free + source - h))
    keep = source != h
    source, target = source[keep].reshape(B, A), target[keep].reshape(B, A)
    order = rng.permuted(np.tile(np.arange(A), (B, 1)), axis=1)
    source, target = np.take_along_axis(source, order, 1), np.take_along_axis(target, order, 1)
    a, b = np.take_along_axis(place, source, 1), np.take_along_axis(place, target, 1)
    first = 2 + 2 * n  # id of the first arrow; see vocabulary()
    arrows = first + a * (n - 1) + b - (b > a)
    answer = np.take_along_axis(place, h, 1)
    ids = np.concatenate((arrows, 2 + n + place[:, :1], 2 + answer), axis=1)
    labels = np.full_like(ids, IGNORE)
    labels[:, -2], labels[:, -1] = ids[:, -1], 0
    return ids, labels


EXAMPLE_HOPS = 4


def example(task: Arrows) -> tuple[str, str]:
    """A problem as one types it, and its answer: always the same one."""
    words, hops = vocabulary(task.nodes), np.full(1, min(EXAMPLE_HOPS, task.max_hops))
    ids, _ = draw_problems(task, hops, np.random.default_rng(0))
    *problem, answer = (words[token] for token in ids[0])
    return " ".join(problem), answer


def draw_depths(task: Arrows, deepest: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Depths of a training batch, `[batch]`: the deepest, and a rehearsal of all depths up to it."""
    rehearsed = rng.random(batch) < task.rehearsal
    return np.where(rehearsed, rng.integers(1, deepest + 1, batch), deepest)


def draw_deepest(task: Arrows, depth: int, rng: np.random.Generator) -> int:
    """The deepest chain of a training batch when the curriculum has reached `depth`.

    Loops are drawn for the whole batch from its deepest chain: were it always `depth`, short chains would never be
    answered with few loops.
    """
    return int(rng.integers(1, depth + 1)) if rng.random() < task.rehearsal else depth
