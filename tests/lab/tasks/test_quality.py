"""Generation quality as a task: it scores what the model really writes, at each loop count, for each kind of prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from loopviz.checks import FieldError
from loopviz.engine import StreamSettings, run
from loopviz.lab import TASKS, Experiment
from loopviz.lab.reading.intervals import FIGURE_DRAWS, mean_interval
from loopviz.lab.reading.text_scores import bleu_interval, distinct, repetition, score, score_all
from loopviz.lab.tasks.quality import BLEU_DRAWS, QualityParams, exercises, plot, tokenizer_in, write
from loopviz.prompt_templates import written
from tests.lab.subject import TEXT, subject

TASK = TASKS["quality"]
LOOP = {"loop_layers": (1, 2), "loop_count": 2}
STORIES = (
    f"{TEXT}\n<|endoftext|>\nthe dog Lily saw the 3 🐕 dogs there. She ran, and a small dog ran.\n<|endoftext|>\n从前\n"
)
PARAMS = {"text": STORIES, "prompts": 2, "prompt_tokens": 6, "new_tokens": 9, "loop": LOOP}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    experiment = Experiment(TASK, subject(), QualityParams(**PARAMS, loops=(1, 3)))
    experiment.run()
    assert experiment.done == experiment.total == 6
    return experiment.frame


def test_a_text_gives_prompts_and_what_follows_them() -> None:
    tiny = subject()
    found = exercises(tiny, QualityParams(**{**PARAMS, "prompts": 999}))
    assert len(found) == 2, "the third document is no longer than a prompt"
    assert found[:2] == exercises(tiny, QualityParams(**PARAMS))
    for exercise, document in zip(found, STORIES.split("\n<|endoftext|>\n"), strict=False):
        prompt = tiny.tokenizer.decode(exercise.ids)
        assert document.startswith(prompt + exercise.reference)
        assert exercise.ids == tiny.tokenizer(document)["input_ids"][: len(exercise.ids)]
        assert 1 <= len(exercise.ids) <= 6
        assert 1 <= len(tiny.tokenizer(exercise.reference)["input_ids"]) <= 9


def test_rows_score_what_the_model_writes_at_each_loop_count(table: pd.DataFrame) -> None:
    tiny = subject()
    for loops in (1, 3):
        view = tiny.view({**LOOP, "loop_count": loops})
        for number, exercise in enumerate(exercises(tiny, QualityParams(**PARAMS))):
            prompt = tiny.tokenizer.decode(exercise.ids)
            frames = run(view, tiny.tokenizer, prompt, StreamSettings(max_new_tokens=9, record="off")).frames
            ids = [frame["next_id"] for frame in frames[len(exercise.ids) - 1 :]]
            row = table[(table["loops"] == loops) & (table["prompt"] == number)].iloc[0]
            assert row["written"] == tiny.tokenizer.decode(ids)
            scores = score(row["written"], exercise.reference)
            assert (row["bleu"], row["rouge_l"], row["chrf"]) == (scores.bleu, scores.rouge_l, scores.chrf)
            assert row["distinct_2"] == distinct([ids], 2)
            assert row["repetition_4"] == repetition(ids, 4)
    assert table["written"].nunique() == 4, "all alike: the test says little"


def test_the_last_row_of_a_loop_count_is_the_corpus(table: pd.DataFrame) -> None:
    for _, rows in table.groupby("loops"):
        total, single = rows[rows["prompt"].isna()].iloc[0], rows[rows["prompt"].notna()]
        assert total["rouge_l"] == pytest.approx(single["rouge_l"].mean())
        assert total["repetition_4"] == pytest.approx(single["repetition_4"].mean())
        assert total["tokens"] == single["tokens"].sum() == 18
        assert "version:" in total["signature"]


def test_pairs_of_different_lengths_are_each_answered_as_alone(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    lines = [{"prompt": "Once upon a", "reference": "time there was a dog"}, {"prompt": "the dog saw the small dog"}]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n", "utf-8")
    params = QualityParams(pairs=str(file), new_tokens=5, loop=LOOP)
    tiny = subject()
    frame = Experiment(TASK, tiny, params).run().frame
    assert frame["loops"].isna().all()
    assert frame["bleu"].notna().tolist() == [True, False, True]
    for number, exercise in enumerate(exercises(tiny, params)):
        (alone,) = write(tiny.view(LOOP), [exercise.ids], params)
        assert frame["written"][number] == tiny.tokenizer.decode(alone)


def test_prompts_of_pairs_are_put_as_on_explore(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"prompt": "the dog", "reference": "ran"}), "utf-8")
    for template, about in (("vicuna", ""), ("alpaca", "the hat")):
        params = QualityParams(pairs=str(file), new_tokens=5, template=template, input=about)
        (found,) = exercises(subject(), params)
        assert found.ids == subject().tokenizer(written(template, "the dog", about))["input_ids"]
    with pytest.raises(FieldError, match="only template='alpaca' has a place for it"):
        QualityParams(pairs=str(file), template="vicuna", input="the hat")
    with pytest.raises(FieldError, match="template='alpaca': prompts cut from a text are put as they are; give pairs"):
        QualityParams(text="the dog ran", template="alpaca")


def test_a_line_separator_inside_a_prompt_ends_no_line_of_a_file_of_pairs(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    lines = [{"prompt": "Once\u2028upon\x85a", "reference": "dog"}, {"prompt": "the dog"}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\r\n" for line in lines)
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    first, second = exercises(subject(), QualityParams(pairs=str(file), new_tokens=5))
    assert subject().tokenizer.decode(first.ids) == "Once\u2028upon\x85a"
    assert subject().tokenizer.decode(second.ids) == "the dog"


def test_the_end_mark_ends_a_text_and_is_not_counted() -> None:
    view = subject().view(LOOP)
    params = QualityParams(**PARAMS)
    prompts = [exercise.ids for exercise in exercises(subject(), params)]
    whole = write(view, prompts, params)
    view.generation_config.eos_token_id = whole[0][3]
    cut = write(view, prompts, params)
    assert cut[0] == whole[0][: whole[0].index(whole[0][3])]


def test_sampling_repeats_with_its_seed() -> None:
    view = subject().view(LOOP)
    params = QualityParams(**PARAMS)
    prompts = [exercise.ids for exercise in exercises(subject(), params)]
    one, again, other = (
        write(view, prompts, QualityParams(**PARAMS, do_sample=True, temperature=2.0, seed=seed)) for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"file": "x"}, "given: text, file"),
        ({"text": ""}, "given: none"),
        ({"loops": (2, 1)}, "loops="),
        ({"temperature": 0}, "temperature=0"),
        ({"tokenize": "intl"}, "tokenize='intl'"),
        ({"prompts": 0}, "prompts=0"),
    ],
)
def test_wrong_parameters_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QualityParams(**{**PARAMS, **wrong})


def test_what_cannot_be_measured_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    tiny = subject()
    for changes, message in (
        ({"text": "dog"}, "a prompt and its reference take 15"),
        ({"prompt_tokens": 250}, "prompt_tokens=250: with new_tokens=9 more than the model's context of 256"),
        ({"loops": (2,), "loop": None}, "this model has no loop"),
    ):
        with pytest.raises(ValueError, match=message):
            TASK.cells(tiny, QualityParams(**{**PARAMS, **changes}))
    for line, message in (("{", "not JSON"), ('{"reference": "x"}', "must be"), ("[1]", "must be"), ("", "no prompt")):
        file = tmp_path / "pairs.jsonl"
        file.write_text(line, "utf-8")
        with pytest.raises(ValueError, match=rf"pairs='pairs.jsonl'.*{message}"):
            exercises(tiny, QualityParams(pairs=str(file)))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_plot_has_a_line_a_score_over_loops(table: pd.DataFrame, lang: str) -> None:
    figure = plot(table, lang)
    assert [trace.name for trace in figure.data][:3] == ["BLEU", "ROUGE-L", "chrF"]
    total = table[table["prompt"].isna()]
    assert list(figure.data[2].x) == ["1", "3"]
    assert list(figure.data[2].y) == total["chrf"].to_list()
    assert not plot(table.iloc[:1], lang).data


def test_the_figure_has_the_intervals_of_what_can_be_drawn_anew() -> None:
    """165 rows are a picture: a mark a loop count and score, with how far another sample of prompts might put it."""
    texts = [f"the dog {n} ran to the park and saw a ball" for n in range(8)]
    rows = [
        {
            "loops": loops,
            "prompt": n,
            "written": f"{text} {loops}",
            "reference": text,
            "rouge_l": 50.0 + n * loops,
            "repetition_4": n / 10,
        }
        for loops in (1, 3)
        for n, text in enumerate(texts)
    ]
    totals = [
        {
            "loops": loops,
            "bleu": 60.0,
            "rouge_l": 50.0 + 3.5 * loops,
            "chrf": 5.0,
            "distinct_1": 0.5,
            "repetition_4": 0.35,
        }
        for loops in (1, 3)
    ]
    table = pd.DataFrame([*rows, *totals]).reindex(columns=[column.name for column in TASK.columns])
    traces = {trace.name: trace for trace in plot(table, "en").data}
    low, high = mean_interval(50.0 + 3.0 * np.arange(8), np.ones(8), FIGURE_DRAWS, 0)
    assert traces["ROUGE-L"].error_y.array[1] == pytest.approx(high - 60.5)
    assert traces["ROUGE-L"].error_y.arrayminus[1] == pytest.approx(60.5 - low)
    assert traces["BLEU"].error_y.visible is not False
    assert traces["chrF"].error_y.visible is False
    assert traces["distinct-1"].error_y.visible is False
    few = table[table["prompt"].isna() | (table["prompt"] < 4)]
    assert plot(few, "en").data[1].error_y.visible is False, "of 4 there is none"


def test_the_interval_of_bleu_is_cut_into_words_as_its_point_is() -> None:
    """With tokenize="char" the point was of characters and its arms of the words that the script suggests."""
    texts = [f"the dog {n} ran to the park and saw a ball" for n in range(8)]
    rows = [
        {"loops": 1, "prompt": n, "written": text + " and so" * n, "reference": text} for n, text in enumerate(texts)
    ]
    found, signature = score_all([row["written"] for row in rows], texts, "char")
    total = {"loops": 1, "bleu": found.bleu, "signature": signature}
    table = pd.DataFrame([*rows, total]).reindex(columns=[column.name for column in TASK.columns])
    drawn = next(trace for trace in plot(table, "en").data if trace.name == "BLEU").error_y
    pairs = [row["written"] for row in rows], texts
    low, high = bleu_interval(*pairs, BLEU_DRAWS, 0, "char")
    assert (low, high) != bleu_interval(*pairs, BLEU_DRAWS, 0), "the test says nothing"
    assert drawn.array[0] == pytest.approx(high - found.bleu)
    assert drawn.arrayminus[0] == pytest.approx(found.bleu - low)


@pytest.mark.parametrize("signature", [None, float("nan"), "", "nrefs:1|case:mixed"])
def test_a_signature_that_names_no_tokenizer_is_no_error(signature: object) -> None:
    assert tokenizer_in(signature) == "auto"
    assert tokenizer_in("nrefs:1|tok:ja-mecab-0.996-IPA|smooth:exp") == "ja-mecab"
