"""Python of a run: executed as it stands it makes the same run, and nothing of a stranger's trace becomes code."""

from __future__ import annotations

import ast
import threading
from typing import Any

import pytest

from loopviz.engine import Steering, StreamSettings, run
from loopviz.export.python_code import python_code
from loopviz.model.checkpoints import load_checkpoint
from loopviz.trace import Trace
from tests.export.test_report import hostile
from tests.lab.small import save
from tests.trace.synthetic import random_trace

PROMPT = "Once upon a time there was a 'little\" loop,\nit said: \\n 从前 \u202e🙂"
SAMPLED = {"do_sample": True, "temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "seed": 7}
STOPS = {"loop_strategy": "dynamic_stop", "min_loop_count": 1, "max_loop_count": 6, "virtual_layer_count": 1}
LOOPS: dict[str, dict[str, Any]] = {
    "plain": {"loop_layers": None},
    "one block": {"loop_layers": (1, 2), "loop_count": 3},
    "parallel slots": {"loop_count": 4, "virtual_layer_count": 3, "virtual_attention_mode": "parallel"},
    "serial slots": {"loop_count": 4, "virtual_layer_count": 3, "virtual_attention_mode": "serial"},
    "one slot": {"loop_count": 5, "virtual_layer_count": 1},
    "merged ema": {"loop_count": 3, "kv_cache_mode": "merge_strategy", "merge_strategy": "ema", "merge_ema_alpha": 0.3},
    "merged average": {"loop_count": 3, "kv_cache_mode": "merge_strategy", "merge_strategy": "average"},
    "merged last": {"loop_count": 3, "kv_cache_mode": "merge_strategy", "merge_strategy": "last"},
    "stops by cosine": {**STOPS, "convergence_criterion": "cosine", "cosine_threshold": 0.9},
    "stops by kl": {**STOPS, "convergence_criterion": "kl", "kl_threshold": 1e-2},
    "damped": {"loop_count": 4, "loop_damping": 0.5, "loop_injection": "add"},
    "two blocks": {"loop_layers": [(0, 0), (2, 3)], "loop_count": [2, 3], "virtual_layer_count": 2},
    "chosen layers": {"loop_count": 3, "layer_chooser": "turn", "layer_threshold": 0.2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint with a loop of its own, which the code must not fall back to."""
    return save(tmp_path_factory.mktemp("code") / "tiny", loop_count=7, virtual_layer_count=7)


@pytest.fixture(scope="module")
def loaded(folder: str) -> Any:
    return load_checkpoint(folder)


def made_again(trace: Trace, model: str) -> Trace:
    """What the code makes."""
    names: dict[str, Any] = {}
    exec(compile(python_code(trace, model), "run.py", "exec"), names)
    return names["trace"]


def untimed(trace: Trace) -> list[Any]:
    """All that is the same whenever a run is made."""
    dropped = ("pass_ms", "wall_ms", "parts", "memory")
    frames = [{name: value for name, value in frame.items() if name not in dropped} for frame in trace.frames]
    for frame in frames:
        frame["blocks"] = [{**block, "steps": {**block["steps"], "ms": []}} for block in frame["blocks"]]
    return frames


def lasting(trace: Trace) -> dict[str, Any]:
    """The run's meta but for its time, and for the floor of a block that does not stop by itself: it has no effect there."""
    blocks = [
        {**block, "floor": block["strategy"] == "dynamic_stop" and block["floor"]} for block in trace.meta["blocks"]
    ]
    return {**trace.meta, "created": "", "blocks": blocks}


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", LOOPS)
def test_the_code_of_a_run_makes_the_same_run(loaded: Any, folder: str, name: str, sampling: dict[str, Any]) -> None:
    if name == "chosen layers":
        from loopviz.model import CHOOSERS

        LOOPS[name]["layer_chooser"] = next(chooser for chooser in CHOOSERS if chooser != "none")
    settings = StreamSettings(max_new_tokens=9, repetition_penalty=1.1, **sampling)
    trace = run(loaded.model.with_loop(**LOOPS[name]), loaded.tokenizer, PROMPT, settings, model_name="tiny")
    again = made_again(trace, folder)
    assert again.text == trace.text
    assert untimed(again) == untimed(trace)
    assert lasting(again) == lasting(trace)


def test_what_was_recorded_and_the_chat_template_are_in_the_code(loaded: Any, folder: str) -> None:
    settings = StreamSettings(max_new_tokens=5, chat=True, extras=("exit", "keys", "attention"), top_tokens=3)
    trace = run(loaded.model, loaded.tokenizer, "little loop", settings)
    assert untimed(made_again(trace, folder)) == untimed(trace)
    old = run(loaded.model, loaded.tokenizer, "little loop", settings)
    del old.meta["settings"]["template"], old.meta["settings"]["input"]  # a file of before there were others
    assert "chat=True" in python_code(old)
    old.meta["settings"] |= {"template": "alpaca", "input": "a 'dog'", "chat": False}
    code = python_code(old)
    assert "    template='alpaca',\n    input=\"a 'dog'\",\n" in code
    assert "chat=" not in code
    trace = run(loaded.model, loaded.tokenizer, "little loop", StreamSettings(max_new_tokens=5, record="off"))
    assert untimed(made_again(trace, folder)) == untimed(trace)


def test_a_loop_that_was_changed_while_it_ran_is_changed_again(loaded: Any, folder: str) -> None:
    steering = Steering()

    def watch(frame: Any) -> None:
        if frame["index"] == read + 2:
            steering.set_loop(loop_count=2)
        if frame["index"] == read + 5:
            steering.set_loop(loop_count=5, loop_damping=0.5)

    settings = StreamSettings(max_new_tokens=12)
    prompt = "Once upon a time there was a little loop"
    read = len(loaded.tokenizer(prompt)["input_ids"])
    trace = run(loaded.model, loaded.tokenizer, prompt, settings, steering=steering, on_frame=watch)
    assert [change["index"] for change in trace.meta["changes"]] == [read + 3, read + 6]
    again = made_again(trace, folder)
    assert untimed(again) == untimed(trace)
    assert again.meta["changes"] == trace.meta["changes"]


def test_a_run_that_was_stopped_is_made_as_long_as_it_became(loaded: Any, folder: str) -> None:
    stop = threading.Event()
    seen: list[Any] = []

    def watch(frame: Any) -> None:
        seen.append(frame)
        if frame["phase"] == "generated" and len([one for one in seen if one["phase"] == "generated"]) == 4:
            stop.set()

    settings = StreamSettings(max_new_tokens=60)
    trace = run(loaded.model, loaded.tokenizer, PROMPT, settings, stop=stop, on_frame=watch)
    assert trace.frames[-1]["finish"] is None
    again = made_again(trace, folder)
    assert again.text == trace.text
    assert len(again) == len(trace)


def test_the_code_of_a_saved_run_names_its_dtype_and_device() -> None:
    trace = random_trace(1, 3)
    trace.meta["provenance"] = {"weights": "0" * 64, "device": "cuda:1", "dtype": "bfloat16"}
    said = python_code(trace)
    assert "dtype=torch.bfloat16" in said
    assert "import torch\n" in said
    assert "loaded.model.to('cuda:1')" in said
    trace.meta["provenance"] = {"device": "cpu", "dtype": "float32", "quantization": "nf4"}
    assert "quantization='nf4')" in python_code(trace)
    assert "torch" not in python_code(random_trace(1, 3)).split("\n", 1)[1].replace("loopviz", "")


def test_nothing_of_a_strangers_trace_becomes_code() -> None:
    trace = hostile()
    trace.meta["provenance"] = {
        "weights": "",
        "device": "cpu'); evil('",
        "dtype": "float32); evil(",
        "quantization": "nf4'); evil('",
    }
    trace.meta["versions"]["x\nevil()"] = "1\nevil()"
    trace.meta["loop"]["evil()"] = "evil()"
    said = python_code(trace)
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(said)) if isinstance(node, ast.Call)}
    known = {"load_checkpoint", "loaded.model.with_loop", "loaded.model.to", "StreamSettings", "run", "print"}
    assert called <= known | {"Steering", "steering.set_loop"}
    said.encode("utf-8")  # half a character is spelled out
    assert "\u202e" not in said
