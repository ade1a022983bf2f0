"""A list of prompts as a task: each row is what Explore's run of that prompt is."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from loopviz.app.lab.form import params_of
from loopviz.app.profile import PUBLIC
from loopviz.checks import FieldError
from loopviz.engine import StreamSettings, run
from loopviz.lab import TASKS, Experiment, repeat
from loopviz.lab.reading.intervals import mean_interval
from loopviz.lab.tasks.prompts import SAMPLE, PromptsParams, plot
from loopviz.prompt_templates import written
from tests.lab.subject import exact_loss, exact_subject, subject

TASK = TASKS["prompts"]
PROMPTS = ["Once upon a", "the dog saw", "Lily", "从前有一只"]
CSV = "prompt,name\n" + "".join(f'"{prompt}",n{n}\n' for n, prompt in enumerate(PROMPTS))
STOPS = {
    "loop_layers": (1, 2),
    "loop_strategy": "dynamic_stop",
    "convergence_criterion": "either",
    "cosine_threshold": 0.9,
    "kl_threshold": 0.01,
    "min_loop_count": 1,
    "max_loop_count": 5,
    "virtual_layer_count": 1,
}


def made(**change: Any) -> Experiment:
    return Experiment(TASK, subject(), PromptsParams(**{"csv": CSV, "max_new_tokens": 6, "loop": STOPS, **change}))


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 1.4, "top_p": 0.9, "seed": 3}])
def test_a_row_is_the_run_of_its_prompt(sampling: dict[str, Any]) -> None:
    found = made(**sampling).run()
    assert found.done == found.total == len(PROMPTS)
    tiny = subject()
    for number, (prompt, row) in enumerate(zip(PROMPTS, found.rows, strict=True)):
        trace = run(tiny.view(STOPS), tiny.tokenizer, prompt, StreamSettings(max_new_tokens=6, **sampling))
        chose = trace.frames[trace.meta["prompt_tokens"] - 1 :]
        steps = [frame["blocks"][0]["n_steps"] for frame in chose]
        reasons = Counter(frame["blocks"][0]["stop_reason"] for frame in chose)
        assert (row["row"], row["name"], row["prompt"]) == (number + 2, f"n{number}", prompt)
        assert row["loops_mean"] == pytest.approx(sum(steps) / len(steps))
        assert row["loops_most"] == max(steps)
        assert dict(part.split() for part in row["reasons"].split(", ")) == {k: str(v) for k, v in reasons.items()}
        assert row["perplexity"] == pytest.approx(
            math.exp(-sum(f["next_logprob"] for f in chose) / len(chose)), rel=1e-5
        )
        assert row["written"] == tiny.tokenizer.decode([frame["next_id"] for frame in chose])
        assert row["prompt_tokens"] == trace.meta["prompt_tokens"]
        assert row["end"] == chose[-1]["finish"]
    assert len({row["loops_mean"] for row in found.rows}) > 1, "all alike: the test says little"


def test_a_prompt_s_perplexity_is_that_of_its_own_tokens() -> None:
    tiny = exact_subject()
    found = Experiment(TASK, tiny, PromptsParams(csv=CSV, max_new_tokens=1, loop=STOPS)).run()
    for prompt, row in zip(PROMPTS, found.rows, strict=True):
        ids = torch.tensor([tiny.tokenizer(prompt)["input_ids"]])
        wanted = math.exp(exact_loss(tiny.view(STOPS), ids)) if ids.shape[1] > 1 else None
        assert row["prompt_perplexity"] == (None if wanted is None else pytest.approx(wanted, rel=1e-9))


def test_a_model_without_a_loop_loops_once() -> None:
    rows = made(loop=None).run().rows
    assert {(row["loops_mean"], row["loops_most"], row["reasons"]) for row in rows} == {(1.0, 1, "plain")}


def test_only_as_many_prompts_as_asked_for_are_run() -> None:
    assert [row["row"] for row in made(rows=2).run().rows] == [2, 3]


def test_a_file_takes_the_place_of_the_table_and_is_what_the_manifest_has(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('prompt\n"The dog, the"\n', "utf-8")
    first = made(csv=SAMPLE, file=str(file)).run()
    assert [row["prompt"] for row in first.rows] == ["The dog, the"]
    assert [text["name"] for text in first.manifest["texts"]] == ["mine.csv"]
    assert repeat(first.manifest, subject=subject()).run().rows == first.rows


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"csv": ""}, "csv, file: give prompts as CSV"),
        ({"csv": "prompt,name\na,b\n,c\n"}, "'csv', row 3, column prompt: empty"),
        ({"csv": f"prompt\nOnce\n{'word ' * 3000}\n"}, "csv='csv', row 3, column prompt: prompt: "),
        ({"chat": True}, "chat"),
        ({"template": "chat"}, "template='chat': this tokenizer has no chat template"),
        ({"template": "mine"}, "template='mine'"),
        ({"chat": True, "template": "alpaca"}, "template='alpaca'"),
        ({"input": "a dog"}, "only template='alpaca' has a place for it"),
        ({"temperature": 0.0}, "temperature"),
        ({"loop": {"loop_layers": (7, 9)}}, "layer 7"),
    ],
)
def test_what_is_refused_is_refused_before_the_first_run(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        made(**change).run()


def test_each_prompt_is_put_as_on_explore() -> None:
    """In the template's words, which are read and looped over as the prompt typed out is."""
    template = {"template": "alpaca", "input": "the dog"}
    told = made(csv="prompt\nOnce\n", **template).run()
    (row,) = told.rows
    whole = written("alpaca", "Once", "the dog")
    (typed,) = made(csv=f'prompt\n"{whole}"\n').run().rows
    assert row["prompt"] == "Once"
    same = ("prompt_tokens", "written", "loops_mean", "perplexity", "prompt_perplexity")
    assert [row[name] for name in same] == [typed[name] for name in same]
    assert row["prompt_tokens"] > made(csv="prompt\nOnce\n").run().rows[0]["prompt_tokens"]
    assert repeat(told.manifest, subject=subject()).run().rows == told.rows


def test_a_visitor_s_file_is_called_by_its_name_alone(tmp_path: Path) -> None:
    given = {"file": {"name": "mine.csv", "text": "prompt,name\nOnce,a\n,b\n"}}
    params = params_of(TASK, given, tmp_path)
    with pytest.raises(FieldError) as refused:
        params.prompts()
    assert "'mine.csv', row 3, column prompt" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_it_costs_what_its_prompts_cost_so_that_a_server_can_refuse_it() -> None:
    tiny = subject()
    few = TASK.work(tiny, PromptsParams(csv=CSV, max_new_tokens=6, loop=STOPS))  # type: ignore[misc]
    more = TASK.work(tiny, PromptsParams(csv=CSV + "more words,x\n" * 40, max_new_tokens=6, loop=STOPS))  # type: ignore[misc]
    assert more.passes > 5 * few.passes
    assert PUBLIC.estimate_seconds is not None


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_figure_has_a_mark_a_prompt_and_the_mean_with_its_interval(lang: str) -> None:
    frame = made(csv="prompt\n" + "".join(f"{prompt} {n}\n" for n in range(2) for prompt in PROMPTS)).run().frame
    marks, mean = plot(frame, lang).data
    assert len(marks.x) == len(frame) == 8
    assert mean.y[0] == pytest.approx(frame["perplexity"].mean())
    low, high = mean_interval(frame["perplexity"].to_numpy(float), torch.ones(8).numpy(), 2_000, 0)
    assert mean.error_y.array[0] == pytest.approx(high - frame["perplexity"].mean())
    assert mean.error_y.arrayminus[0] == pytest.approx(frame["perplexity"].mean() - low)
    assert plot(frame.head(3), lang).data[1].error_y.visible is False, "of so few there is none"
    assert plot(frame.head(0), lang).layout.annotations


def test_a_file_is_read_and_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress, cost and the measurement each read it anew: 10,000 rows three times."""
    from loopviz.lab.tasks import prompts

    calls, true = [], prompts.prompt_rows
    monkeypatch.setattr(prompts, "prompt_rows", lambda *given: calls.append(given) or true(*given))
    experiment = made(rows=2)
    assert TASK.work is not None
    TASK.work(experiment.subject, experiment.params)
    assert experiment.run().done == experiment.total == 2
    assert len(calls) == 1
