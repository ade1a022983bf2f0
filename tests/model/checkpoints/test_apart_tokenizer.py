"""A tokenizer in a process of its own gives what it gives here, and ends at its limits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loopviz.app.controls.examples import OFFERED
from loopviz.engine.pieces import Pieces, TokenTexts, chat_text, decode, encode, text_begins_with
from loopviz.lab.reading.windows import encode as encode_documents
from loopviz.model import Interrupted, interruptible
from loopviz.model.checkpoints import apart_tokenizer
from loopviz.model.checkpoints.apart_tokenizer import ApartTokenizer, TokenizerLimits
from loopviz.model.checkpoints.load import CheckpointError, load_checkpoint, prepare_checkpoint
from loopviz.worker import ended_by
from tests.conftest import make_llama, make_tokenizer
from tests.model.checkpoints.test_gguf import write_gguf

MakeFolder = Callable[..., Path]
GENEROUS = TokenizerLimits(seconds=120.0, n_bytes=2**31, vocabulary=10**6)
TEXTS = (
    "",
    " ",
    "Once upon a time, a small robot",
    "  two blanks\n\tand a tab \r\n",
    "中国的首都是 北京。é è 한국어 العربية",
    "🏳️‍🌈👩‍👩‍👧 \u200b\ufeff\x00\x7f",
    "def fibonacci(n):\n    return 1 if n < 2 else fibonacci(n - 1)",
    "<|im_start|>user\nhi<|im_end|><s></s><|endoftext|>",
    "a>b c>d a?",
    "x" * 3_000,
)


@pytest.fixture(scope="module")
def apart() -> Iterator[Callable[[Any], ApartTokenizer]]:
    """The tokenizer of a checkpoint, apart; its process is ended with the tests."""
    made: list[ApartTokenizer] = []

    def of(name: Any, limits: TokenizerLimits = GENEROUS) -> ApartTokenizer:
        made.append(prepare_checkpoint(name, apart=limits).tokenizer)
        return made[-1]

    yield of
    for tokenizer in made:
        tokenizer.close()


def _same(here: Any, there: ApartTokenizer) -> None:
    assert there.get_vocab() == here.get_vocab()
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        assert getattr(there, name) == getattr(here, name)
        assert getattr(there, f"{name}_id") == getattr(here, f"{name}_id")
    assert sorted(there.all_special_ids) == sorted(here.all_special_ids)
    assert there.special_tokens_map == {name: str(token) for name, token in here.special_tokens_map.items()}
    assert text_begins_with(there) == text_begins_with(here)
    assert bool(there.chat_template) == bool(here.chat_template)
    for text in TEXTS:
        try:
            ids = encode(here, text)
        except ValueError:
            with pytest.raises(ValueError, match="cannot read it"):
                encode(there, text)
            continue
        assert encode(there, text) == ids
        assert encode(there, text, add_special_tokens=False) == encode(here, text, add_special_tokens=False)
        assert decode(there, ids) == decode(here, ids)
        assert decode(there, ids, skip_special_tokens=True) == decode(here, ids, skip_special_tokens=True)
        one, other = Pieces(here), Pieces(there)
        assert [other.add(i) for i in ids[:200]] == [one.add(i) for i in ids[:200]]
        one, other = TokenTexts(here), TokenTexts(there)
        assert [other(i) for i in ids[:50]] == [one(i) for i in ids[:50]]
        assert encode_documents(there, text, 100).tolist() == encode_documents(here, text, 100).tolist()
        if here.chat_template:
            assert chat_text(there, text) == chat_text(here, text)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.smollm2] if "smollm2" in n else []) for n in OFFERED]
)
def test_h6_ids_and_texts_are_those_of_the_tokenizer_here(
    name: str, apart: Any, request: pytest.FixtureRequest
) -> None:
    if "smollm2" in name:
        loaded = request.getfixturevalue("smollm2")
        _same(loaded.tokenizer, apart(loaded.path))
    else:
        _same(load_checkpoint(name).tokenizer, apart(name))


def test_h6_ids_and_texts_of_a_gguf_file(tmp_path: Path, apart: Any) -> None:
    write_gguf(tmp_path / "tiny.gguf", make_llama(), make_tokenizer())
    _same(load_checkpoint(tmp_path / "tiny.gguf").tokenizer, apart(tmp_path / "tiny.gguf"))


def test_a_token_beyond_the_embedding_is_refused_as_here(llama_folder: MakeFolder, apart: Any) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    folder = llama_folder(tokenizer=tokenizer)
    here = load_checkpoint(folder)
    prepared = prepare_checkpoint(folder, apart=GENEROUS)
    assert [note.code for note in prepared.found.notes] == [note.code for note in here.notes]
    for of in (here.tokenizer, prepared.tokenizer):
        with pytest.raises(ValueError, match=r"'\[PAD\]'.*no row"):
            encode(of, "a [PAD]")
        assert encode(of, "a")
    prepared.tokenizer.close()


def test_what_cannot_be_read_is_refused_in_the_same_words(llama_folder: MakeFolder) -> None:
    folder = llama_folder()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError) as here:
        load_checkpoint(folder)
    with pytest.raises(CheckpointError) as there:
        prepare_checkpoint(folder, apart=GENEROUS)
    assert str(there.value) == str(here.value)


def test_a_vocabulary_beyond_the_limit_is_refused(llama_folder: MakeFolder) -> None:
    with pytest.raises(CheckpointError, match="at most 100 are read"):
        prepare_checkpoint(llama_folder(), apart=TokenizerLimits(60.0, 2**31, vocabulary=100))


def _slow_template(llama_folder: MakeFolder) -> Path:
    tokenizer = make_tokenizer()
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer.chat_template = "{% if messages[0]['content'] == 'slow' %}" + loop + "{% endif %}x"
    return llama_folder(tokenizer=tokenizer)


def test_h6_who_waits_for_a_turn_can_leave_and_who_comes_later_is_served(llama_folder: MakeFolder, apart: Any) -> None:
    tokenizer = apart(_slow_template(llama_folder))
    ended: list[str] = []
    stop, other = threading.Event(), threading.Event()

    def ask(prompt: str, over: threading.Event) -> None:
        with ended_by(over.is_set):
            try:
                ended.append(chat_text(tokenizer, prompt))
            except ValueError as error:
                ended.append(str(error))

    slow = threading.Thread(target=ask, args=("slow", stop))
    slow.start()
    assert _until(lambda: tokenizer._worker._turn.locked())
    waits = threading.Thread(target=ask, args=("quick", other))
    waits.start()
    other.set()
    waits.join(30)
    assert "while it waited" in ended[0]
    stop.set()
    slow.join(30)
    assert "it was stopped" in ended[1]
    assert chat_text(tokenizer, "quick") == "x"


def test_h6_a_stop_inside_a_run_or_a_measurement_ends_it(llama_folder: MakeFolder, apart: Any) -> None:
    tokenizer, stop = apart(_slow_template(llama_folder)), threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted), interruptible(stop):
        chat_text(tokenizer, "slow")
    assert tokenizer.pid is None
    with pytest.raises(Interrupted), interruptible(stop):
        decode(tokenizer, [5])
    assert decode(tokenizer, encode(tokenizer, "abc")) == "abc"


def test_h6_a_tokenizer_that_is_ended_again_and_again_rests(
    llama_folder: MakeFolder, apart: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end costs a new process: not for ever."""
    tokenizer = apart(_slow_template(llama_folder), TokenizerLimits(0.3, 2**31, 10**6))
    for _ in range(apart_tokenizer.STRIKES):
        with pytest.raises(ValueError, match="took more than"):
            chat_text(tokenizer, "slow")
    started = tokenizer._worker.started
    with pytest.raises(ValueError, match="wait a minute"):
        encode(tokenizer, "a")
    assert tokenizer._worker.started == started
    monkeypatch.setattr(apart_tokenizer, "REST", 0.0)
    assert encode(tokenizer, "a") == encode(make_tokenizer(), "a")


def test_h6_its_process_ends_with_it(llama_folder: MakeFolder) -> None:
    tokenizer = prepare_checkpoint(llama_folder(), apart=GENEROUS).tokenizer
    process = psutil.Process(tokenizer.pid)
    del tokenizer
    assert _until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_h6_ids_that_are_no_ids_are_refused(llama_folder: MakeFolder, apart: Any, monkeypatch: Any) -> None:
    tokenizer = apart(llama_folder())
    for ids in ([320], [-1], ["1"], [1.0], [True], [None]):
        monkeypatch.setattr(tokenizer._worker, "ask", lambda *_, _ids=ids, **__: {"input_ids": _ids})
        with pytest.raises(ValueError, match="outside the model's embedding"):
            encode(tokenizer, "a")


def test_what_an_exploding_tokenizer_makes_is_bounded_by_count(llama_folder: MakeFolder, apart: Any) -> None:
    folder = llama_folder()
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    said["normalizer"] = {"type": "Replace", "pattern": {"String": "z"}, "content": "!" * 10_000}
    file.write_text(json.dumps(said))
    with pytest.raises(ValueError, match="became 10,000 tokens"):
        encode(apart(folder), "z")


def _until(holds: Callable[[], Any]) -> bool:
    for _ in range(1_000):
        if holds():
            return True
        time.sleep(0.01)
    return False
