"""Scores worked out by hand, in many languages, and on English the libraries' own."""

from __future__ import annotations

import itertools
import random
import string
from importlib.util import find_spec

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize as rouge_tokenize
from sacrebleu.metrics import BLEU, CHRF

from loopviz.lab.reading import intervals
from loopviz.lab.reading.text_scores import (
    bleu_interval,
    distinct,
    repetition,
    score,
    score_all,
    tokenizer_for,
    words,
)

SAID = {  # a text of each language, and the tokenization that suits it
    "Russian": ("Жила-была маленькая девочка, и звали её Ёлка.", "13a"),
    "Greek": ("Μια φορά κι έναν καιρό ήταν ένα μικρό σκυλί.", "13a"),
    "Arabic": ("كان يا ما كان في قديم الزمان كلب صغير.", "13a"),
    "Persian": ("می‌خواهم به خانه بروم و بازی کنم.", "13a"),
    "Hindi": ("एक बार की बात है, एक छोटी लड़की थी।", "13a"),
    "Korean": ("옛날 옛적에 작은 소녀가 살고 있었습니다.", "13a"),
    "French": ("Il était une fois, à l’été dernier, un garçon très gâté.", "13a"),
    "Thai": ("กาลครั้งหนึ่งนานมาแล้ว มีเด็กหญิงตัวเล็ก", "char"),
    "Burmese": ("တစ်ခါတုန်းက ကလေးမလေး", "char"),
    "Chinese": ("从前有一只小狗，它喜欢在花园里玩。", "zh"),
    "Chinese among English names": ("从前 Lily 有一只小狗 called Max", "zh"),
    "emoji": ("😀😺🐕🎉❤️👍🏽", "char"),
    "punctuation": ("... !?! --", "char"),
}


@pytest.mark.parametrize("language", SAID)
def test_a_text_is_all_of_itself_in_every_language_case_rouge_words(language: str) -> None:
    text, suits = SAID[language]
    assert tokenizer_for([text]) == suits
    for tokenize in ("auto", "13a", suits):
        found = score(text, text, tokenize)
        for name in ("bleu", "rouge_1", "rouge_2", "rouge_l", "chrf"):
            assert getattr(found, name) == pytest.approx(100), f"{name}, {tokenize}"
    found, signature = score_all([text], [text])
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == (100, 100, 100)
    assert found.bleu == pytest.approx(100)
    assert f"tok:{suits}|" in signature


def test_japanese_is_split_by_its_dictionary_where_that_is_installed() -> None:
    text = "むかしむかし、小さな犬が庭にいました。"
    installed = bool(find_spec("MeCab") and find_spec("ipadic"))
    assert tokenizer_for([text]) == ("ja-mecab" if installed else "char")
    found = score(text, text)
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == (100, 100, 100)
    assert found.bleu == pytest.approx(100)
    if not installed:
        with pytest.raises(ValueError, match="tokenize='ja-mecab'"):
            score(text, text, "ja-mecab")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Жила-была ДЕВОЧКА", ["жила", "была", "девочка"]),
        ("छोटी लड़की", ["छोटी", "लड़की"]),  # vowel signs and the dot belong to their word
        ("می‌خواهم", ["میخواهم"]),  # the joiner parts no word
        ("de\u0301ja\u0300 vu", ["déjà", "vu"]),  # composed or not
        ("小狗 likes 花", ["小", "狗", "likes", "花"]),
        ("กิน", ["กิ", "น"]),
        ("작은 소녀가", ["작은", "소녀가"]),
        ("snake_case don't 3.5", ["snake", "case", "don", "t", "3", "5"]),
        ("😀 ❤️ …", []),
    ],
)
def test_words_are_those_of_the_script(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_other_words_score_less_where_rouge_score_s_own_tokenizer_sees_none() -> None:
    found = score("жила была кошка", "жила была собака")
    assert (found.rouge_1, found.rouge_2) == (pytest.approx(100 * 2 / 3), pytest.approx(100 * 1 / 2))
    # the vowel sign alone tells them apart
    assert score("लड़का", "लड़की").rouge_1 == 0
    # emoji are held against each other one by one; where there are words, these count alone
    assert score("😀😺", "😀🐕").rouge_1 == 50
    assert score("😀", "😀 hello").rouge_l == 0


def test_english_scores_are_the_libraries_own() -> None:
    """Random texts of every printable ASCII character, and stories with their punctuation."""
    draw = random.Random(0)
    letters = [*string.printable, *" \n’“”—"]
    texts = ["".join(draw.choice(letters) for _ in range(80)) for _ in range(100)]
    texts += ['Lily\'s dog, Max, ran 3 times! "Stop!" she said.', "Lily had a dog. The dog ran 3.5 times_ around.", "a"]
    scorer, bleu, chrf = RougeScorer(["rouge1", "rouge2", "rougeL"]), BLEU(effective_order=True), CHRF()
    for text, reference in itertools.pairwise(texts):
        assert words(text) == rouge_tokenize(text, None)
        found, own = score(text, reference, "13a"), scorer.score(reference, text)
        assert found.rouge_1 == 100 * own["rouge1"].fmeasure
        assert found.rouge_2 == 100 * own["rouge2"].fmeasure
        assert found.rouge_l == 100 * own["rougeL"].fmeasure
        assert found.bleu == bleu.sentence_score(text, [reference]).score
        assert found.chrf == chrf.sentence_score(text, [reference]).score
    assert tokenizer_for(texts) == "13a"
    assert score_all(texts[:9], texts[1:10])[0].bleu == BLEU().corpus_score(texts[:9], [texts[1:10]]).score


@pytest.mark.parametrize(("text", "reference"), [("", ""), ("", "the cat"), ("the cat", ""), ("", "小狗"), (" ", "😀")])
def test_an_empty_text_shares_nothing(text: str, reference: str) -> None:
    found = score(text, reference)
    assert (found.bleu, found.rouge_1, found.rouge_2, found.rouge_l, found.chrf) == (0, 0, 0, 0, 0)
    assert score_all([text], [reference])[0] == found


def test_no_texts_have_no_score() -> None:
    with pytest.raises(ValueError, match="texts: 0"):
        score_all([], [])
    with pytest.raises(ValueError, match="with 2 references"):
        score_all(["a"], ["a", "b"])


def test_bleu_is_the_geometric_mean_of_the_ngram_precisions() -> None:
    found = score("a b c d e f g h", "a b c d e x g h")
    assert found.bleu == pytest.approx(100 * (7 / 8 * 5 / 7 * 3 / 6 * 2 / 5) ** 0.25)
    assert score("the cat sat on the mat", "the cat sat on the mat").bleu == pytest.approx(100)


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    assert score("the cat sat", "the cat sat down").rouge_l == pytest.approx(100 * 2 * 0.75 / 1.75)
    assert score("", "the cat").rouge_l == 0


def test_chrf_counts_characters() -> None:
    assert score("cats", "cats").chrf == pytest.approx(100)
    # 1-grams: a of ab; 2-grams: none: F2 at precision = recall is that number, averaged over the orders that occur
    assert score("ab", "ac").chrf == pytest.approx(100 * (1 / 2 + 0) / 2)


def test_chinese_is_scored_by_character() -> None:
    found = score("小狗在花园里玩", "小狗在公园里玩", "zh")
    # 7 characters, one differs: 6/7, pairs 4/6, threes 2/5, fours 0 -> smoothed
    assert 0 < found.bleu < 100 * (6 / 7 * 4 / 6 * 2 / 5) ** (1 / 3)
    assert found.rouge_l == pytest.approx(100 * 6 / 7)
    assert score("小狗在花园里玩", "小狗在花园里玩", "zh").bleu == pytest.approx(100)


def test_the_corpus_is_not_the_mean_of_its_texts() -> None:
    texts, references = ["a b c d e f g h", "x"], ["a b c d e f g h", "y z"]
    found, signature = score_all(texts, references)
    # precisions over both texts together: 8/9, then 7/7, 6/6, 5/5; shorter than the references: exp(1 - 10/9)
    assert found.bleu == pytest.approx(100 * (8 / 9) ** 0.25 * 2.718281828 ** (1 - 10 / 9))
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == (50, 50, 50)
    assert "tok:13a" in signature


def test_distinct_and_repetition_count_ngrams() -> None:
    ids = [1, 2, 1, 2, 1, 2]
    assert distinct([ids], 1) == pytest.approx(2 / 6)
    assert distinct([ids, [1, 2]], 2) == pytest.approx(2 / 6)
    assert repetition(ids, 4) == pytest.approx(1 / 3)
    assert repetition([1, 2, 3, 4, 5], 4) == 0
    assert distinct([[1]], 2) is None
    assert repetition([1, 2, 3], 4) is None


def test_the_interval_of_bleu_is_of_corpora_scored_anew() -> None:
    texts = [
        "the dog ran to the park today",
        "a cat sat on it",
        "she saw the big red ball there",
        "he was sad",
        "no",
        "the end of it all",
    ]
    references = [
        "the dog ran to a park today",
        "a cat sat on the mat",
        "she saw a big red ball",
        "he was happy",
        "yes",
        "the end of it all",
    ]
    for tokenize in ("auto", "char"):
        low, high = bleu_interval(texts, references, 400, 1, tokenize)
        assert low is not None
        assert high is not None
        assert 0 <= low < score_all(texts, references, tokenize)[0].bleu < high <= 100
        assert bleu_interval(texts, references, 400, 1, tokenize) == (low, high)
        # each as often as it is there: the corpus itself
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(intervals, "interval_of", lambda score_of, n, draws, seed: (score_of(np.ones(n, int)), None))
            whole, _ = bleu_interval(texts, references, 1, 0, tokenize)
        assert whole == pytest.approx(score_all(texts, references, tokenize)[0].bleu)
    assert bleu_interval(texts[:5], references[:5], 400, 1) == (None, None)
