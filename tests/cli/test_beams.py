"""`run --beams`: the text that transformers' own search finds, how it ends, and what a search has no use for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from loopviz.cli import main
from loopviz.cli.beams import search
from loopviz.engine import StreamSettings
from loopviz.engine.pieces import decode
from loopviz.model.checkpoints import load_checkpoint
from loopviz.prompt_templates import written
from tests.engine import tiny

MODEL, PROMPT = "stories-loop", "One day, a little bird"


def run(*arguments) -> int:
    return main.main(["run", *map(str, arguments)])


@pytest.fixture(scope="module")
def stories():
    return load_checkpoint(MODEL)


def found_by_generate(loaded, prompt: str, new: int, beams: int, **more) -> tuple[list[int], list[int]]:
    ids = loaded.tokenizer(prompt)["input_ids"]
    tokens = torch.tensor([ids])
    with torch.no_grad():
        out = loaded.model.generate(
            tokens, attention_mask=torch.ones_like(tokens), num_beams=beams, do_sample=False, max_new_tokens=new, **more
        )
    return ids, out[0, len(ids) :].tolist()


@pytest.mark.parametrize("beams", [2, 4])
def test_the_text_is_that_of_generate(stories, capfd, beams):
    assert run("--model", MODEL, "--prompt", PROMPT, "--beams", beams, "--max-new-tokens", 10) == 0
    out, err = capfd.readouterr()
    ids, new = found_by_generate(stories, PROMPT, 10, beams)
    assert out == decode(stories.tokenizer, ids + new) + "\n"
    assert f"the likeliest text of {beams} beams" in err
    assert f"{len(ids)} of prompt, 10 new (max_new_tokens reached)" in err


def test_a_loop_a_penalty_and_a_template_are_those_of_any_run(capfd):
    loop = {"loop_count": 2, "virtual_layer_count": 2}
    asked = ["--model", MODEL, "--loop-count", 2, "--virtual-layer-count", 2, "--repetition-penalty", 1.5]
    asked += ["--template", "vicuna", "--prompt", "Hi.", "--beams", 3, "--max-new-tokens", 6]
    assert run(*asked) == 0
    loaded = load_checkpoint(MODEL, **loop)
    _, new = found_by_generate(loaded, written("vicuna", "Hi."), 6, 3, repetition_penalty=1.5)
    assert capfd.readouterr().out.strip() == decode(loaded.tokenizer, new).strip(), "the answer alone"


def test_how_a_search_ends_is_said_and_the_mark_of_an_end_is_no_text():
    model, tokenizer = tiny.model(context=16, loop_layers=(1, 2)), tiny.tokenizer()
    loaded = SimpleNamespace(model=model, tokenizer=tokenizer)
    read = len(tokenizer("Once upon")["input_ids"])
    full = search(loaded, "Once upon", StreamSettings(max_new_tokens=64), 2)
    assert (full.finish, len(full.prompt), len(full.new)) == ("context", read, 16 - read + 1)
    with torch.no_grad():
        model.lm_head.weight.mul_(50)  # one text is all but certain then
    model.generation_config.eos_token_id = search(loaded, "Once upon", StreamSettings(max_new_tokens=1), 2).new[0]
    ended = search(loaded, "Once upon", StreamSettings(max_new_tokens=4), 2)
    assert (ended.finish, ended.new) == ("eos", [])


def test_logits_that_are_no_numbers_are_refused():
    model = tiny.model(loop_layers=(1, 2))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not numbers any more"):
        search(SimpleNamespace(model=model, tokenizer=tiny.tokenizer()), "Once", StreamSettings(max_new_tokens=4), 2)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--beams", 1], "beams=1: must be a whole number from 2 to 64"),
        (["--beams", 65], "beams=65: must be a whole number from 2 to 64"),
        (["--beams", 2, "--save", "t.loopviz"], "--save: no effect with --beams 2: a search follows several texts at once"),
        (["--beams", 2, "--change", "3:loop_count=2"], "--change: no effect with --beams 2"),
        (["--beams", 2, "--no-record", "--top-tokens", 3], "--no-record, --top-tokens: no effect with --beams 2"),
        (["--beams", 2, "--extras", "exit"], "--extras: no effect with --beams 2"),
        (["--beams", 2, "--sample"], "--sample: no effect with --beams 2: a search draws nothing"),
        (["--beams", 2, "--seed", 0], "--seed: no effect with --beams 2: a search draws nothing"),
        (["--beams", 2, "--preset", "article", "--top-p", 0.5], "--top-p: no effect with --beams 2"),
        (["--beams", 2, "--model", "stories-ttt"], "--beams: no effect on a TTT model"),
    ],
)  # fmt: skip
def test_what_a_search_has_no_use_for_is_refused_by_name(capfd, more, says):
    assert run("--prompt", "x", "--model", MODEL, *more) == 2
    out, err = capfd.readouterr()
    assert says in err
    assert err.count("\n") == 1
    assert out == ""


def test_with_the_article_s_preset_it_is_the_article_s_call():
    options = main._parser().parse_args(["run", "--prompt", "x", "--preset", "article", "--beams", "4"])
    settings = StreamSettings(**main._settings(options))
    assert (settings.max_new_tokens, settings.do_sample, settings.repetition_penalty) == (256, False, 1.0)
