"""What the tour says holds in the stored run; what does not hold for a run is not said of it; its steps fit the page."""

from __future__ import annotations

import json
import re
import string
from itertools import pairwise
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from loopviz.app.explore import (
    first_run,
    served,  # noqa: F401  (hands the server what it serves)
    tour,
)
from loopviz.app.server import assets
from loopviz.app.texts import LANGUAGES
from loopviz.app.texts.glossary import BY_KEY
from loopviz.app.texts.tour import STEPS, Step
from loopviz.figures import theme
from loopviz.panels import PANELS, Focus
from loopviz.panels.kit.trajectories import ending
from loopviz.panels.loop.state_trajectory import CHOSEN, ENDS, PINNED, STARTS
from loopviz.paths import WEB
from loopviz.trace import Trace, decode_states
from tests.trace.synthetic import random_trace


@pytest.fixture(scope="module")
def trace() -> Trace:
    stored = first_run.stored()
    assert stored is not None
    return stored


@pytest.fixture(scope="module")
def known(trace: Trace) -> dict[str, Any]:
    return tour.facts(trace, "en")


@pytest.fixture(scope="module")
def played() -> dict[str, dict[str, dict[str, Any]]]:
    """The tour as a page fetches it: by language and step."""
    client = TestClient(Starlette(routes=assets.routes()))
    answers = {lang: client.get(f"/{assets.PREFIX}/x/tour.{lang}.json").json() for lang in LANGUAGES}
    return {lang: {step["key"]: step for step in answer["steps"]} for lang, answer in answers.items()}


def plain(step: dict[str, Any]) -> str:
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in step["words"])


def loops(trace: Trace, at: int) -> int:
    return trace.frames[at]["blocks"][0]["n_steps"]


def winners(trace: Trace, at: int) -> list[str]:
    return [texts[0].strip() for texts in trace.frames[at]["blocks"][0]["steps"]["topk_texts"]]


# --- what the stored run must hold ------------------------------------------------------------------------------------


def test_every_step_is_shown_on_the_stored_run(played: dict[str, Any]) -> None:
    """Another recording for which one is left out is a worse first run: choose another."""
    for lang in LANGUAGES:
        assert list(played[lang]) == [step.key for step in STEPS]


def test_the_run_loops_and_is_written_after_its_prompt(trace: Trace, played: dict[str, Any]) -> None:
    assert max(loops(trace, t) for t in range(len(trace))) > 1
    assert played["en"]["replay"]["shown"] == trace.meta["prompt_tokens"] < len(trace) - 1
    assert played["en"]["replay"]["play"]


def test_the_hard_word_is_one(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    at = known["hard"]
    written = [t for t, frame in enumerate(trace.frames) if frame["phase"] == "generated"]
    assert at in written
    assert all(loops(trace, at) >= loops(trace, t) for t in written)
    assert sum(loops(trace, at) > loops(trace, t) for t in written) > len(written) / 2, "more than over most others"
    said = plain(played["en"]["hard"])
    assert f"“{trace.frames[at]['text'].strip()}”" in said
    assert f"{loops(trace, at)} loops" in said
    assert {"max": "upper bound", "kl": "KL", "cosine": "cosine"}[trace.frames[at]["blocks"][0]["stop_reason"]] in said
    step = played["en"]["hard"]
    assert step["target"] == f"#lv-word-{at}"
    assert step["shown"] == at + 1 == step["focus"]["token"] + 1, "the slider stands where it had just been read"


def test_its_loops_change_less_and_less(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    steps = trace.frames[known["hard"]]["blocks"][0]["steps"]
    assert 1 - steps["cosine"][-1] < 0.1 * (1 - steps["cosine"][0])
    assert steps["kl"][-1] < 0.1 * steps["kl"][0]
    assert steps["rel_delta"][-1] < 0.1 * steps["rel_delta"][0]
    assert trace.meta["blocks"][0]["strategy"] == "dynamic_stop"
    assert played["en"]["curve"]["focus"]["token"] == known["hard"]


def test_a_word_changes_its_mind(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    at, since = known["turn"], known["turn_step"]
    won = winners(trace, at)
    assert won[0] != won[-1]
    assert set(won[since - 1 :]) == {won[-1]}
    assert won[since - 2] != won[-1]
    changes = [sum(a != b for a, b in pairwise(winners(trace, t))) for t in range(len(trace))]
    held = [t for t in range(len(trace)) if trace.frames[t]["phase"] == "generated"]
    assert changes[at] == max(changes[t] for t in held if winners(trace, t)[0] != winners(trace, t)[-1])
    said = plain(played["en"]["guess"])
    assert f"“{won[0]}” is ahead" in said
    assert f"from loop {since} on it is “{won[-1]}”" in said
    assert played["en"]["guess"]["focus"]["token"] == at


def test_it_begins_with_why_and_ends_with_a_question(played: dict[str, Any]) -> None:
    for lang in LANGUAGES:
        steps = list(played[lang].values())
        assert (steps[0]["key"], steps[0]["target"]) == ("why", ".lv-ring")
        assert [bool(step["asks"]) for step in steps] == [False] * (len(steps) - 1) + [True]


def test_the_right_answer_is_what_the_model_would_have_said(
    trace: Trace, known: dict[str, Any], played: dict[str, Any]
) -> None:
    won, asks = winners(trace, known["turn"]), played["en"]["question"]["asks"]
    cut = known["cut"]
    assert asks["answers"][asks["right"]] == won[cut - 1]
    assert len(asks["answers"]) == len(set(asks["answers"])) >= 2
    assert set(asks["answers"]) <= set(won), "the others were guesses of other loops"
    assert won[-1] in asks["answers"], "what it does say is among them"
    assert won[cut - 1] != won[-1], "an earlier end changes what is said"
    assert asks["focus"]["token"] == known["turn"]
    assert asks["focus"]["step"] == cut
    assert f"after {cut} of its {len(won)} loops" in plain(played["en"]["question"])
    for told in asks["told"].values():
        said = "".join(piece if isinstance(piece, str) else piece[0] for piece in told)
        assert f"“{won[cut - 1]}”" in said
        assert f"“{won[-1]}”" in said


@pytest.mark.parametrize(
    ("won", "cut", "answers"),
    [
        (["a", "b", "c"], 2, ["a", "b", "c"]),
        (["a", "a", "c", "c"], 1, ["a", "c"]),
        (["a", "b", "a", "d", "c", "c"], 4, ["a", "d", "c"]),
        (["a", "c", "a", "c"], 1, ["a", "c"]),
    ],
)
def test_a_question_has_one_right_answer_whatever_the_guesses_were(
    won: list[str], cut: int, answers: list[str]
) -> None:
    facts = tour._turn_facts(won)
    assert (facts["cut"], facts["cut_answers"]) == (cut, answers)
    assert answers[facts["cut_right"]] == won[cut - 1] != won[-1]


def test_an_easy_word_takes_fewer_loops(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    easy, hard = known["easy"], known["hard"]
    written = [t for t, frame in enumerate(trace.frames) if frame["phase"] == "generated"]
    words = [t for t in written if re.search(r"\w\w", trace.frames[t]["text"])]
    assert easy in words
    assert loops(trace, easy) == min(loops(trace, t) for t in words) < loops(trace, hard)
    said = plain(played["en"]["path"])
    assert f"only {loops(trace, easy)} loops" in said
    assert f"took {loops(trace, hard)}." in said
    assert f"{trace.meta['shape']['hidden']} numbers" in said
    assert sorted(played["en"]["path"]["focus"]["pins"]) == sorted([easy, hard])


def focused(played: dict[str, Any], key: str, lang: str = "en") -> Focus:
    """Where the tour looks at a step from."""
    return Focus.from_json({**played[lang][key]["focus"], "lang": lang})


def test_the_opening_runs_hard_words_are_hard(trace: Trace, known: dict[str, Any]) -> None:
    """A5: with two slots read in turn, easy words went round to the bound. Here each word stops because it has settled."""
    (block,) = trace.meta["blocks"]
    assert (block["strategy"], block["criterion"], block["max_steps"]) == ("dynamic_stop", "kl", 16)
    assert (block["kv_mode"], block["slots"], block["attention_mode"]) == ("virtual_layers", 1, "serial")
    counts = [loops(trace, t) for t, frame in enumerate(trace.frames) if frame["phase"] == "generated"]
    assert max(counts) < block["max_steps"], "nobody at the bound"
    assert 4 < sum(counts) / len(counts) < 8
    assert len(set(counts)) > 4, "easy and hard ones"
    for frame in trace.frames:
        assert frame["blocks"][0]["stop_reason"] == "kl"
        if frame["phase"] == "generated":  # a prompt's words share one number of loops, and one stop
            assert frame["blocks"][0]["steps"]["kl"][-1] <= block["kl_threshold"]
        states = decode_states(frame["blocks"][0]["states"], trace.meta["shape"]["hidden"])
        assert ending(states).kind != "orbit"
    hardest = trace.frames[known["hard"]]
    assert max(hardest["blocks"][0]["steps"]["kl"][2:]) > 100 * block["kl_threshold"], "its guess went on moving"
    assert "'S" not in trace.text, "the training texts write so, and so may the model; not in the first story one reads"


def test_there_are_three_curves_and_the_middle_one_is_the_kl(trace: Trace, played: dict[str, Any]) -> None:
    """A11: the lower curve was said to be the KL; it is the length of the step."""
    figure = PANELS["convergence"].data(trace, focused(played, "curve"))
    layout, words = figure["layout"], PANELS["convergence"].TEXTS["en"]
    chosen = {
        curve["name"]: curve
        for curve in figure["data"]
        if len(curve["y"]) and curve.get("name", "").startswith(("1", "K", "‖"))
    }
    heights = {
        name: layout[f"yaxis{curve['yaxis'][1:]}"]["domain"][0]
        for name, curve in chosen.items()
        if curve["mode"] != "lines"
    }
    assert sorted(heights, key=heights.get, reverse=True) == [
        words[f"curve_{q}"] for q in ("cosine", "kl", "rel_delta")
    ]
    top, middle = layout["shapes"][:2]
    assert (top["yref"], top["line"]["dash"]) == ("y", "dot"), "not used here"
    assert (middle["yref"], middle["line"]["dash"], middle["y0"]) == ("y2", "dash", pytest.approx(10**-3.3, rel=1e-3))
    for lang, parts in {"en": ("top", "middle", "bottom"), "zh": ("最上面", "中间", "最下面")}.items():
        said = plain(played[lang]["curve"])
        places = [said.index(part) for part in parts]
        assert places == sorted(places)
        assert places[1] < said.index("KL") < places[2]


def test_what_it_would_say_is_what_the_panel_shows(trace: Trace, known: dict[str, Any], played: dict[str, Any]) -> None:
    figure = PANELS["would_say"].data(trace, focused(played, "guess"))
    shown = [row[0].strip("␣") for row in figure["data"][0]["text"]]
    assert shown == winners(trace, known["turn"])
    assert (shown[0], shown[-1]) == (known["turn_first"], known["turn_last"])
    frame = trace.frames[known["turn"]]
    assert shown[-1] == frame["next_topk_texts"][0].strip() == frame["next_text"].strip(), "and the model's own"
    marks = figure["data"][2]["y"]
    assert str(known["turn_step"]) in marks
    assert marks == [str(r) for r in range(2, len(shown) + 1) if shown[r - 1] != shown[r - 2]]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_two_words_have_two_paths_in_view(
    lang: str, trace: Trace, known: dict[str, Any], played: dict[str, Any]
) -> None:
    """The step "Two words, two paths" showed neither."""
    figure = PANELS["state_trajectory"].data(trace, focused(played, "path", lang))
    pinned, chosen, starts, ends = (figure["data"][place] for place in (PINNED, CHOSEN, STARTS, ENDS))
    assert len(chosen["x"]) == loops(trace, known["hard"]) + 1
    assert [x is None for x in pinned["x"]] == [False] * (loops(trace, known["easy"]) + 1) + [True]
    assert [text.split()[0] for text in ends["text"]] == [str(known["hard"]), str(known["easy"])]
    assert (starts["marker"]["symbol"], chosen["line"]["color"]) == ("circle-open", theme.SELECTED)
    assert pinned["line"]["color"] == theme.INK
    for axis in "xy":
        low, high = figure["layout"][f"{axis}axis"]["range"]
        points = [value for curve in (pinned, chosen) for value in curve[axis] if value is not None]
        assert low < min(points) < max(points) < high
        for curve in (pinned, chosen):
            values = [value for value in curve[axis] if value is not None]
            assert max(values) - min(values) > 0.1 * (high - low), "each is a path, not a dot"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_word_and_number_of_the_tour_is_the_runs(lang: str, trace: Trace, played: dict[str, Any]) -> None:
    facts = {str(value) for value in tour.facts(trace, lang).values()}
    texts = {frame["text"].strip() for frame in trace.frames} | {
        best.strip() for frame in trace.frames for best in frame["next_topk_texts"]
    }
    for step in played[lang].values():
        for quoted in re.findall(r"“(.+?)”", plain(step)):
            assert quoted in facts
            if step["key"] in ("hard", "curve", "guess", "map", "path"):
                assert quoted in texts | {text for t in range(len(trace)) for text in winners(trace, t)}
        for number in re.findall(r"\d+", plain(step)):
            assert any(re.search(rf"\b{number}\b", fact) for fact in facts), number


def test_with_two_slots_odd_and_even_loops_may_never_agree() -> None:
    """What the tour and the trajectory say of taking turns: easy words run to the bound, their likeliest word unmoved."""
    from loopviz.engine import StreamSettings, run
    from loopviz.model.checkpoints.load import load_checkpoint

    loaded, found = load_checkpoint("stories-loop"), []
    for slots in (1, 2):
        loop = {"loop_strategy": "dynamic_stop", "convergence_criterion": "kl", "kl_threshold": 0.001}
        loop |= {"max_loop_count": 16, "min_loop_count": 2, "virtual_layer_count": slots}
        model = loaded.model.with_loop(**loop, virtual_attention_mode="serial")
        made = run(model, loaded.tokenizer, "Once upon a time, there was a little", StreamSettings(max_new_tokens=40))
        bound = [frame for frame in made.frames if frame["blocks"][0]["stop_reason"] == "max"]
        found.append(bound)
    one, two = found
    assert not one
    assert two
    kinds = {ending(decode_states(frame["blocks"][0]["states"], made.meta["shape"]["hidden"])).kind for frame in two}
    assert "orbit" in kinds


def test_how_the_run_remembers_is_said_as_the_page_says_it(trace: Trace, played: dict[str, Any]) -> None:
    from loopviz.app.explore.snapshot import about

    for lang in LANGUAGES:
        memory = re.search(r"(?:This run: |这次运行：)(.+?)[.。]$", plain(played[lang]["memory"]))
        assert memory
        assert memory[1] in about(trace.meta, lang)


def test_a_panel_that_is_off_and_needs_more_is_switched_on(played: dict[str, Any]) -> None:
    from loopviz.app.explore import snapshot

    (name,) = played["en"]["panels"]["panels"]
    assert PANELS[name].NEEDS
    assert not snapshot.usual(PANELS[name])


# --- a run for which something does not hold --------------------------------------------------------------------------


def test_of_a_plain_model_nothing_about_loops_is_said() -> None:
    run = random_trace(3, 6, blocks=[])
    assert [step.key for step in tour.steps(run)] == ["replay", "panels", "yours", "more"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_equal_loops_make_no_hard_word(lang: str) -> None:
    run = random_trace(5, 12, strategy="fixed_count")
    keys = [step.key for step in tour.steps(run)]
    assert "text" in keys
    assert not {"hard", "curve", "map", "path"} & set(keys)
    known = tour.facts(run, lang)
    for step in tour.steps(run):
        assert plain(tour.played(step, known, lang))


@pytest.mark.parametrize(
    "what", [{}, {"top_k": 0}, {"record": "off"}, {"blocks": [(0, 0), (2, 3)]}, {"prompt_tokens": 9}]
)
@pytest.mark.parametrize("seed", range(3))
def test_any_run_gets_a_tour_that_is_filled_in(seed: int, what: dict[str, Any]) -> None:
    run = random_trace(seed, 10, **{"strategy": "dynamic_stop", "max_steps": 8, **what})
    for lang in LANGUAGES:
        known = tour.facts(run, lang)
        for step in tour.steps(run):
            shown = tour.played(step, known, lang)
            Focus.from_json(shown["focus"])
            assert shown["shown"] is None or 1 <= shown["shown"] <= len(run)
            assert json.dumps(shown)


def test_a_token_is_text_whatever_it_is() -> None:
    pieces = tour._pieces("read “{hard_text}” ([loop](#loop_step))", {"hard_text": "[x](#kl) {y}"})
    assert pieces == ["read “[x](#kl) {y}” (", ["loop", "loop_step"], ")"]


# --- the steps fit the page -------------------------------------------------------------------------------------------


def _page() -> str:
    """Everything that gives the page its ids and classes."""
    made = [path.read_text(encoding="utf-8") for path in WEB.rglob("*.js")]
    return "".join(made) + (first_run.FILE.parents[2] / "loopviz/app/explore/layout.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.key)
def test_a_step_points_at_something_of_the_page(step: Step) -> None:
    page = _page()
    for panel in re.findall(r'\[data-panel="(\w+)"\]', step.target):
        assert panel in PANELS
        assert panel in step.panels, "a panel that is explained is on"
    for kind in re.findall(r"\.([\w-]+)", step.target):
        assert re.search(rf'"[^"]*\b{kind}\b[^"]*"', page), kind
    for name in re.findall(r"#([\w-]+)", step.target):
        assert re.search(rf'["`]{name}(?:["`]|\$)', page), name


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.key)
def test_a_step_says_the_same_in_both_languages(step: Step) -> None:
    places, links = {}, {}
    for lang in LANGUAGES:
        said = step.said(lang)
        assert said.title.strip()
        assert re.search(r"[\u4e00-\u9fff]", said.title + said.words) if lang == "zh" else said.words.isprintable()
        bare = tour._LINK.sub(r"\1", said.words)
        assert "[" not in bare
        assert not re.search(r"\d", bare), "a number of a run is a fact, not text"
        places[lang] = {name for _, name, _, _ in string.Formatter().parse(said.words) if name}
        links[lang] = {link[1] for link in tour._LINK.findall(said.words)}
        assert len(said.words) < 560, "short steps"
    assert places["en"] == places["zh"]
    assert links["en"] == links["zh"] <= BY_KEY.keys()
    assert set(step.claims) <= tour.CLAIMS.keys()


def test_the_tour_does_things() -> None:
    """It moves the slider, plays, holds a word and a loop, pins, changes choices, switches a panel on."""
    focus = [dict(step.focus) for step in STEPS]
    assert any(step.play for step in STEPS)
    assert any(step.shown and not step.play for step in STEPS)
    for name in ("token", "step", "pins", "metric"):
        assert any(name in asked for asked in focus), name
    assert any("@" in panel for step in STEPS for panel in step.panels)
