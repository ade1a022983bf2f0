"""Scores of generated text: against references (sacrebleu, rouge-score), and of the text alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU, CHRF

TOKENIZERS = ("13a", "zh", "char")  # of sacrebleu's BLEU; ROUGE-L goes along


@dataclass(frozen=True)
class ReferenceScores:
    """Each 0 to 100, higher is nearer to the reference.

    Attributes:
        bleu: sacrebleu's BLEU (of one text: with the orders that occur, ``effective_order``).
        rouge_l: F1 of the longest common subsequence (rouge-score), times 100; of several texts their mean.
        chrf: sacrebleu's chrF2.
    """

    bleu: float
    rouge_l: float
    chrf: float


@lru_cache
def _metrics(tokenize: str) -> tuple[BLEU, BLEU, CHRF, Any]:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU, CHRF

    rouge = RougeScorer(["rougeL"], tokenizer=None if tokenize == "13a" else _Characters())
    return BLEU(tokenize=tokenize, effective_order=True), BLEU(tokenize=tokenize), CHRF(), rouge


class _Characters:
    """A tokenizer for ROUGE-L of texts without spaces; its own knows nothing but a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return [character for character in text.lower() if not character.isspace()]


def _rouge(tokenize: str, text: str, reference: str) -> float:
    return 100 * _metrics(tokenize)[3].score(reference, text)["rougeL"].fmeasure


def score(text: str, reference: str, tokenize: str = "13a") -> ReferenceScores:
    """One text against its reference.

    Args:
        tokenize: of :data:`TOKENIZERS`: ``"13a"`` for languages with spaces, ``"zh"`` for Chinese, ``"char"``.
    """
    bleu, _, chrf, _ = _metrics(tokenize)
    return ReferenceScores(
        bleu.sentence_score(text, [reference]).score,
        _rouge(tokenize, text, reference),
        chrf.sentence_score(text, [reference]).score,
    )


def score_all(texts: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> tuple[ReferenceScores, str]:
    """Texts against their references, BLEU and chrF of the whole corpus; and sacrebleu's signature of the BLEU."""
    _, bleu, chrf, _ = _metrics(tokenize)
    found = ReferenceScores(
        bleu.corpus_score(list(texts), [list(references)]).score,
        sum(_rouge(tokenize, *pair) for pair in zip(texts, references, strict=True)) / len(texts),
        chrf.corpus_score(list(texts), [list(references)]).score,
    )
    return found, str(bleu.get_signature())


def _ngrams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(texts: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """distinct-n: different n-grams over all n-grams of the texts' tokens (after arXiv 1510.03055); None without any."""
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(tokens: Sequence[Hashable], n: int = 4) -> float | None:
    """seq-rep-n: share of a text's n-grams that occurred before in it (arXiv 1908.04319); None in a shorter text."""
    found = distinct([tokens], n)
    return None if found is None else 1 - found
