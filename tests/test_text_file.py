"""Text files: one reader for training, evaluation, measurements and the command line, whoever wrote the file."""

from __future__ import annotations

import codecs
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz import text_file
from loopviz.lab.experiment import read_file
from loopviz.lab.reading.windows import encode
from loopviz.text_file import END, TextError, lines_of, pieces, read_lines, read_text
from loopviz.train.text import encode_file
from tests.conftest import make_tokenizer
from tests.engine import kinds

TEXT = "Once upon a time,\nthere was a 🙂.\n\n从前有一只小狗。\u2028e\u0301\u2029\x85\x0b\x0c\x1c\0\u202eשלום\u202c\ufffd\n"
SIGNED = {
    "utf-8": b"",
    "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


def save(path, text, encoding="utf-8", end="\n"):
    plain = text.replace("\n", end).encode(encoding.removesuffix("-sig"))
    path.write_bytes(SIGNED[encoding] + plain)
    return path


@pytest.mark.parametrize("encoding", SIGNED)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 16])
def test_the_same_text_however_it_was_saved(tmp_path, encoding, end, chunk, monkeypatch):
    monkeypatch.setattr(text_file, "CHUNK", max(chunk, 3))  # a signature is read at once
    path = save(tmp_path / "t.txt", TEXT, encoding, end)
    assert read_text(path) == TEXT == "".join(read_lines(path))
    assert list(read_lines(path)) == list(lines_of(TEXT)) == [line + "\n" for line in TEXT[:-1].split("\n")]


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r") | st.sampled_from("\n\u2028\0")),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(list(SIGNED)[1:]),
)
@settings(max_examples=80, deadline=None)
def test_any_text_comes_back(tmp_path_factory, text, end, encoding):
    path = save(tmp_path_factory.mktemp("text") / "t.txt", text, encoding, end)
    assert read_text(path) == text == "".join(read_lines(path))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"abc\xff", "not a UTF-8 text (byte 3: invalid start byte)"),
        (b"\xef\xbb\xbfab\xe4\xbd", "not a UTF-8 text (byte 5: unexpected end of data)"),
        (b"\n" * 100_000 + b"\xc3(", "not a UTF-8 text (byte 100,000: invalid continuation byte)"),
        (b"x" * 65_535 + "你".encode()[:2] + b"a", "(byte 65,535:"),
        (b"\xff\xfea\0b", "nor UTF-16 as its signature says (byte 4: truncated data)"),
        (b"\xed\xa0\xbd", "not a UTF-8 text (byte 0"),
    ],
)
def test_what_is_no_text_is_refused_with_the_file_and_the_byte(tmp_path, data, told):
    path = tmp_path / "odd name.txt"
    path.write_bytes(data)
    for reader in (read_text, read_file, lambda place: list(read_lines(place))):
        with pytest.raises(TextError) as refused:
            reader(path)
        assert str(path) in str(refused.value)
        assert told in str(refused.value)


def test_what_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(TextError, match="none: cannot be read"):
        read_text(tmp_path / "none")
    with pytest.raises(TextError, match="cannot be read"):
        read_text(tmp_path)


def test_standard_input_is_a_file_like_any_other_and_may_be_read_twice(monkeypatch):
    def give(data):
        text_file._stdin.cache_clear()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    give(codecs.BOM_UTF8 + b"One\r\ntwo")
    assert read_text("-") == read_text("-") == "One\ntwo"
    give(b"a\xff")
    with pytest.raises(TextError, match=r"standard input: not a UTF-8 text \(byte 1"):
        read_text("-")
    with pytest.raises(TextError, match=r"--prompt -: not a UTF-8 text"):
        read_text("-", "--prompt -")
    text_file._stdin.cache_clear()


def test_documents_end_at_the_mark_alone_on_a_line_of_its_own(tmp_path):
    text = f"\none\u2028{END}\x85{END}\n{END}\n\n\n {END} \ntwo {END}\n\nthree\n"
    found = list(pieces(lines_of(text)))
    assert [(piece.text, piece.ends, piece.marked) for piece in found] == [
        (f"one\u2028{END}\x85{END}", True, True),
        (f"two {END}\n\nthree", True, False),
    ]
    assert all(piece.begins for piece in found)


@pytest.mark.parametrize("tokenizer", [make_tokenizer(), kinds.sentencepiece()], ids=["bytes", "with <s>"])
@pytest.mark.parametrize("encoding", SIGNED)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_training_and_measurements_read_the_same_tokens(tmp_path, tokenizer, encoding, end):
    text = f"\n\nhello world\u2028{END}\x0bworld\n\n{END}\nhello\n{END}\n{END}\nworld\n"
    path = save(tmp_path / "t.txt", text, encoding, end)
    trained, source = encode_file(path, tokenizer, tmp_path, "ids")
    assert source.documents == 3
    assert encode(tokenizer, read_file(path), None).tolist() == trained.tolist()
    before = [1] if tokenizer.bos_token else []
    expected = []
    for document in (f"hello world\u2028{END}\x0bworld", "hello", "world"):
        expected += [*tokenizer(document)["input_ids"], tokenizer.eos_token_id]
    assert trained.tolist() == expected
    assert trained.tolist().count(1) == 3 * len(before) or not before


def test_a_long_document_begins_once(tmp_path, monkeypatch):
    monkeypatch.setattr(text_file, "PIECE", 10)
    path = save(tmp_path / "t.txt", "hello\n" * 9 + f"{END}\nworld\n{END}\n")
    tokenizer = kinds.sentencepiece()
    ids = encode_file(path, tokenizer, tmp_path, "ids")[0].tolist()
    assert [ids.count(mark) for mark in (tokenizer.bos_token_id, tokenizer.eos_token_id)] == [2, 2]
    assert encode(tokenizer, read_text(path), None).tolist() == ids
