"""Any task as a form, a table that fills, files; nothing here knows a task of `loopviz.lab` by name."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from loopviz.app.controls.examples import OFFERED, sample_of
from loopviz.app.controls.link_word import decode
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.lab import run as lab_run
from loopviz.app.lab.form import FILE_NAME_LIMIT, describe, fields_of, params_of
from loopviz.app.lab.service import Laboratory
from loopviz.app.profile import PUBLIC
from loopviz.app.sessions.columns import column_words
from loopviz.app.sessions.models import ModelRoom
from loopviz.app.sessions.waiting_line import Places
from loopviz.app.texts import LANGUAGES, table
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.rate import rate_of
from loopviz.engine.work import NOTHING
from loopviz.lab import TASKS, Column, Task, param, repeat
from loopviz.lab.experiment import Experiment
from loopviz.lab.reading.beginnings import beginnings
from loopviz.paths import WEB
from tests.app.by_hand import only
from tests.app.page_double import unwire
from tests.conftest import make_llama
from tests.lab.subject import subject

GATE = threading.Event()  # the toy task waits here before its third row


@dataclasses.dataclass(frozen=True)
class ToyParams:
    text: str = param("some words", "A text.", "文本。", kind="text")
    file: str = param("", "A file.", "文件。", kind="file")
    counts: tuple[int, ...] = param((1, 2), "Counts.", "次数。")
    depth: int | None = param(None, "Depth.", "深度。")
    rate: float = param(0.5, "Rate.", "比率。")
    times: int = param(3, "Rows.", "行数。")
    way: str = param("up", "Way.", "方向。", choices=("up", "down"))
    loud: bool = param(False, "Loud.", "大声。")
    loop: dict[str, Any] | None = param({}, "Loop fields.", "循环设置。", kind="loop")

    def __post_init__(self) -> None:
        if self.times < 0:
            raise ValueError(f"times={self.times}: must be >= 0")


def toy_rows(subject: Any, params: ToyParams) -> Iterator[dict[str, Any]]:
    words = Path(params.file).read_text() if params.file else params.text
    subject.view(params.loop)
    for n in range(params.times):
        if n == 2:
            GATE.wait(20)
        yield {"n": n, "words": words, "way": params.way, "share": n / 3 if n else None}
    if params.loud:
        raise RuntimeError("nobody expected this")


TOY = Task(
    "toy",
    ToyParams,
    (
        Column("n", "", {"en": "number: of the row", "zh": "编号：行的编号"}),
        Column("words", "", {"en": "words: what was read", "zh": "文字：所读内容"}),
        Column("way", "", {"en": "way", "zh": "方向"}),
        Column("share", "share", {"en": "share: n of three", "zh": "比例: 三分之几"}),
    ),
    lambda subject, params: params.times,
    toy_rows,
    {lang: {"title": "Toy", "question": "?", "how": "so", "cost": "nothing"} for lang in LANGUAGES},
    lambda frame, lang: go.Figure([{"type": "scatter", "y": frame["n"].tolist()}], {"title": {"text": lang}}),
    lambda subject, row, params: {"loop_layers": (1, 1), "loop_count": 2 + row["n"]} if row["n"] else None,
    work=lambda subject, params: NOTHING,
)


@pytest.fixture(scope="module")
def loaded(tiny_tokenizer: Any) -> Loaded:
    from loopviz.model.checkpoints.load import as_loop_llama

    return Loaded("tiny", as_loop_llama(make_llama()).eval(), tiny_tokenizer, "made here")


@pytest.fixture
def laboratory(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> Laboratory:
    monkeypatch.setitem(TASKS, "toy", TOY)
    GATE.set()
    return Laboratory(Service(ModelRoom("tiny", load=only(loaded)), Registry()), every=0.01)


def asked(values: dict[str, Any] | None = None, **change: Any) -> dict[str, Any]:
    return {"lang": "en", "model": "tiny", "task": "toy", "ticket": "t1", "values": values or {}} | change


def said(stream: Iterator[str]) -> list[dict[str, Any]]:
    return [unwire(text) for text in stream]


def put_together(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What a page that gets every message ends with."""
    [page] = [message for message in messages if message["kind"] == "snapshot"]
    for news in [message for message in messages if message["kind"] == "news"]:
        assert news["first"] <= len(page["rows"])
        rows = [*page["rows"][: news["first"]], *news["rows"]]
        page |= {key: value for key, value in news.items() if key not in ("kind", "first")} | {"rows": rows}
    return page


# --- the form --------------------------------------------------------------------------------------------------------


def test_a_form_holds_every_parameter_as_what_it_is() -> None:
    fields = {field["name"]: field for field in fields_of(TOY)}
    kinds = {name: field["kind"] for name, field in fields.items()}
    assert kinds == {
        "text": "long", "file": "file", "counts": "line", "depth": "line", "rate": "number", "times": "whole",
        "way": "choice", "loud": "flag", "loop": "line",
    }  # fmt: skip
    assert fields["counts"]["value"] == "1, 2"
    assert fields["loop"]["value"] == "{}"
    assert fields["way"]["choices"] == ("up", "down")
    assert fields["rate"]["words"]["zh"] == "比率。"


@pytest.mark.parametrize("name", list(TASKS))
def test_a_form_left_as_it_is_gives_the_task_s_own_parameters_for_a_first_measurement(
    name: str, tmp_path: Path
) -> None:
    task = TASKS[name]
    fields = fields_of(task)
    untouched = {field["name"]: field["value"] for field in fields if field["kind"] != "file"}
    needed = next((field["name"] for field in fields if field["kind"] == "long"), None)  # most tasks want a text
    if needed and not untouched[needed]:
        untouched[needed] = "some words"
    own = task.params(**task.first | ({needed: untouched[needed]} if needed else {}))
    assert params_of(task, untouched, tmp_path, "en") == own
    assert json.dumps(describe(task))


@pytest.mark.parametrize("name", list(TASKS))
def test_a14_every_field_is_called_something_in_words(name: str) -> None:
    """In both languages, with the technical name in brackets, and a choice's values too; what is JSON says so."""
    for field in describe(TASKS[name])["fields"]:
        titles = field["titles"]
        assert all(field["name"] in titles[lang] != field["name"] for lang in LANGUAGES), titles
        assert titles["en"] != titles["zh"], f"loopviz/app/texts/fields.py: field.{field['name']}"
        assert not re.search("JSON", titles["en"]) or "{" in field["value"], titles
        if field["json"]:
            assert all("JSON" in titles[lang] for lang in LANGUAGES)
        if field["kind"] == "choice":
            assert all(f"choice.{choice}" in table(lang) for choice in field["choices"] for lang in LANGUAGES)


def test_a14_a_plug_in_s_field_without_words_keeps_its_name() -> None:
    assert {field["name"]: field["titles"]["zh"] for field in fields_of(TOY)}["depth"] == "depth"


@pytest.mark.parametrize("name", [*OFFERED, ""])
def test_a14_a_text_of_ours_is_there_to_measure_every_model_on(name: str) -> None:
    from loopviz.lab.reading.windows import encode
    from loopviz.model.checkpoints.load import load_checkpoint

    text = sample_of(name)
    assert len(text) > 150
    if name in ("arrows-loop", "glassbox"):  # it is of the kind that model knows
        tokenizer = load_checkpoint(name).tokenizer
        assert tokenizer.unk_token_id not in encode(tokenizer, text, 10_000)[:-1].tolist()


def test_a14_the_first_click_measures(laboratory: Laboratory) -> None:
    """What the form opens with, the text it offers, nothing touched: rows come, and nothing is refused."""
    task = TASKS["perplexity"]
    values = {field["name"]: field["value"] for field in fields_of(task) if field["kind"] != "file"}
    values |= {"text": sample_of("")[:600], "loop": '{"loop_layers": [1, 2]}'}  # the tiny model has no loop of its own
    page = put_together(said(laboratory.run(asked(values, task="perplexity"), "s")))
    assert (page["end"], page["reason"]) == ("done", "")
    assert page["rows"]


def test_a14_the_page_hears_how_much_a_model_can_read(laboratory: Laboratory, loaded: Loaded) -> None:
    laboratory.room.get("tiny")
    answer = json.loads(laboratory.model(json.dumps({"model": "tiny", "lang": "en"})))
    assert answer["context"] == loaded.model.config.max_position_embeddings


def test_what_was_filled_in_becomes_parameters(tmp_path: Path) -> None:
    filled = {
        "text": "Hello, [world]", "counts": "4, 8", "depth": "7", "rate": 1, "times": 2, "way": "down", "loud": True,
        "loop": '{"loop_count": 6}', "unknown": 3, "file": {"name": "../../etc/päss wd", "text": "línes\n"},
    }  # fmt: skip
    params = params_of(TOY, filled, tmp_path, "en")
    assert (params.text, params.counts, params.depth, params.rate) == ("Hello, [world]", (4, 8), 7, 1.0)
    assert (params.times, params.way, params.loud, params.loop) == (2, "down", True, {"loop_count": 6})
    kept = Path(params.file)
    assert kept.parent == tmp_path / "file", "a file's name leads nowhere else"
    assert kept.read_bytes() == "línes\n".encode()
    assert len(kept.name) <= FILE_NAME_LIMIT
    empty = params_of(TOY, {"counts": "", "depth": "", "loop": "null", "file": None}, tmp_path, "en")
    assert (empty.counts, empty.depth, empty.loop, empty.file) == ((), None, None, "")


@pytest.mark.parametrize(
    ("filled", "names"),
    [
        ({"times": "many"}, "times"),
        ({"times": -1}, "times=-1"),
        ({"rate": [1]}, "rate"),
        ({"counts": "1, x"}, "counts"),
        ({"loop": "{broken"}, "loop"),
        ({"file": "/etc/passwd"}, "file"),
        ({"file": {"name": "a", "text": "x" * 2_000_001}}, "file"),
        ({"file": {"name": "a", "data": base64.b64encode(b"x" * 2_000_001).decode()}}, "file"),
        ({"file": {"name": "a", "data": base64.b64encode(b"x" * 8_000_001).decode()}}, "file"),
        ({"text": "x" * 2_000_001}, "text"),
        ({"counts": "1," * 2000}, "counts"),
    ],
)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_cannot_be_is_refused_by_name(filled: dict[str, Any], names: str, lang: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=names):
        params_of(TOY, filled, tmp_path, lang)


def chosen(data: bytes, name: str = "story.txt") -> dict[str, Any]:
    """A file as the page sends it."""
    return {"file": {"name": name, "data": base64.b64encode(data).decode()}}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_chosen_file_is_read_as_every_text_file_is(end: str, tmp_path: Path) -> None:
    from loopviz.lab.experiment import read_file

    words = "línes 从前\n🙂\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        params = params_of(TOY, chosen(words.replace("\n", end).encode(encoding)), tmp_path, "en")
        assert read_file(params.file) == words


def test_a_chosen_file_that_is_no_text_is_refused_by_its_name_and_byte(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file='pi_c.png': not a UTF-8 text \(byte 0") as refused:
        params_of(TOY, chosen(b"\x89PNG", "pi/c.png"), tmp_path, "en")
    assert str(tmp_path) not in str(refused.value), "it tells where this server keeps files"
    for wrong in ("?", 7, None, "你"):
        with pytest.raises(ValueError, match="file: choose a text file"):
            params_of(TOY, {"file": {"name": "a", "data": wrong}}, tmp_path, "en")


def test_a_heading_is_what_comes_before_the_colon() -> None:
    first = {"name": "n", "unit": "", "called": "", "head": "number", "says": "of the row"}
    assert column_words(TOY.columns[0], "en") == first
    assert [column_words(column, "zh")["head"] for column in TOY.columns] == ["编号", "文字", "方向", "比例"]


def test_units_that_are_words_are_said_in_the_page_s_language() -> None:
    """The unit itself stays: the script reads numbers by it."""
    for name, task in TASKS.items():
        for column in task.columns:
            said = {lang: column_words(column, lang) for lang in LANGUAGES}
            assert said["en"]["unit"] == said["zh"]["unit"] == column.unit
            letters = re.sub(r"[^a-zA-Z]", "", said["zh"]["called"])
            known = {"", "bytes", "share", "RMS", "ms", "s"}
            assert letters in known or "/" in column.unit, f"{name}: {column.unit} has no word"


# --- measuring ---------------------------------------------------------------------------------------------------------


def test_the_table_fills_and_the_plot_follows(laboratory: Laboratory) -> None:
    page = put_together(said(laboratory.run(asked({"file": {"name": "a.txt", "text": "from a file"}}), "me")))
    assert page["end"] == "done"
    assert (page["done"], page["total"]) == (3, 3)
    assert [row["n"] for row in page["rows"]] == [0, 1, 2]
    assert page["rows"][0]["words"] == "from a file"
    assert page["figure"]["data"][0]["y"] == [0, 1, 2]
    assert "template" not in page["figure"]["layout"]
    again = json.loads(laboratory.look(json.dumps({"run": page["run"], "lang": "zh"})))
    assert again["rows"] == page["rows"]
    assert again["columns"][1]["head"] == "文字"
    assert again["figure"]["layout"]["title"]["text"] == "zh"


def test_a_row_opens_in_explore_with_its_model_s_loop(laboratory: Laboratory) -> None:
    page = put_together(said(laboratory.run(asked(), "me")))
    assert page["opens"]

    def link(row: Any) -> dict[str, Any]:
        return json.loads(laboratory.link(json.dumps({"run": page["run"], "row": row, "lang": "en"})))

    values = decode(link(2)["word"], default_model="x")[0].values
    assert (values["model"], values["loop_count"], values["block_start"], values["block_end"]) == ("tiny", 4, 1, 1)
    for none in (0, 3, -1, "2", None):
        assert link(none)["word"] is None
        assert "Explore" in link(none)["text"]


def test_a_model_that_explore_cannot_hold_does_not_open_as_another(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import loopviz.lab.tasks.ablation  # noqa: F401  registers the merge

    merge = {"loop_layers": (1, 1), "kv_cache_mode": "merge_strategy", "merge_strategy": "first"}
    fields = iter(
        [merge, {"loop_layers": [(0, 0), (1, 1)]}, {"loop_layers": (1, 1), "loop_count": 40, "max_loop_count": 40}]
    )
    monkeypatch.setitem(TASKS, "toy", dataclasses.replace(TOY, settings=lambda *_: next(fields)))
    page = put_together(said(laboratory.run(asked(), "me")))
    for row in range(3):
        assert json.loads(laboratory.link(json.dumps({"run": page["run"], "row": row})))["word"] is None


def test_an_exit_rule_a_model_can_have_opens_as_that_model() -> None:
    task = TASKS["exits"]
    params = task.params(text="some words", loop={"loop_layers": [1, 1]})
    row = {"policy": "cosine", "threshold": 0.99, "floor": 2, "max_loops": 9}
    tiny = subject()
    fields = task.settings(tiny, row, params)
    assert fields["loop_layers"] == [1, 1]
    assert (fields["loop_strategy"], fields["cosine_threshold"], fields["min_loop_count"]) == ("dynamic_stop", 0.99, 2)
    assert task.settings(tiny, {**row, "policy": "entropy"}, params) is None


def test_the_table_comes_as_files_that_repeat_it(
    laboratory: Laboratory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"file": {"name": "story.txt", "text": "from a file"}, "text": ""}
    page = put_together(said(laboratory.run(asked(chosen), "me")))

    def file(kind: Any) -> bytes:
        return base64.b64decode(json.loads(laboratory.download(json.dumps({"run": page["run"], "kind": kind})))["data"])

    assert pd.read_csv(io.BytesIO(file("csv")))["n"].tolist() == [0, 1, 2]
    assert pd.read_parquet(io.BytesIO(file("parquet")))["words"].tolist() == ["from a file"] * 3
    manifest = json.loads(file("json"))
    assert manifest["params"]["file"] == "story.txt", "a folder that is gone, and nobody's business"
    assert tempfile.gettempdir() not in json.dumps(manifest)
    (tmp_path / "story.txt").write_text("from a file")
    monkeypatch.chdir(tmp_path)
    again = repeat(manifest, subject=laboratory.runs.of_session("me")[0].experiment.subject).run()
    assert [row["n"] for row in again.rows] == [0, 1, 2]
    assert manifest["task"] == "toy"
    assert manifest["complete"]
    assert file({"odd": 1}) == file("csv")


def test_what_is_stopped_keeps_its_rows(laboratory: Laboratory) -> None:
    GATE.clear()
    stream, messages = laboratory.run(asked({"times": 9}), "me"), []
    for text in stream:
        messages.append(unwire(text))
        if messages[-1].get("done") == 2:
            laboratory.stop(json.dumps({"ticket": "t1"}))
            GATE.set()
    page = put_together(messages)
    assert page["end"] == "stopped"
    assert 2 <= len(page["rows"]) < 9
    manifest = json.loads(laboratory.download(json.dumps({"run": page["run"], "kind": "json"})))
    assert not json.loads(base64.b64decode(manifest["data"]))["complete"]


def test_a_public_server_ends_what_takes_too_long(laboratory: Laboratory) -> None:
    laboratory.room.profile = dataclasses.replace(PUBLIC, seconds_lab=0.0)
    page = put_together(said(laboratory.run(asked(), "me")))
    assert page["end"] == "time"
    assert page["rows"] == []


def test_h2_a_measurement_is_weighed_as_it_grows_and_ends_where_the_server_has_no_more_room(
    laboratory: Laboratory,
) -> None:
    page = put_together(said(laboratory.run(asked(), "me")))
    run = laboratory.runs.get(page["run"])
    assert laboratory.jobs.keeper.total == run.nbytes > 0
    laboratory.room.profile = laboratory.jobs.keeper.profile = dataclasses.replace(PUBLIC, run_bytes=1)
    page = put_together(said(laboratory.run(asked(), "you")))
    assert page["end"] == "memory"
    assert len(page["rows"]) == 1
    assert all(table(lang)["lab.end.memory"] for lang in LANGUAGES)


def test_c1_what_is_stopped_while_its_text_is_looked_at_ends_there(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first row a text of a hundred thousand documents is cut into prompts."""
    seen: list[int] = []

    def counted(subject: Any, params: Any) -> int:
        for _ in beginnings(
            subject.tokenizer, "A dog ran to the park and played all day.\n<|endoftext|>\n" * 500, 16, 8
        ):
            seen.append(1)
            if len(seen) == 3:
                laboratory.stop(json.dumps({"ticket": "t1"}))
        return 1

    monkeypatch.setitem(TASKS, "toy", dataclasses.replace(TOY, cells=counted))
    last = said(laboratory.run(asked(), "me"))[-1]
    assert (last["text"], last["over"], last["bad"]) == (table("en")["live.end.stopped"], True, False)
    assert len(seen) == 3
    assert len(laboratory.runs) == 0
    assert laboratory.jobs.places.taken() == 0


def test_an_error_on_the_way_keeps_the_rows_and_says_so(laboratory: Laboratory) -> None:
    page = put_together(said(laboratory.run(asked({"loud": True}), "me")))
    assert page["end"] == "error"
    assert "nobody expected" not in page["reason"], "the server's insides stay there"
    assert len(page["rows"]) == 3
    refused = put_together(said(laboratory.run(asked({"loop": '{"loop_layers": [1, 9]}'}), "me")))
    assert "layer 9" in refused["reason"]
    assert refused["rows"] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "none"}, "no such measurement"),
        ({"task": ["toy"]}, "no such measurement"),
        ({"model": "nobody/knows"}, "no such file"),
        ({"values": {"times": "x"}}, "times"),
        ({"values": 5, "model": 7}, "characters"),
    ],
)
def test_what_cannot_be_asked_is_refused_and_leaves_nothing(
    laboratory: Laboratory, change: dict[str, Any], says: str, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    last = said(laboratory.run(asked(**change), "me"))[-1]
    assert last["over"]
    assert last["bad"]
    assert says in last["text"]
    assert len(laboratory.runs) == 0
    assert list(tmp_path.iterdir()) == []
    assert said(laboratory.run(None, "me"))[-1]["over"]


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"times": "x"}, "times", "times='x'：须为整数"),
        ({"counts": "1, x"}, "counts", "counts='1, x'：须为列表，每项为整数"),
        ({"times": 1e12}, "times", "times=1000000000000：必须在 -1,000,000,000 到 1,000,000,000 之间"),
        ({"counts": "1," * 99 + "1"}, "counts", "counts：有 100 项；最多接受 64 项"),
        ({"loop": '{"loop_count": 1e9}'}, "loop", "loop：loop_count=1000000000.0：必须在 0 到 1,024 之间"),
        ({"loop": '{"loop_layers": [1, 9]}'}, "loop", "第 9 层"),
        ({"file": {"name": "a", "data": "?"}}, "file", "file：请选择一个文本文件"),
        ({"text": "x" * 2_000_001}, "text", "text：有 2,000,001 个字符；最多接受 2,000,000 个"),
    ],
)
def test_a_refused_value_is_told_beside_its_field_in_the_pages_language(
    laboratory: Laboratory, values: dict[str, Any], field: str, says: str, monkeypatch: Any
) -> None:
    def looked_at(subject: Any, params: ToyParams) -> int:
        subject.view(params.loop)
        return 1

    monkeypatch.setitem(TASKS, "toy", dataclasses.replace(TOY, cells=looked_at))
    last = said(laboratory.run(asked(values, lang="zh"), "me"))[-1]
    assert says in last["text"]
    assert (last["over"], last["field"]) == (True, field)


def test_who_leaves_leaves_nothing(laboratory: Laboratory, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    GATE.clear()
    stream = laboratory.run(asked({"times": 9, "file": {"name": "a", "text": "b"}}), "me")
    run = next(message["run"] for message in map(unwire, stream) if message["kind"] == "snapshot")
    [kept] = laboratory.runs.of_session("me")
    assert len(list(tmp_path.iterdir())) == 1
    laboratory.forget("me")
    GATE.set()
    stream.close()
    assert kept.finished.wait(20)
    assert kept.experiment.done < 9
    assert list(tmp_path.iterdir()) == []
    for answer in (laboratory.look, laboratory.download):
        assert json.loads(answer(json.dumps({"run": run})))["kind"] == "gone"


def test_what_waits_for_its_turn_can_be_taken_back(laboratory: Laboratory) -> None:
    laboratory.stop(json.dumps({"ticket": "t1"}))
    [last] = said(laboratory.run(asked(), "me"))
    assert (last["over"], last["bad"]) == (True, False)


def in_a_pass(laboratory: Laboratory, at: int, then: Callable[[], Any], **change: Any) -> tuple[list[Any], list[int]]:
    """Measure perplexity, and do something as the layer number `at` of the first pass begins; messages, layers run."""
    ran: list[int] = []

    def begin(layer: Any, given: Any) -> None:
        ran.append(1)
        if len(ran) == at:
            then()

    values = {"text": "Once upon a time there was a loop. " * 20, "loops": "100", "paths": "full", "window": 16}
    model = laboratory.room.get("tiny").model
    rate_of(model, doubted=True)  # which runs its layers, too; otherwise the form's estimate may, within the hooks
    handles = [layer.register_forward_pre_hook(begin) for layer in model.model.layers]
    try:
        messages = said(
            laboratory.run(asked({**values, "loop": '{"loop_layers": [1, 1]}'}, task="perplexity", **change), "me")
        )
    finally:
        for handle in handles:
            handle.remove()
    return messages, ran


@pytest.mark.parametrize("how", ["stop", "leave", "another measurement"])
def test_c1_lab_pass_nobody_can_stop(laboratory: Laboratory, how: str) -> None:
    """Stop and leaving were looked at between rows, and one row could be a pass of a million loops."""

    def then() -> None:
        if how == "stop":
            laboratory.stop(json.dumps({"ticket": "t1"}))
        elif how == "leave":
            laboratory.forget("me")
        else:
            laboratory.runs.stop("me")

    messages, ran = in_a_pass(laboratory, 7, then)
    assert len(ran) == 7, "no layer begins after it"
    page = put_together(messages)
    assert (page["end"], page["rows"]) == ("stopped", [])
    assert_free(laboratory)


def test_c1_the_time_limit_holds_inside_a_pass(laboratory: Laboratory, monkeypatch: Any) -> None:
    clock = [0.0]
    monkeypatch.setattr(lab_run.Halt, "now", lambda self: clock[0])
    laboratory.room.profile = dataclasses.replace(PUBLIC, seconds_lab=900.0)
    messages, ran = in_a_pass(laboratory, 7, lambda: clock.__setitem__(0, 901.0))
    assert len(ran) == 7
    assert put_together(messages)["end"] == "time"
    assert_free(laboratory)


def assert_free(laboratory: Laboratory) -> None:
    """Every place is free, as soon as the measurement's thread has said so."""
    for _ in range(2000):
        if not laboratory.jobs.places.taken():
            return
        threading.Event().wait(0.01)
    raise AssertionError("a place is still taken")


def test_c1_the_place_of_one_who_left_is_free_when_the_work_has_ended(laboratory: Laboratory) -> None:
    """It was free after ten seconds, while the pass went on: each visit added one."""
    GATE.clear()
    stream = laboratory.run(asked({"times": 9}), "me")
    next(text for text in stream if unwire(text)["kind"] == "snapshot")
    [kept] = laboratory.runs.of_session("me")
    laboratory.forget("me")
    stream.close()
    assert not kept.finished.is_set()
    assert laboratory.jobs.places.taken() == 1
    GATE.set()
    assert kept.finished.wait(20)
    assert_free(laboratory)


@pytest.mark.parametrize("nobody_s", ["", None, 0, [], {}, "x" * 65])
def test_l5_stop_without_a_ticket(laboratory: Laboratory, nobody_s: Any) -> None:
    GATE.clear()
    stream, messages = laboratory.run(asked({"times": 4}, ticket=nobody_s), "me"), []
    for text in stream:
        messages.append(unwire(text))
        if messages[-1].get("done") == 2:
            laboratory.stop(json.dumps({"ticket": nobody_s}))
            laboratory.stop(json.dumps({"ticket": ""}))
            laboratory.stop(json.dumps({}))
            GATE.set()
    page = put_together(messages)
    assert (page["end"], len(page["rows"])) == ("done", 4)


def test_a_ticket_of_ten_megabytes_is_none_and_is_not_kept(laboratory: Laboratory) -> None:
    """It was kept with its page, and pages are remembered by the thousand."""
    messages = said(laboratory.run(asked({"times": 1}, ticket="t" * 10_000_000), "me"))
    assert put_together(messages)["end"] == "done"
    assert {message["ticket"] for message in messages if "ticket" in message} == {""}
    assert [start.ticket for start in laboratory.jobs.starts._newest.values()] == [""]


def test_a_long_table_is_shown_in_part(laboratory: Laboratory, monkeypatch: Any) -> None:
    few = dataclasses.replace(laboratory.room.profile, rows_shown=5)
    monkeypatch.setattr(laboratory.room, "profile", few)
    page = put_together(said(laboratory.run(asked({"times": 12}), "me")))
    assert (page["done"], len(page["rows"])) == (12, 5)


# --- the page ----------------------------------------------------------------------------------------------------------


def test_every_task_is_offered_and_the_model_is_followed(laboratory: Laboratory) -> None:
    offered = json.loads(laboratory.tasks("{}"))["tasks"]
    assert [task["name"] for task in offered] == list(TASKS)
    for task in offered:
        assert all(task["words"][lang].keys() >= {"title", "question", "how", "cost"} for lang in LANGUAGES)
    assert json.loads(laboratory.model(json.dumps({"model": "", "lang": "zh"})))["state"] == "failed"
    laboratory.room.get("tiny")
    assert json.loads(laboratory.model(json.dumps({"model": "tiny"})))["state"] == "ready"


def test_the_script_finds_every_text_it_asks_for_and_no_task() -> None:
    script = (WEB / "lab" / "main.js").read_text(encoding="utf-8")
    wanted = set(re.findall(r"text\(\"([\w.]+)\"", script)) | set(re.findall(r"\"((?:lab|compare)\.[\w.]+)\"", script))
    ends = {f"lab.end.{end}" for end in ("done", "stopped", "time", "error")}
    for lang in LANGUAGES:
        assert wanted | ends | {f"compare.file.{kind}" for kind in ("csv", "parquet", "json")} <= table(lang).keys()
    assert not any(f'"{name}"' in script for name in TASKS)


def test_several_configurations_are_not_taken_for_one_loop():
    """The manual's experiment was refused: a plain model's own loop was laid over its list of three."""
    entry = next(field for field in fields_of(TASKS["experiment"]) if field["name"] == "loops")
    assert entry["json"]
    assert not entry["loop"]
    assert isinstance(json.loads(entry["value"]), list)
    one = next(field for field in fields_of(TASKS["perplexity"]) if field["name"] == "loop")
    assert one["loop"]


def test_a_measurement_rests_between_two_rows_while_a_run_of_explore_goes_before(laboratory: Laboratory) -> None:
    """It held its place for as long as it took, and who only wanted to see a word waited for all of it."""
    clock = [0.0]
    places = laboratory.jobs.places = Places(1, clock=lambda: clock[0])
    GATE.clear()
    told, other = [], ExitStack()
    run = None
    for message in map(unwire, laboratory.run(asked({"times": "4"}), "me")):
        told.append(message)
        rows = message.get("first", 0) + len(message.get("rows", []))
        if run is None and rows == 2:
            run = other.enter_context(places.join("explore"))
            assert run.ahead() is not None
            clock[0] = 10  # it has had its place for a while
            GATE.set()
        if message["kind"] == "status" and message["text"].startswith("paused"):
            assert run.ahead() is None
            assert places.taken() == 1
            other.close()
    said_of = [message["text"] for message in told if message["kind"] == "status"]
    assert [line[:6] for line in said_of[-2:]] == ["paused", ""]
    assert [message["end"] for message in told if message["kind"] == "news"][-1] == "done"
    assert_free(laboratory)


def test_a_measurement_does_not_rest_after_its_last_row(tmp_path: Path) -> None:
    """All was measured, and it waited in line to say so."""
    GATE.set()
    run = lab_run.LabRun(Experiment(TOY, subject(), ToyParams()), tmp_path)
    rested: list[int] = []
    run.rest = lambda: rested.append(run.experiment.done)
    run.work()
    assert run.end == "done"
    assert rested == [1, 2]
