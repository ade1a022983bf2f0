"""A model is reached by plain data alone: what it is, what it refuses, a run of it; here or in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

import pytest

from loopviz.checks import FieldError
from loopviz.engine import StreamSettings, stream
from loopviz.engine.engine import Description, Engine, LoadLimits, Request
from loopviz.engine.local import LocalEngine, engine_of, prepare
from loopviz.engine.work import Shape
from loopviz.model.checkpoints.load import Note
from loopviz.trace import check_frame, check_meta
from tests.conftest import make_tokenizer
from tests.engine import tiny
from tests.engine.elsewhere import Elsewhere, again

LOOP = {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 2}
PROMPT = "Once upon 🙂"
CLOCK = ("wall_ms", "pass_ms", "pass_runs", "parts", "memory", "ms")  # in a frame: not the same twice


@pytest.fixture(scope="module")
def here() -> LocalEngine:
    return LocalEngine("tiny", tiny.model(**LOOP), tiny.tokenizer(), "made here", (Note("a", "…", {"ids": [1]}),))


@pytest.fixture(params=["here", "elsewhere"])
def engine(request: Any, here: LocalEngine) -> Engine:
    return here if request.param == "here" else Elsewhere(here)


def settled(made: Any) -> Any:
    """Frames without what the clock says."""
    if isinstance(made, dict):
        return {name: settled(value) for name, value in made.items() if name not in CLOCK}
    return [settled(one) for one in made] if isinstance(made, list) else made


def test_a_description_says_what_the_models_configuration_says(engine: Engine, here: LocalEngine) -> None:
    found, config = engine.describe(), here.model.config
    assert isinstance(found, Description)
    assert (found.name, found.source, found.notes) == ("tiny", "made here", here.notes)
    assert found.shape == Shape.of(config, 4)
    assert found.loop_blocks() == config.loop_blocks()
    for name in ("num_hidden_layers", "max_position_embeddings", "loop_injection", "loop_norm", "exit_selection"):
        assert getattr(found, name) == getattr(config, name), name
    numbers = sum(parameter.numel() for parameter in here.model.parameters())
    assert (found.dtype, found.parameters, found.n_bytes, found.chats) == ("float32", numbers, 4 * numbers, False)
    assert (engine.layers, engine.parameters, engine.n_bytes) == (5, numbers, 4 * numbers)


def test_a_description_under_other_loop_fields_is_of_the_model_they_make(engine: Engine, here: LocalEngine) -> None:
    loop = {"loop_layers": (0, 3), "loop_count": 7, "virtual_layer_count": 4}
    found, config = engine.describe(loop), here.model.with_loop(**loop).config
    assert found.loop_blocks() == config.loop_blocks()
    assert found.shape == Shape.of(config, 4)
    assert found.lens_misleads, "layers follow a block that the checkpoint does not loop"
    assert not engine.describe().lens_misleads
    assert [block.count for block in engine.describe().blocks] == [3], "the model is as it was"


def test_what_passes_is_plain(here: LocalEngine) -> None:
    """So that another process, or another machine, can stand behind a page."""
    said = json.loads(json.dumps(asdict(here.describe())))
    assert said["shape"]["layers"] == 5
    assert said["blocks"][0]["count"] == 3
    request = Request(PROMPT, {**LOOP, "loop_count": 5}, {"max_new_tokens": 3, "seed": 2}, "shown")
    assert json.loads(json.dumps(asdict(request)))["settings"] == {"max_new_tokens": 3, "seed": 2}
    assert again(request) == request
    made = here.start(request)
    frames = list(made.frames)
    json.dumps([made.meta, frames])
    check_meta(made.meta)
    for frame in frames:
        check_frame(frame, 32)


def test_refusals_are_the_configurations_own_and_keep_their_words_on_the_way(engine: Engine) -> None:
    assert engine.check({"loop_count": 4}) == []
    (error,) = engine.check({"loop_layers": (3, 9)})
    assert isinstance(error, FieldError)
    assert (error.field, error.rule, error.part) == ("loop_layers", "layer_outside", "end")
    assert str(error) == "loop_layers=(3, 9): layer 9 is not in a 5-layer model (0..4)"
    (error,) = engine.check({"loops": 4})
    assert (error.field, error.rule) == ("loops", "not_a_loop_field")
    (error,) = engine.check({"loop_norm": True})
    assert (error.field, error.rule) == ("loop_norm", "no_weights")


def test_a_run_by_its_handle_alone_is_the_run_that_stream_makes(engine: Engine, here: LocalEngine) -> None:
    settings = {"max_new_tokens": 8, "do_sample": True, "seed": 5, "extras": ("exit",)}
    made = engine.start(Request(PROMPT, {"loop_count": 4}, settings, "shown"))
    view = here.model.with_loop(loop_count=4)
    expected = list(stream(view, here.tokenizer, PROMPT, StreamSettings(**settings)))
    assert settled(list(made.frames)) == settled(expected)
    assert (made.meta["model"], made.meta["loop"]["loop_count"]) == ("shown", 4)
    assert made.meta["prompt_tokens"] == engine.prompt_tokens(PROMPT)


def test_a_run_is_steered_and_its_meta_tells(engine: Engine) -> None:
    made = engine.start(Request(PROMPT, {}, {"max_new_tokens": 6}))
    steps = []
    for frame in made.frames:
        steps.append(frame["blocks"][0]["n_steps"])
        if len(steps) == made.meta["prompt_tokens"] + 1:
            made.steer(loop_count=7)
            with pytest.raises(ValueError, match="virtual_layer_count=9: decides how the KV cache is laid out"):
                made.steer(virtual_layer_count=9)
    assert steps[0] == 3
    assert steps[-1] == 7
    (change,) = made.meta["changes"]
    assert change["loop"] == {"loop_count": 7}
    assert steps[change["index"] - 1 : change["index"] + 1] == [3, 7]


@pytest.mark.parametrize("how", ["stop", "event", "close"])
def test_a_run_ends_when_it_is_told_to_and_leaves_nothing(engine: Engine, here: LocalEngine, how: str) -> None:
    word = threading.Event()
    made = engine.start(Request(PROMPT, {}, {"max_new_tokens": 100}), word)
    seen = [next(made.frames)]
    if how == "close":
        made.frames.close()
    else:
        (made.stop if how == "stop" else word.set)()
    seen += made.frames
    assert len(seen) < 100
    assert seen[-1]["finish"] is None
    assert len(here.model.model._loop_hooks) == 0


def test_what_a_run_refuses_it_refuses_before_its_first_frame(engine: Engine) -> None:
    for request, words in (
        (Request(""), "prompt: empty"),
        (Request("从前" * 300), "prompt: [0-9,]+ tokens, and the model's context is 256 tokens"),
        (Request(PROMPT, {"loop_count": 0}), "loop_count=0: must be a whole number >= 1"),
        (Request(PROMPT, {}, {"temperature": 0}), "temperature=0: must be a finite number from"),
        (Request(PROMPT, {}, {"chat": True}), "chat=True: this tokenizer has no chat template"),
    ):
        with pytest.raises(ValueError, match="^" + words):
            engine.start(request)


def test_tokens_are_counted_as_the_models_tokenizer_counts(engine: Engine, here: LocalEngine) -> None:
    text = "从前 a dog 🙂 " * 100
    ids = here.tokenizer(text)["input_ids"]
    assert engine.tokens(text) == len(ids)
    with pytest.raises(FieldError, match="context is 256 tokens"):
        engine.prompt_tokens(text)
    end = engine.end_of(text, 40)
    assert text.endswith(end)
    assert 30 < engine.tokens(end) <= 40
    assert engine.unread_share("a dog") is None


def test_marks_and_templates_count_where_they_are_asked_for() -> None:
    engine = LocalEngine("tiny", tiny.model(), make_tokenizer())
    assert engine.describe().chats
    plain = engine.tokens("a dog", marks=False)
    assert engine.tokens("a dog", chat=True) > plain
    assert engine.tokens("a dog", chat=True) == engine.prompt_tokens("a dog", chat=True)
    cut = engine.end_of("a dog saw the dog. " * 20, 30, chat=True)
    assert engine.prompt_tokens(cut, chat=True) <= 30


def test_a_model_at_hand_is_asked_as_an_engine_is(here: LocalEngine) -> None:
    assert engine_of(here) is here
    assert engine_of(here.model).check({"loop_count": 0})
    assert engine_of(here.model).describe().blocks == here.describe().blocks


def test_an_engine_can_be_spoken_to_without_torch() -> None:
    """Importing any module of the engine imported PyTorch, which takes seconds and a few hundred megabytes."""
    code = (
        "import sys, loopviz.engine.engine, loopviz.engine.work, loopviz.engine.prompt_words\n"
        "found = {'torch', 'transformers'} & set(sys.modules)\n"
        "from loopviz.engine import stream, provenance, StreamSettings\n"
        "import loopviz.engine.stream, loopviz.engine.provenance\n"
        "from loopviz.engine import stream as same, provenance as own\n"
        "assert same is stream and own is provenance and callable(stream) and callable(own)\n"
        "print(sorted(found), stream.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[] loopviz.engine.stream\n", done.stderr


def test_a_function_called_as_its_module_is_the_function_whoever_came_first() -> None:
    code = (
        "from loopviz.engine.stream import run_meta\n"
        "from loopviz.engine.provenance import shown_name\n"
        "import loopviz.engine\n"
        "assert callable(loopviz.engine.stream) and callable(loopviz.engine.provenance)\n"
        "assert set(loopviz.engine.__all__) <= {n for n in loopviz.engine.__all__ if hasattr(loopviz.engine, n)}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_gate_in_reach_of_the_loop_is_told_and_may_be_asked_for() -> None:
    from loopviz.app import controls as st
    from loopviz.model.exit_gate import ExitGate

    model = tiny.model(loop_layers=(1, 3), loop_count=3)
    values = st.defaults() | {"block_start": 1, "block_end": 3, "exit_selection": "gate", "exit_threshold": 0.5}
    engine = LocalEngine("tiny", model, tiny.tokenizer())
    assert not engine.describe().gated
    assert [problem.control for problem in st.check_loop(values, engine)] == ["exit_selection"]
    model.model.spare_gates = {"0": ExitGate(32)}
    gated = LocalEngine("tiny", model, tiny.tokenizer())
    assert gated.describe().gated
    assert gated.describe().exit_selection == "last", "its own loop reads out the last"
    assert st.check_loop(values, gated) == []


def test_the_folder_of_an_adapter_is_a_model_to_a_page(llama_folder, tmp_path):
    """As Explore and Compare open one: by its path, its base found, its tokenizer in a process of its own."""
    peft = pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")
    from loopviz.model.checkpoints import load_model

    base = load_model(llama_folder())
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    limits = LoadLimits(60, 10**6, 10**10, 10**10, 60.0, 10**9)
    made = prepare(
        "mine", str(tmp_path / "adapter"), limits, bounded=True, apart=True, allow_paths=True,
        progress=lambda stage, share: None, unwanted=lambda: False,
    )  # fmt: skip
    engine = made.load()
    assert engine.describe().source.startswith("adapter on ")
    assert [name for name, _ in engine.model.named_modules() if "lora" in name] == []
