"""A task's table, its manifest, and the refusals of both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace

import pandas as pd
import pytest
import torch

from loopviz import lab
from loopviz.lab.experiment import Experiment, held_of, repeat
from loopviz.lab.fellows import TTTSubject, load_subject
from loopviz.lab.task import (
    TASKS,
    Column,
    Subject,
    Task,
    check_counts,
    check_number,
    check_text,
    param,
    params_from_json,
    params_to_json,
    register,
)
from loopviz.model.exit_gate import ExitGate
from tests.conftest import make_tokenizer
from tests.engine import tiny_ttt
from tests.lab.subject import subject as tiny_subject
from tests.model.tiny import build


@dataclass(frozen=True)
class Params:
    text: str = param("", "A text.", "文本。", kind="text")
    file: str = param("", "A file.", "文件。", kind="file")
    loops: tuple[int, ...] = param((1, 2, 3), "Loop counts.", "循环次数。")
    alphas: tuple[float, ...] = param((0.5,), "Alphas.", "系数。")
    length: int | None = param(None, "Tokens.", "长度。")
    loop: dict | None = param({}, "Loop fields.", "循环设置。", kind="loop")
    seed: int = param(0, "Seed.", "随机种子。")

    def __post_init__(self) -> None:
        check_counts("loops", self.loops)


def words(text):
    return {"en": text, "zh": text}


def rows(subject, params):
    for count in params.loops:
        model = subject.view(params.loop)
        parameters = sum(p.numel() for p in model.parameters())
        yield {"loops": count, "note": None if count > 1 else "one", "mean": count / 2, "size": parameters}


COLUMNS = tuple(Column(name, "", words(name)) for name in ("loops", "note", "mean", "size"))
TOY = Task("toy", Params, COLUMNS, lambda subject, params: len(params.loops), rows, {"en": {}, "zh": {}})


@pytest.fixture(scope="module")
def subject():
    return Subject(build({"loop_layers": (1, 2)}), make_tokenizer(), "toy-model", "made up")


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(TASKS, "toy", TOY)


def test_rows_come_one_by_one_and_iteration_goes_on_where_it_stopped(subject):
    experiment = Experiment(TOY, subject, Params())
    assert (experiment.total, experiment.done, experiment.eta, experiment.complete) == (3, 0, None, False)
    assert list(experiment.frame.columns) == ["loops", "note", "mean", "size"]
    for row in experiment:
        assert row["loops"] == 1
        break
    assert (experiment.done, experiment.complete) == (1, False)
    assert experiment.eta == pytest.approx(2 * experiment.seconds)
    assert [row["loops"] for row in experiment] == [2, 3]
    assert experiment.complete
    assert experiment.frame["loops"].tolist() == [1, 2, 3]
    assert list(experiment) == []


ARITHMETIC = ("lora_count", "llama_sizes")  # they run no layer


@pytest.mark.parametrize("at", [3, 8])
@pytest.mark.parametrize("name", [name for name in lab.TASKS if name not in ARITHMETIC])
def test_c1_every_task_is_stopped_in_the_middle_of_a_pass(name, at):
    """No layer begins after the stop, and what was measured by then stays; the weights are as good as before."""
    text = "Once upon a time there was a small dog. The dog saw the 3 dogs, and Lily ran. " * 12
    thing = tiny_subject(loop_layers=(1, 3), loop_count=3)
    task = TASKS[name]
    known = {field.name for field in fields(task.params)}
    values = {"text": text, "prompt": text[:60], "window": 16, "limit_tokens": 64, "new_tokens": 8, "batch": 2}
    values |= {"csv": f"prompt\n{text[:60]}\n"}
    values = {field: value for field, value in values.items() if field in known}
    if name == "inner_learning":
        ttt = tiny_ttt.model(vocab_size=len(thing.tokenizer))
        thing.beside["tiny-ttt"] = TTTSubject(ttt, thing.tokenizer, "tiny-ttt", "made here")
        values["learner"] = "tiny-ttt"
    if name == "compare":
        values |= {"names": ("plain", "looped"), "loops": (None, {"loop_layers": (1, 3)})}
    experiment, ran = Experiment(task, thing, task.params(**values)), []

    def begin(layer, given):
        ran.append(layer)
        if len(ran) == at:
            experiment.stop.set()

    runs = thing.beside["tiny-ttt"] if name == "inner_learning" else thing
    handles = [layer.register_forward_pre_hook(begin) for layer in runs.model.model.layers]
    before = len(experiment.run().rows)
    for handle in handles:
        handle.remove()
    assert len(ran) == at
    assert not experiment.complete
    assert not experiment.manifest["complete"]
    assert len(experiment.run().rows) == before, "it has ended for good"
    assert not thing.model.model._loop_hooks


def test_cancelling_closes_the_task_and_keeps_what_it_yielded(subject):
    closed = []

    def run(subject, params):
        try:
            yield from rows(subject, params)
        finally:
            closed.append(True)

    experiment = Experiment(replace(TOY, run=run), subject, Params())
    next(iter(experiment))
    experiment.close()
    assert closed == [True]
    assert experiment.manifest["rows"] == 1
    assert experiment.manifest["complete"] is False


def test_what_is_saved_is_the_table_and_its_manifest(subject, tmp_path):
    (tmp_path / "t.txt").write_bytes("Zwölf\r\n".encode())
    params = Params(file=str(tmp_path / "t.txt"), seed=4)
    experiment = Experiment(TOY, subject, params, command="python -m loopviz eval toy").run()
    csv, parquet, manifest = experiment.save(tmp_path / "new" / "run.v2")
    assert csv.name == "run.v2.csv"
    assert csv.read_text().splitlines()[1] == f"1,one,0.5,{experiment.rows[0]['size']}"
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), experiment.frame)
    read = json.loads(manifest.read_text("utf-8"))
    assert read == experiment.manifest
    assert read["params"] == params_to_json(params)
    assert read["seed"] == 4
    digest = hashlib.sha256("Zwölf\n".encode()).hexdigest()  # of the text that was measured, whoever wrote its lines
    assert read["texts"] == [{"param": "file", "name": "t.txt", "sha256": digest, "characters": 6}]
    assert set(read["versions"]) == {"loopviz", "torch", "transformers", "python", "numpy", "pandas"}
    assert read["model"]["config"]["loop_layers"] == [1, 2]


def test_whole_numbers_stay_whole_beside_missing_ones(subject):
    def run(subject, params):
        yield {"loops": 1, "note": "a", "mean": 1, "size": None}
        yield {"loops": None, "note": None, "mean": 0.5, "size": None}

    table = Experiment(replace(TOY, run=run), subject, Params()).run().frame
    assert str(table["loops"].dtype) == "Int64"
    assert table["mean"].tolist() == [1.0, 0.5]
    assert table.to_csv(index=False, lineterminator="\n") == "loops,note,mean,size\n1,a,1.0,\n,,0.5,\n"


def test_a_row_must_have_the_columns(subject):
    task = replace(TOY, run=lambda subject, params: iter([{"loops": 1}]))
    with pytest.raises(ValueError, match=r"task 'toy': a row has \['loops'\]"):
        Experiment(task, subject, Params()).run()


def test_a_model_in_training_mode_and_parameters_of_another_task_are_refused(subject):
    with pytest.raises(ValueError, match="training=True"):
        Experiment(TOY, replace(subject, model=build({"loop_layers": (1, 2)}).train()), Params())
    with pytest.raises(ValueError, match="params=dict: task 'toy' takes Params"):
        Experiment(TOY, subject, {})


def test_the_model_hash_sees_weights_and_not_settings(subject):
    assert replace(subject, model=subject.model.with_loop(loop_count=7)).digest == subject.digest
    other = build({"loop_layers": (1, 2)})
    assert replace(subject, model=other).digest == subject.digest
    with torch.no_grad():
        other.lm_head.weight[3, 3] += 1e-6
    assert replace(subject, model=other).digest != subject.digest


def test_a_view_has_the_asked_loop(subject):
    assert subject.view({}).config.loop_layers == (1, 2)
    assert subject.view(None).config.loop_layers is None
    assert subject.view({"loop_layers": [0, 3], "loop_count": 2}).config.loop_blocks()[0].b == 3
    assert subject.model.config.loop_layers == (1, 2)
    with pytest.raises(ValueError, match="loop_count=0"):
        subject.view({"loop_count": 0})


def test_repeat_gives_the_same_table(subject, tmp_path, registered):
    params = Params(text="abc", loops=(2, 5), length=3, alphas=(1.0,), loop={"loop_layers": [0, 1]})
    first = Experiment(TOY, subject, params).run()
    again = repeat(first.save(tmp_path / "x")[2], subject=subject)
    assert again.params == params
    assert not again.rows
    pd.testing.assert_frame_equal(again.run().frame, first.frame)


def test_repeat_refuses_what_is_not_the_same(subject, tmp_path, registered):
    path = tmp_path / "t.txt"
    path.write_text("one")
    manifest = Experiment(TOY, subject, Params(file=str(path))).run().manifest
    path.write_text("two")
    with pytest.raises(ValueError, match=r"file='t.txt': not the text that was measured"):
        repeat(manifest, subject=subject)
    (tmp_path / "moved.txt").write_text("one")
    assert repeat(manifest, subject=subject, files={"file": str(tmp_path / "moved.txt")}).total == 3
    path.write_text("one")
    with pytest.raises(ValueError, match="weights are not the manifest's"):
        repeat(manifest, subject=replace(subject, model=build({"loop_layers": (1, 2)}, seed=1)))
    assert "gates" not in manifest["model"]
    gated, other = (replace(subject, model=build({"loop_layers": (1, 2)})) for _ in range(2))
    for thing, bias in ((gated, 0.1), (other, 0.2)):
        thing.model.model.spare_gates = {"0": ExitGate(32).requires_grad_(False)}
        thing.model.model.spare_gates["0"].weight.fill_(bias)
    assert repeat(manifest, subject=gated).total == 3, (
        "measured when there was none, or by an older version: nothing is known"
    )
    with_gate = Experiment(TOY, gated, Params(file=str(path))).run().manifest
    assert with_gate["model"]["digest"] == manifest["model"]["digest"]
    assert repeat(with_gate, subject=gated).total == 3
    for changed, now in ((other, "sha256 "), (subject, "there is none now")):
        with pytest.raises(
            ValueError, match=rf"the exit gate beside its weights \(gate.safetensors\) is not .* \({now}"
        ):
            repeat(with_gate, subject=changed)
    beside = replace(subject, beside={"tiny": gated})
    assert Experiment(TOY, beside, Params(text="abc")).manifest["beside_gates"] == {"tiny": gated.gates}
    with pytest.raises(ValueError, match="schema=2"):
        repeat({**manifest, "schema": 2}, subject=subject)
    with pytest.raises(ValueError, match="task='other': unknown"):
        repeat({**manifest, "task": "other"}, subject=subject)
    with pytest.raises(ValueError, match="texts missing"):
        repeat({k: v for k, v in manifest.items() if k != "texts"}, subject=subject)
    path.unlink()
    with pytest.raises(ValueError, match=r"t\.txt: cannot be read"):
        repeat(manifest, subject=subject)
    (tmp_path / "x.json").write_text("no json")
    with pytest.raises(ValueError, match="not JSON"):
        repeat(tmp_path / "x.json", subject=subject)


def test_models_beside_it_that_are_held_otherwise_are_told_and_held_so_again(llama_folder, registered):
    main, folder = load_subject(str(llama_folder())), str(llama_folder())
    thing = replace(main, beside={folder: load_subject(folder, dtype=torch.bfloat16)})
    experiment = Experiment(TOY, thing, Params(text="abc")).run()
    manifest = experiment.manifest
    assert manifest["model"]["dtype"] == "float32"
    assert manifest["beside_dtypes"] == {folder: "bfloat16"}
    assert experiment.held == held_of(manifest) == {main.name: "float32", folder: "bfloat16"}
    again = repeat(manifest)
    assert again.held == experiment.held, "by its weights' hash it would not be the one that was measured"
    alike = Experiment(TOY, replace(main, beside={folder: load_subject(folder)}), Params(text="abc")).run()
    assert "beside_dtypes" not in alike.manifest
    assert set(alike.held.values()) == set(held_of(alike.manifest).values()) == {"float32"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"loop_count": 3}, "loop_count=3: there is no such parameter"),
        ({"loops": 3}, "loops=3: must be a list, each entry a whole number"),
        ({"loops": [1.5]}, "loops=1.5: must be a whole number"),
        ({"loops": [True]}, "loops=True: must be a whole number"),
        ({"length": "3"}, "length='3': must be a whole number or null"),
        ({"loop": [1]}, r"loop=\[1\]: must be a mapping or null"),
        ({"loops": [2, 1]}, r"loops=\(2, 1\): must be ascending"),
    ],
)
def test_parameters_are_refused_by_name(values, says):
    with pytest.raises(ValueError, match=says):
        params_from_json(Params, values)


def test_parameters_survive_json():
    params = Params(text="x", loops=(1, 4), alphas=(0.25, 1.0), length=None, loop=None)
    assert params_from_json(Params, json.loads(json.dumps(params_to_json(params)))) == params
    assert params_from_json(Params, {"alphas": [1]}).alphas == (1.0,)


def test_shared_checks():
    check_counts("n", (0, 4), least=0)
    check_number("x", 0.5, 0, 1)
    check_text("a", "")
    with pytest.raises(ValueError, match="x=nan: must be >= 0"):
        check_number("x", float("nan"), 0)
    with pytest.raises(ValueError, match="x=True"):
        check_number("x", True, 0)
    with pytest.raises(ValueError, match="neither is given"):
        check_text("", "")
    with pytest.raises(ValueError, match="both are given"):
        check_text("a", "b")


def test_a_task_is_registered_once_and_its_parameters_are_made_with_param(registered):
    with pytest.raises(ValueError, match="taken"):
        register(TOY)

    @dataclass(frozen=True)
    class Bare:
        x: int = 0

    with pytest.raises(ValueError, match=r"Bare\.x: make this field with"):
        replace(TOY, params=Bare)


def test_every_task_says_all_its_words_in_both_languages():
    for name, task in lab.TASKS.items():
        assert task.name == name
        for lang in ("en", "zh"):
            assert {"title", "question", "how", "cost"} <= {k for k, v in task.words[lang].items() if v}
            assert all(column.words[lang] for column in task.columns)
        params = task.params.__dataclass_fields__.values()
        assert all(field.metadata["words"][lang] for field in params for lang in ("en", "zh"))


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if hasattr(task.params, "text")])
def test_half_a_surrogate_pair_in_a_text_is_refused_by_name(task):
    with pytest.raises(ValueError, match="text: half a surrogate pair at character 1"):
        TASKS[task].params(text="a\ud83d")
