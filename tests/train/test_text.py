"""Text files as tokens: nothing is lost, documents end where they end, windows are what the file says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.train import text
from loopviz.train.text import END, TextError, encode_file, pieces, train_tokenizer, windows

STORIES = ["Once upon a time.\n\nThe end.", "从前 🙂 two", "Tim ran. He ran."]


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(f"\n{END}\n".join(STORIES) + f"\n{END}\n", "utf-8")
    return path


@settings(max_examples=60)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60), max_size=5),
    st.integers(1, 50),
)
def test_pieces_give_the_documents_back(tmp_path_factory, documents, size):
    documents = [d.strip("\n") for d in documents if d.strip("\n") and END not in d]
    path = tmp_path_factory.mktemp("text") / "t.txt"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("".join(f"{d}\n{END}\n" for d in documents))
    found, open_ = [], ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text.text_file, "PIECE", size)
        for piece, ends in pieces(path):
            open_ += piece
            if ends:
                found.append(open_.strip("\n"))
                open_ = ""
    assert open_ == ""
    assert found == documents


def test_tokens_decode_to_the_documents_and_are_made_once(book, tmp_path):
    tokenizer = train_tokenizer(book, 300)
    ids, source = encode_file(book, tokenizer, tmp_path, "t")
    assert ids.dtype == np.uint16
    assert "".join(STORIES[0]) == tokenizer.decode(ids[: list(ids).index(0)])
    assert tokenizer.decode(ids).split(END) == [*STORIES, ""]
    assert (source.documents, source.tokens, source.name) == (3, len(ids), "book.txt")
    stamp = (tmp_path / "t.npy").stat().st_mtime_ns
    again, same = encode_file(book, tokenizer, tmp_path, "t")
    assert same == source
    assert (tmp_path / "t.npy").stat().st_mtime_ns == stamp
    assert np.array_equal(again, ids)
    book.write_text("other\n", "utf-8")
    changed, _ = encode_file(book, tokenizer, tmp_path, "t")
    assert tokenizer.decode(changed) == f"other{END}"


def test_a_file_without_separators_is_one_document(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a\nb\n", "utf-8")
    assert list(pieces(path)) == [("a\nb", True)]


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "holds no text"), (b"\n\n", "holds no text"), (b"\xff\xfe\xff", "not a UTF-8 text")]
)
def test_refusals(tmp_path, book, content, told):
    tokenizer = train_tokenizer(book, 300)
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(TextError, match=told):
        encode_file(tmp_path / "bad.txt", tokenizer, tmp_path, "bad")


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 20), st.integers(0, 2**32))
def test_windows_are_stretches_of_the_text_and_targets_one_further(extra, batch, length, seed):
    ids = np.arange(length + extra, dtype=np.uint16)
    inputs, targets = windows(ids, batch, length, np.random.default_rng(seed))
    assert inputs.shape == targets.shape == (batch, length)
    assert np.array_equal(targets, inputs + 1)
    assert np.array_equal(inputs, inputs[:, :1] + np.arange(length))
    assert targets.max() < len(ids)


def test_every_start_is_drawn_and_short_texts_are_refused():
    ids = np.arange(12, dtype=np.uint16)
    starts = windows(ids, 2000, 4, np.random.default_rng(0))[0][:, 0]
    assert set(starts) == set(range(8))
    with pytest.raises(TextError, match="length=12: the text has only 12 tokens"):
        windows(ids, 1, 12, np.random.default_rng(0))
