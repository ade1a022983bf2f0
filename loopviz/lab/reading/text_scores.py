"""Scores of generated text: against references (sacrebleu, rouge-score), and of the text alone.

Any language: BLEU's tokenization is chosen from the references (:func:`tokenizer_for`) unless it is given, and ROUGE counts
words of any script (:func:`words`); on English both are what sacrebleu's 13a and rouge-score themselves give.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU, CHRF

TOKENIZERS = ("auto", "13a", "zh", "ja-mecab", "char")  # of sacrebleu's BLEU; auto: by the references' script
ROUGE = ("rouge1", "rouge2", "rougeL")

# Scripts written without spaces between words, as Unicode names their characters: there each character counts as a word.
_KANA = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")
_HAN = ("CJK", "IDEOGRAPHIC")
_UNSPACED = (*_HAN, *_KANA, "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
_FEW = 0.1  # share of letters from which on a script decides


@dataclass(frozen=True)
class ReferenceScores:
    """Each 0 to 100, higher is nearer to the reference.

    An empty text, or one against an empty reference, shares nothing with it: 0, as in both libraries.

    Attributes:
        bleu: sacrebleu's BLEU (of one text: with the orders that occur, ``effective_order``).
        rouge_1, rouge_2: F1 of the words, and of the pairs of words, in common (rouge-score), times 100; of several texts
            their mean.
        rouge_l: the same of the longest common subsequence of words.
        chrf: sacrebleu's chrF2.
    """

    bleu: float
    rouge_1: float
    rouge_2: float
    rouge_l: float
    chrf: float


# -- words of any language ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """What a character is to a word: a "letter" of it, a word "alone", what goes with the one before ("mark"), or ""."""
    category = unicodedata.category(character)
    if category[0] == "M" or category == "Cf":
        return "mark"
    if category[0] not in "LN":
        return ""
    return "alone" if unicodedata.name(character, "").startswith(_UNSPACED) else "letter"


def words(text: str) -> list[str]:
    """The words that ROUGE counts: lower case, letters and digits of any script with their marks.

    In scripts without spaces (Chinese, Japanese, Thai, ...) every character is one. Of ASCII text exactly what
    rouge-score's own tokenizer gives; of other scripts that one gives nothing at all.
    """
    found: list[str] = []
    open_word = False  # whether the next letter goes on with the last word
    marked = False  # whether a mark belongs to the last word
    for character in unicodedata.normalize("NFC", text.lower()):
        kind = _kind(character)
        if kind == "mark":
            if marked and unicodedata.category(character) != "Cf":  # joiners are no part of what is compared
                found[-1] += character
            continue
        if kind == "letter" and open_word:
            found[-1] += character
        elif kind:
            found.append(character)
        open_word, marked = kind == "letter", bool(kind)
    return found


def characters(text: str) -> list[str]:
    """Every character but spaces, in lower case."""
    return [character for character in unicodedata.normalize("NFC", text.lower()) if not character.isspace()]


def tokenizer_for(texts: Iterable[str]) -> str:
    """Which of sacrebleu's tokenizations suits texts, all of them together.

    Returns:
        ``"zh"`` where a tenth of the letters or more are of a script without spaces and most of these are Chinese
        characters; with kana among them (Japanese) ``"ja-mecab"`` if its dictionary is installed (``pip install
        "sacrebleu[ja]"``), else ``"char"``; ``"char"`` for other such scripts, and for texts without any letter (emoji);
        ``"13a"`` for everything that puts spaces between words.
    """
    counts: Counter[str] = Counter()
    for character in (character for text in texts for character in text):
        kind = _kind(character)
        if kind == "alone":
            name = unicodedata.name(character, "")
            kind = "kana" if name.startswith(_KANA) else "han" if name.startswith(_HAN) else "other"
        counts[kind] += 1
    alone = counts["kana"] + counts["han"] + counts["other"]
    letters = alone + counts["letter"]
    if not letters:
        return "char"
    if alone < _FEW * letters:
        return "13a"
    if counts["kana"] >= _FEW * alone:
        return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"
    return "zh" if 2 * counts["han"] >= alone else "char"


class _Tokenizer:
    """Words, or characters, as rouge-score takes a tokenizer."""

    def __init__(self, split: Any) -> None:
        self.tokenize = split


# -- scores ------------------------------------------------------------------------------------------------------------


@lru_cache
def _metrics(tokenize: str) -> tuple[BLEU, BLEU, CHRF]:
    from sacrebleu.metrics import BLEU, CHRF

    try:
        return BLEU(tokenize=tokenize, effective_order=True), BLEU(tokenize=tokenize), CHRF()
    except RuntimeError as error:  # its dictionary is not there
        raise ValueError(f"tokenize={tokenize!r}: {' '.join(str(error).split())}") from None


@lru_cache
def _rouge_scorer(split: Any) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), tokenizer=_Tokenizer(split))


def _rouge(tokenize: str, text: str, reference: str) -> list[float]:
    """ROUGE-1, -2, -L; by characters where it is asked for, and where neither text has a word (emoji)."""
    by_character = tokenize == "char" or not (words(text) or words(reference))
    found = _rouge_scorer(characters if by_character else words).score(reference, text)
    return [100.0 * found[name].fmeasure for name in ROUGE]


def score(text: str, reference: str, tokenize: str = "auto") -> ReferenceScores:
    """One text against its reference.

    Args:
        tokenize: of :data:`TOKENIZERS`; ``"auto"`` chooses by the reference (:func:`tokenizer_for`), ``"13a"`` is for
            languages with spaces, ``"zh"`` for Chinese. ROUGE counts :func:`words` under all of them but ``"char"``.

    Raises:
        ValueError: ``"ja-mecab"`` where its dictionary is not installed.
    """
    bleu, _, chrf = _metrics(tokenizer_for([reference]) if tokenize == "auto" else tokenize)
    rouge_1, rouge_2, rouge_l = _rouge(tokenize, text, reference)
    of_words, of_characters = (found.sentence_score(text, [reference]).score for found in (bleu, chrf))
    return ReferenceScores(of_words, rouge_1, rouge_2, rouge_l, of_characters)


def score_all(texts: Sequence[str], references: Sequence[str], tokenize: str = "auto") -> tuple[ReferenceScores, str]:
    """Texts against their references, BLEU and chrF of the whole corpus; and sacrebleu's signature of the BLEU.

    Args:
        tokenize: as in :func:`score`; ``"auto"`` chooses by all references together, and the signature says what.

    Raises:
        ValueError: no texts, or not as many references.
    """
    if not texts or len(texts) != len(references):
        raise ValueError(f"texts: {len(texts)}, with {len(references)} references; give as many, at least one")
    _, bleu, chrf = _metrics(tokenizer_for(references) if tokenize == "auto" else tokenize)
    rouge = [_rouge(tokenize, *pair) for pair in zip(texts, references, strict=True)]
    rouge_1, rouge_2, rouge_l = (sum(values) / len(texts) for values in zip(*rouge, strict=True))
    of_words, of_characters = (found.corpus_score(list(texts), [list(references)]).score for found in (bleu, chrf))
    return ReferenceScores(of_words, rouge_1, rouge_2, rouge_l, of_characters), str(bleu.get_signature())


def bleu_interval(
    texts: Sequence[str], references: Sequence[str], draws: int, seed: int, tokenize: str = "auto"
) -> tuple[float | None, float | None]:
    """Interval of the corpus's BLEU when texts are drawn anew with their references (Koehn 2004).

    BLEU is no mean: each draw's matches and lengths are added up, and the score is made of the sums.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    from loopviz.lab.reading.intervals import interval_of

    bleu, corpus, _ = _metrics(tokenizer_for(references) if tokenize == "auto" else tokenize)
    found = [bleu.sentence_score(*pair) for pair in zip(texts, [[one] for one in references], strict=True)]
    matches = np.array([one.counts for one in found])  # [n, orders]
    ngrams = np.array([one.totals for one in found])
    lengths = np.array([(one.sys_len, one.ref_len) for one in found])  # [n, 2]

    def score_of(times: np.ndarray) -> float:
        of_texts, of_references = (times @ lengths).tolist()
        made = BLEU.compute_bleu(
            (times @ matches).tolist(),
            (times @ ngrams).tolist(),
            of_texts,
            of_references,
            smooth_method=corpus.smooth_method,
        )
        return float(made.score)

    return interval_of(score_of, len(found), draws, seed)


# -- of the text alone -------------------------------------------------------------------------------------------------


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
