"""Scores worked out by hand."""

from __future__ import annotations

import pytest

from loopviz.lab.text_scores import distinct, repetition, score, score_all


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
    assert found.rouge_l == pytest.approx(50)
    assert "tok:13a" in signature


def test_distinct_and_repetition_count_ngrams() -> None:
    ids = [1, 2, 1, 2, 1, 2]
    assert distinct([ids], 1) == pytest.approx(2 / 6)
    assert distinct([ids, [1, 2]], 2) == pytest.approx(2 / 6)
    assert repetition(ids, 4) == pytest.approx(1 / 3)
    assert repetition([1, 2, 3, 4, 5], 4) == 0
    assert distinct([[1]], 2) is None
    assert repetition([1, 2, 3], 4) is None
