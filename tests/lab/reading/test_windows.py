"""Windows predict every token once, with what they promise to look back at; documents are encoded as in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from loopviz.lab.reading.windows import CorpusParams, TextParams, TokenIds, apart, cut, encode
from loopviz.lab.task import Subject
from loopviz.train.text import encode_file
from tests.conftest import make_tokenizer
from tests.engine import kinds
from tests.model.tiny import build


@settings(max_examples=15)
@given(n=st.integers(2, 90), length=st.integers(2, 20), overlap=st.integers(0, 19), size=st.integers(1, 5))
def test_every_token_but_the_first_is_predicted_once(n, length, overlap, size):
    overlap = min(overlap, length - 1)
    windows = cut(np.arange(n), length, overlap)
    seen = []
    for part in windows.batches(size):
        assert part.ids.shape[1] == part.lengths.max() <= length + 1
        assert (part.mask is None) == (part.lengths.min() == part.lengths.max())
        for row, counts, tokens in zip(part.ids, part.counted, part.lengths, strict=True):
            for t in counts.nonzero().flatten().tolist():
                assert t + 1 < tokens
                assert t + 1 > min(overlap, int(row[t]))  # tokens 0..t are looked back at, the text begins at 0
                assert row[t + 1] == row[t] + 1
                seen.append(int(row[t + 1]))
        if part.mask is not None:
            assert part.mask.sum(1).tolist() == (part.lengths - 1).tolist()
    assert seen == list(range(1, n))
    assert windows.tokens == n - 1


def test_documents_are_encoded_as_training_encodes_them(tmp_path):
    text = "One loop.\n<|endoftext|>\n\nTwo\nloops.\n<|endoftext|>\n"
    (tmp_path / "t.txt").write_text(text)
    tokenizer = make_tokenizer()
    expected, source = encode_file(tmp_path / "t.txt", tokenizer, tmp_path, "ids")
    assert source.documents == 2
    assert encode(tokenizer, text, 1000).tolist() == expected.tolist()
    assert tokenizer.decode(encode(tokenizer, "a\n\nb\n", 1000)) == "a\n\nb\n"


def test_a_limit_gives_the_beginning_of_the_whole():
    text = "Once upon a time there was a little loop. " * 60
    tokenizer = make_tokenizer()
    whole = encode(tokenizer, text, 10**6)
    for limit in (1, 7, 100, len(whole)):
        assert encode(tokenizer, text, limit).tolist() == whole[:limit].tolist()


def test_what_cannot_be_measured_is_refused():
    subject = Subject(build(), make_tokenizer(), "tiny", "made up")
    assert TextParams(text="a little loop that went", window=4).windows(subject).tokens >= 3
    with pytest.raises(ValueError, match="window=129: the model's context is 128 tokens"):
        TextParams(text="abc", window=129).windows(subject)
    with pytest.raises(ValueError, match="tokens=1: at least 2"):
        TextParams(text="a", window=4).windows(subject)
    for values, says in (
        ({}, "neither is given"),
        ({"text": "a", "limit_tokens": 0}, "limit_tokens=0"),
        ({"text": "a", "batch": 0}, "batch=0"),
        ({"text": "a", "window": 4, "overlap": 4}, r"overlap=4: must be in 0\.\.3"),
    ):
        with pytest.raises(ValueError, match=says):
            TextParams(**values)


def test_a_beginning_mark_is_read_and_never_predicted():
    """Of a tokenizer that begins every text with <s>: one a document, wherever a window begins."""
    tokenizer = kinds.sentencepiece()
    ids = encode(tokenizer, "hello\n<|endoftext|>\nworld\n<|endoftext|>\nhello world\n", 100)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert ids.tolist().count(begin) == ids.tolist().count(end) == 3
    for length, overlap in ((64, 32), (2, 1), (1, 0), (3, 0)):
        windows = cut(ids, length, overlap)
        counted = windows.ids[:, 1:][windows.counted].tolist()
        assert counted == [token for token in ids.tolist() if token != begin]
        assert windows.tokens == len(counted)
        assert bool(windows.counted.any(1).all()), "a window of nothing"
    with pytest.raises(ValueError, match="nothing but marks of a beginning"):
        cut(TokenIds.of([1, 1], [True, True]), 4, 0)


def test_a_word_that_is_spelled_like_the_beginning_mark_is_predicted():
    tokenizer = kinds.sentencepiece()
    ids = encode(tokenizer, "hello <s> world", 100)
    windows = cut(ids, 64, 0)
    assert windows.ids[:, 1:][windows.counted].tolist().count(tokenizer.bos_token_id) == 1


def test_a_first_document_that_is_cut_begins_as_the_whole_does():
    text = "\n\n" + "Once upon a time. " * 60 + "\n<|endoftext|>\nThe end.\n<|endoftext|>\n"
    tokenizer = make_tokenizer()
    whole = encode(tokenizer, text, None).tolist()
    for limit in (1, 5, 40, len(whole) - 3):
        assert encode(tokenizer, text, limit).tolist() == whole[:limit]


def test_a_tokenizer_without_an_end_mark_and_a_text_of_100_000_letters():
    tokenizer = make_tokenizer()
    ids = encode(tokenizer, "x" * 100_000, 50)
    assert len(ids) == 50
    tokenizer.eos_token = None
    assert (
        encode(tokenizer, "a\n<|endoftext|>\nb\n", 9).tolist()
        == tokenizer("a")["input_ids"] + tokenizer("b")["input_ids"]
    )


def test_a_tokenizer_that_ends_every_text_itself_ends_it_once():
    tokenizer = kinds.sentencepiece()
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    ids = encode(tokenizer, "hello\n<|endoftext|>\nworld\n<|endoftext|>\n", None).tolist()
    assert (ids.count(begin), ids.count(end)) == (2, 2)
    assert ids[-1] == end


@pytest.mark.parametrize(
    ("n", "parts"),
    [
        (11, [([0, 4], [[0, 1, 2, 3], [4, 5, 6, 7]]), ([8], [[8, 9, 10]])]),
        (9, [([0, 4], [[0, 1, 2, 3], [4, 5, 6, 7]])]),  # a single token at the end says nothing
        (3, [([0], [[0, 1, 2]])]),
        (12, [([0, 4], [[0, 1, 2, 3], [4, 5, 6, 7]]), ([8], [[8, 9, 10, 11]])]),
    ],
)
def test_windows_that_share_no_token_are_the_text_cut_and_none_is_filled(n, parts):
    windows = apart(np.arange(n), 4)
    found = list(windows.batches(2, unpadded=True))
    assert [(part.starts.tolist(), part.ids.tolist()) for part in found] == parts
    assert all(part.mask is None for part in found)
    assert windows.text.tolist() == list(range(n))


def test_a_measurement_that_reads_names_what_it_cannot_read():
    for values, says in (
        ({"text": "a", "window": 1}, "window=1: must be a whole number >= 2"),
        ({"text": "a", "limit_tokens": 1}, "limit_tokens=1: must be a whole number >= 2"),
        ({"text": "a", "batch": 1.5}, "batch=1.5: must be a whole number >= 1"),
        ({"text": "a", "file": "b"}, "text, file: give exactly one of them; both are given"),
    ):
        with pytest.raises(ValueError, match=says):
            CorpusParams(**values)
    subject = Subject(build(), make_tokenizer(), "tiny", "made up")
    with pytest.raises(ValueError, match="window=129: must be <= 128, the model's context"):
        CorpusParams(text="abc", window=129).windows(subject)
    with pytest.raises(ValueError, match=r"text: 1 token\(s\), but at least 2 are needed"):
        CorpusParams(text="a").windows(subject)
