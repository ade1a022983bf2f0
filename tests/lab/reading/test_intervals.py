"""Intervals of means over windows: as wide as they must be, and none where windows are too few."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from loopviz.lab.reading.intervals import FEWEST, interval_of, mean_interval, student, tail


def test_the_interval_is_that_of_a_mean_over_windows():
    rng = np.random.default_rng(0)
    counts = np.full(400, 10)
    sums = rng.normal(30, 4, 400)
    low, high = mean_interval(sums, counts, 4000, seed=1)
    standard = sums.std() / 10 / math.sqrt(400)
    assert (low + high) / 2 == pytest.approx(sums.mean() / 10, abs=0.2 * standard)
    assert (high - low) / 2 == pytest.approx(1.96 * standard, rel=0.1)
    assert mean_interval(sums, counts, 4000, seed=1) == (low, high)
    narrow = mean_interval(sums, counts, 4000, seed=1, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_tokens_are_weighed_alike_whichever_window_they_are_in():
    counts = np.array([1, 1, 1, 1, 1, 100])
    low, high = mean_interval(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 300.0]), counts, 20_000, seed=0)
    assert low == 1.0
    assert 2.98 < high < 3.0  # some draw is nearly all of the long window: its tokens' mean, not half of it


def test_too_few_windows_give_none():
    sums, counts = np.arange(FEWEST, dtype=float), np.ones(FEWEST, dtype=int)
    assert None not in mean_interval(sums, counts, 100, seed=0)
    assert mean_interval(sums[1:], counts[1:], 100, seed=0) == (None, None)
    assert mean_interval(sums, counts, 0, seed=0) == (None, None)
    # by chance all of fewer windows lie on one side of their median more than 5 times in 100
    assert 2 * 0.5**FEWEST <= 0.05 < 2 * 0.5 ** (FEWEST - 1)


@pytest.mark.parametrize(("freedom", "quantile"), [(5, 2.5706), (10, 2.2281), (20, 2.0860), (120, 1.9799)])
def test_student_is_that_of_the_tables(freedom, quantile):
    assert student(0.975, freedom) == pytest.approx(quantile, rel=2e-3)


@pytest.mark.parametrize(
    ("freedom", "wide", "wider"), [(5, 2.570582, 4.032143), (8, 2.306004, 3.355387), (30, 2.042272, 2.749996)]
)
def test_student_is_as_near_as_its_words_say(freedom, wide, wider):
    assert 0.998 * wide <= student(0.975, freedom) <= wide
    assert 0.994 * wider <= student(0.995, freedom) <= wider


def test_intervals_of_few_windows_hold_the_truth_as_often_as_they_say():
    """A percentile interval of 8 windows holds it 89 times in 100, this one about 94."""
    rng = np.random.default_rng(0)
    counts = np.full(8, 100)
    found = [mean_interval(rng.normal(0, 1, 8), counts, 2000, seed) for seed in range(400)]
    assert sum(low < 0 < high for low, high in found) / 400 == pytest.approx(0.94, abs=0.025)
    assert tail(8, 0.95) < NormalDist().cdf(-2.4) < tail(500, 0.95) < 0.025


def test_the_interval_of_any_statistic_is_that_of_a_mean_where_it_is_one():
    rng = np.random.default_rng(2)
    counts, sums = rng.integers(3, 9, 30), rng.normal(20, 5, 30)
    found = interval_of(lambda times: (times @ sums) / (times @ counts), 30, 3000, seed=4)
    assert found == pytest.approx(mean_interval(sums, counts, 3000, seed=4), rel=1e-9)
    assert interval_of(lambda times: 1.0, FEWEST - 1, 100, seed=0) == (None, None)
    assert interval_of(lambda times: 1.0, FEWEST, 0, seed=0) == (None, None)
