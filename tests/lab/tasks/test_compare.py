"""Configurations side by side: every number of a row against a slower, obvious way to it; stopping; curves; the plot."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.engine import run as run_engine
from loopviz.engine.work import NOTHING, Shape
from loopviz.lab import TASKS, Experiment, Subject
from loopviz.lab.comparison import sides, table, together
from loopviz.lab.comparison.curves import VIEWS, edits, empty, figures
from loopviz.lab.comparison.result import Result
from loopviz.lab.comparison.table import AXES, BETTER, COLUMNS, front, heading, label_places, pareto
from loopviz.lab.comparison.together import beside, held
from loopviz.lab.tasks import compare
from loopviz.lab.tasks.compare import CompareParams, Comparison
from loopviz.model import LoopCache, LoopLlamaConfig, LoopLlamaForCausalLM
from loopviz.model.exit_gate import ExitGate
from loopviz.model.shared_pass import SharedPass
from loopviz.panels import apply
from loopviz.prompt_templates import written
from loopviz.trace.recording.recorder import KVMeter
from tests.conftest import make_llama
from tests.engine import tiny

PROMPT, AFTER = "Once upon a time", " there was a little loop"
SERIAL = {
    "loop_layers": (1, 1),
    "loop_count": 3,
    "virtual_layer_count": 3,
    "virtual_attention_mode": "serial",
    "kv_cache_mode": "virtual_layers",
}
ONE_SLOT = {**SERIAL, "virtual_layer_count": 1}
EMA = {"loop_layers": (0, 1), "loop_count": 3, "kv_cache_mode": "merge_strategy", "merge_strategy": "ema"}


@pytest.fixture(scope="module")
def subject(tiny_tokenizer):
    plain = make_llama()
    model = LoopLlamaForCausalLM(LoopLlamaConfig(**{**plain.config.to_dict(), "model_type": "loop_llama"})).eval()
    model.load_state_dict(plain.state_dict())
    with torch.no_grad():
        model.lm_head.weight[1] = 0  # a logit of 0 is never the highest: no text ends early
    return Subject(model, tiny_tokenizer, "tiny", "made here")


def compared(subject, loops, **more):
    params = CompareParams(
        prompt=PROMPT,
        names=tuple(f"c{i}" for i in range(len(loops))),
        loops=tuple(loops),
        **{"max_new_tokens": 8, **more},
    )
    return Comparison(subject, params)


def rows_of(comparison):
    return {event.setup: event.row for event in comparison.events() if event.row is not None}


@pytest.fixture(scope="module")
def whole(subject):
    """A comparison with a continuation, run to its end, and its rows."""
    comparison = compared(subject, [None, SERIAL, ONE_SLOT, EMA], continuation=AFTER)
    return comparison, rows_of(comparison)


def full_logits(subject, loop, ids):
    with torch.inference_mode():
        return subject.view(loop)(torch.tensor([ids]), use_cache=False).logits[0].float()


def ids_of(subject, text):
    return subject.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_where_the_cache_loses_nothing_its_error_is_nothing(whole):
    rows = whole[1]
    assert rows[0]["fidelity_worst"] < 1e-5
    assert rows[1]["fidelity_worst"] < 1e-5
    for lossy in (2, 3):
        assert rows[lossy]["fidelity_worst"] >= rows[lossy]["fidelity_mean"] > 1e-4
        assert rows[lossy]["worst_token"] in AFTER


@pytest.mark.parametrize(("place", "loop"), [(0, None), (1, SERIAL)])
def test_perplexity_there_is_that_of_one_full_pass(subject, whole, place, loop):
    ids = ids_of(subject, PROMPT) + (after := ids_of(subject, AFTER))
    logprobs = full_logits(subject, loop, ids).log_softmax(-1)
    nats = [-float(logprobs[len(ids) - len(after) + n - 1, token]) for n, token in enumerate(after)]
    assert whole[1][place]["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)


def test_agreement_is_the_share_of_the_baseline_s_tokens_that_are_likeliest_here(subject, whole):
    comparison, rows = whole
    greedy = comparison.results[0].ids
    assert rows[0]["agreement"] == 1
    logits = full_logits(subject, SERIAL, ids_of(subject, PROMPT) + greedy)
    likeliest = logits[len(ids_of(subject, PROMPT)) - 1 : -1].argmax(-1).tolist()
    same = [one == other for one, other in zip(likeliest, greedy, strict=True)]
    assert rows[1]["agreement"] == sum(same) / len(same) < 1


def test_a_loop_step_chosen_token_by_token_is_compared_by_the_fields_of_its_loop(subject):
    """Which state is read out: the last, where the gate says enough, or all by its weights."""
    gate = ExitGate(subject.model.config.hidden_size).requires_grad_(False)
    gate.weight.normal_(0, 1, generator=torch.Generator().manual_seed(2))
    view = subject.model.with_loop()
    view.model.spare_gates = {"0": gate}
    gated = replace(subject, model=view)
    ends = {
        **SERIAL,
        "loop_layers": (1, subject.model.config.num_hidden_layers - 1),
    }  # weights may choose at the end alone
    loops = [{**ends, **one} for one in ({}, {"exit_selection": "gate", "exit_threshold": 0.5},
                                         {"exit_selection": "gate_weighted"})]  # fmt: skip
    rows = rows_of(compared(gated, loops, continuation=AFTER))
    ids = ids_of(subject, PROMPT) + (after := ids_of(subject, AFTER))
    for place, loop in enumerate(loops):
        logprobs = full_logits(gated, loop, ids).log_softmax(-1)
        nats = [-float(logprobs[len(ids) - len(after) + n - 1, token]) for n, token in enumerate(after)]
        assert rows[place]["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)
    assert len({round(row["perplexity"], 4) for row in rows.values()}) == 3


def test_what_a_gate_chose_is_told_beside_how_many_loops_ran(subject):
    """All loops run whatever it chooses: every row said 3."""
    gate = ExitGate(subject.model.config.hidden_size).requires_grad_(False)
    gate.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    view = subject.model.with_loop()
    view.model.spare_gates = {"0": gate}
    gated = replace(subject, model=view)
    by_gate = [{**SERIAL, "exit_selection": "gate", "exit_threshold": one} for one in (0.2, 1.0)]
    weighted = {
        **SERIAL,
        "loop_layers": (1, subject.model.config.num_hidden_layers - 1),
        "exit_selection": "gate_weighted",
    }
    comparison = compared(gated, [SERIAL, *by_gate, weighted])
    rows = rows_of(comparison)
    assert [row["loops_mean"] for row in rows.values()] == [3] * 4
    assert rows[0]["read_out_mean"] is None
    chosen = {}
    for place, loop in ((1, by_gate[0]), (2, by_gate[1]), (3, weighted)):
        trace = run_engine(gated.view(loop), subject.tokenizer, PROMPT, comparison.params.settings())
        gates = [frame["blocks"][0]["gate"] for frame in trace.frames[trace.meta["prompt_tokens"] - 1 :]]
        chosen[place] = gates
        steps = [gate["read_out"] or sum(r * p for r, p in enumerate(gate["p"], 1)) for gate in gates]
        assert rows[place]["read_out_mean"] == pytest.approx(sum(steps) / len(steps), abs=1e-4)
    assert rows[1]["read_out_mean"] < rows[2]["read_out_mean"], "a lower threshold reads out earlier"
    assert all(gate["read_out"] is None for gate in chosen[3])


def test_a_lossy_cache_is_scored_as_a_run_reads_it(subject, whole):
    """One text at a time, prompt first and then token by token: what the batch of both texts must say too."""
    comparison, rows = whole
    prompt = ids_of(subject, PROMPT)
    found = {}
    for name, ids in (("after", ids_of(subject, AFTER)), ("greedy", comparison.results[0].ids)):
        view = subject.view(EMA)
        cache, said, new = LoopCache(view.config), [], prompt
        for token in ids:
            with torch.inference_mode():
                logits = view(torch.tensor([new]), past_key_values=cache, use_cache=True).logits[0, -1].float()
            said.append((-float(logits.log_softmax(-1)[token]), int(logits.argmax()) == token))
            new = [token]
        found[name] = said
    nats = [loss for loss, _ in found["after"]]
    assert rows[3]["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)
    chosen = [same for _, same in found["greedy"]]
    assert rows[3]["agreement"] == sum(chosen) / len(chosen)
    full = full_logits(subject, EMA, prompt + comparison.results[0].ids)[len(prompt) - 1 : -1].argmax(-1).tolist()
    exact = [one == other for one, other in zip(full, comparison.results[0].ids, strict=True)]
    assert sum(exact) != sum(chosen), "with this cache it makes a difference"


def test_the_text_the_loops_and_the_cache_are_those_of_a_run(subject, whole):
    comparison, rows = whole
    trace = run_engine(subject.view(EMA), subject.tokenizer, PROMPT, comparison.params.settings())
    result, row = comparison.results[3], rows[3]
    assert PROMPT + "".join(result.pieces) == trace.text
    assert (row["loops_mean"], row["loops_max"], row["stops"]) == (3, 3, "count 8")
    assert row["kv_bytes_per_token"] == trace.frames[-1]["kv"]["bytes_used"] / len(trace)
    assert (row["new_tokens"], row["finish"]) == (8, "length")
    assert row["tokens_per_second"] == pytest.approx(1000 / row["ms_per_token"])
    assert (rows[0]["loops_mean"], rows[0]["stops"]) == (1, "plain")
    assert rows[1]["kv_bytes_per_token"] > row["kv_bytes_per_token"]


@pytest.fixture
def passes(monkeypatch):
    """How many rows each shared pass had."""
    rows, plain = [], SharedPass.run

    def counted(self, some):
        rows.append(len(some))
        return plain(self, some)

    monkeypatch.setattr(SharedPass, "run", counted)
    return rows


def test_texts_of_one_model_share_passes_and_their_rows_are_those_of_each_alone(subject, passes, monkeypatch):
    frames, stream = [], sides.stream

    def watched(*args, **more):
        for frame in stream(*args, **more):
            frames.append(frame)
            yield frame

    monkeypatch.setattr(sides, "stream", watched)
    loops = [None, SERIAL, EMA]
    more = {"continuation": AFTER, "do_sample": True, "seed": 5, "max_new_tokens": 6}
    comparison = compared(subject, loops, **more)
    rows = rows_of(comparison)
    assert passes == [3] * 5, "the first token is chosen by each one's prompt pass"
    timed = [frame["pass_runs"] for frame in frames if frame["phase"] == "generated"]
    assert set(timed) == {1}, "what is timed, it and nothing else is read at that time"
    assert len(timed) == 3 * 5 + 5, "each one's tokens again, and the baseline's greedy ones"
    alone = compared(subject, loops, **more)
    monkeypatch.setattr(compare, "fits", lambda texts, *_: not texts)
    for i, row in rows_of(alone).items():
        for name, value in row.items():
            if name not in ("ms_per_token", "tokens_per_second"):
                assert rows[i][name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name
        assert row["ms_per_token"]
        assert comparison.results[i].ids == alone.results[i].ids
    assert passes == [3] * 5, "no more than before"


def test_events_tell_that_a_text_waits_to_be_timed(subject):
    told = [
        (event.setup, event.stage) for event in compared(subject, [None, EMA], max_new_tokens=4).events() if event.stage
    ]
    order = list(dict.fromkeys(told))
    assert order.index((1, "written")) < order.index((0, "timing")) < order.index((1, "timing"))
    assert (0, "written") not in {(event.setup, event.stage) for event in compared(subject, [None]).events()}


def test_what_has_more_keys_and_values_than_texts_may_hold_together_is_written_alone(subject, passes, monkeypatch):
    prompt, new = len(ids_of(subject, PROMPT)), 8
    each = [held(Shape.of(subject.view(loop).config, 4), prompt, new) for loop in (None, SERIAL, EMA)]
    monkeypatch.setattr(together, "HELD", each[0] + each[2])
    rows = rows_of(compared(subject, [None, SERIAL, EMA]))
    assert [*rows] == [0, 2, 1], "the two that fit, then the other"
    assert passes == [2] * 7
    shapes = [Shape.of(subject.view(loop).config, 4) for loop in (None, SERIAL, EMA)]
    assert beside(shapes, prompt, new).kv == together.HELD
    assert beside(shapes[:1], prompt, new) == NOTHING
    params = CompareParams(prompt=PROMPT, names=("a", "b"), loops=(None, EMA), max_new_tokens=new)
    assert TASKS["compare"].work(subject, params).kv >= each[0] + each[2]


@pytest.mark.parametrize("stopped", [(0,), (0, 1)])
def test_a_pass_that_texts_share_is_left_only_when_all_of_them_are_stopped(subject, passes, stopped):
    comparison = compared(subject, [None, SERIAL])
    begun = []

    def layer_begins(*_):
        begun.append(len(passes))
        if begun.count(2) == 2:  # in the second shared pass
            for i in stopped:
                comparison.stops[i].set()

    handles = [layer.register_forward_pre_hook(layer_begins) for layer in subject.model.model.layers]
    try:
        rows = rows_of(comparison)
    finally:
        for handle in handles:
            handle.remove()
    assert [(rows[i]["new_tokens"], rows[i]["finish"]) for i in stopped] == [(2, "stopped")] * len(stopped)
    if stopped == (0, 1):
        assert begun.count(2) == 2, "no layer begins after it"
    else:
        assert (rows[1]["new_tokens"], rows[1]["finish"]) == (8, "length")
        assert rows[1]["ms_per_token"]


def test_texts_that_are_all_stopped_while_their_pass_is_recorded_end_there(subject, passes, monkeypatch):
    """The stop that nobody had set before the pass was found by its recorder, and the comparison failed."""
    comparison, plain = compared(subject, [None, SERIAL]), KVMeter.frames

    def stopped(self, *args):
        if len(passes) == 2:
            for stop in comparison.stops:
                stop.set()
        return plain(self, *args)

    monkeypatch.setattr(KVMeter, "frames", stopped)
    rows = rows_of(comparison)
    assert [(row["new_tokens"], row["finish"]) for row in rows.values()] == [(2, "stopped")] * 2


def test_a_sampled_baseline_is_still_compared_by_its_greedy_tokens(subject):
    comparison = compared(subject, [None, SERIAL], do_sample=True, temperature=3.0, seed=3, max_new_tokens=6)
    rows = rows_of(comparison)
    greedy = run_engine(subject.view(None), subject.tokenizer, PROMPT, CompareParams(max_new_tokens=6).settings())
    assert comparison.greedy == [frame["next_id"] for frame in greedy.frames][-6:]
    assert comparison.results[0].ids != comparison.greedy
    assert rows[0]["agreement"] == 1
    assert rows[0]["perplexity"] is None, "no continuation was given"
    assert rows[0]["fidelity_mean"] is not None


def test_the_baseline_may_be_any_and_comes_first(subject):
    comparison = compared(subject, [None, EMA, SERIAL], baseline=1, max_new_tokens=3)
    assert comparison.order == [1, 0, 2]
    rows = rows_of(comparison)
    assert [*rows] == [1, 0, 2]
    assert [rows[i]["baseline"] for i in range(3)] == [False, True, False]
    assert rows[1]["agreement"] == 1
    assert rows[1]["same_until"] == 3


def test_one_can_be_stopped_and_the_others_go_on(subject):
    comparison = compared(subject, [None, EMA, SERIAL], continuation=AFTER)
    comparison.stops[2].set()  # before it began
    rows = {}
    for event in comparison.events():
        if event.setup == 1 and event.kind == "token" and event.done == 2:
            comparison.stops[1].set()
        if event.row is not None:
            rows[event.setup] = event.row
    assert rows.keys() == {0, 1}
    assert rows[0]["perplexity"] is not None
    assert (rows[1]["new_tokens"], rows[1]["finish"]) == (2, "stopped")
    assert rows[1]["perplexity"] is None
    assert rows[1]["loops_mean"] == 3


def test_what_is_refused_says_why_and_does_not_stop_the_others(subject):
    comparison = compared(subject, [None, {"loop_layers": (1, 7)}, SERIAL], max_new_tokens=2)
    events = list(comparison.events())
    [refused] = [event for event in events if event.kind == "refused"]
    assert refused.setup == 1
    assert "layer 7" in refused.reason
    assert {event.setup for event in events if event.row} == {0, 2}
    params = comparison.params
    with pytest.raises(ValueError, match=r"c1: .*layer 7"):
        list(TASKS["compare"].run(subject, params))


def test_the_task_s_table_has_the_columns_it_says(subject):
    params = CompareParams(prompt=PROMPT, names=("a", "b"), loops=(None, EMA), max_new_tokens=4)
    experiment = Experiment(TASKS["compare"], subject, params).run()
    assert list(experiment.frame.columns) == [column.name for column in COLUMNS]
    assert len(experiment.frame) == experiment.total == 2
    figure = TASKS["compare"].plot(experiment.frame, "zh")
    assert {trace.name for trace in figure.data} >= {"a", "b"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"loops": ()}, "loops"),
        ({"names": ("a",)}, "names"),
        ({"names": ("a", "a")}, "names"),
        ({"baseline": 2}, "baseline=2"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_parameters_that_cannot_be_are_refused_by_name(wrong, said):
    with pytest.raises(ValueError, match=said):
        CompareParams(**wrong)


def test_a_continuation_past_the_context_is_refused_before_anything_runs(subject):
    with pytest.raises(ValueError, match=r"continuation: .*128 tokens"):
        compared(subject, [None], continuation=" and again" * 80)


def test_differences_are_what_is_not_in_common():
    result = Result(ids=[5, 6, 9, 7, 8])
    result.against([5, 6, 7, 8])
    assert result.differs == [False, False, True, False, False]
    assert result.same_until == 2
    result.against([5, 6, 9, 7, 8])
    assert not any(result.differs)
    assert result.same_until == 5


# --- curves ----------------------------------------------------------------------------------------------------------


def test_folding_the_edits_gives_the_figures(subject):
    comparison = compared(subject, [None, SERIAL, EMA], max_new_tokens=5)
    names, places = comparison.params.names, [0, 3, 4]
    folded = {view: empty(names, "en", view, places) for view in VIEWS}
    known = [0, 0, 0]

    def fold(i):
        for view in VIEWS:
            for figure, ops in edits(i, comparison.results[i], known[i], view).items():
                apply(folded[view][figure], ops)
        known[i] = len(comparison.results[i].ids)

    for n, event in enumerate(comparison.events()):
        if n % 3:  # several tokens at once as well as one
            fold(event.setup)
    for i in range(3):
        fold(i)
    for view in VIEWS:
        assert folded[view] == figures(names, comparison.results, "en", view, places)
    assert [len(line["y"]) for line in folded["kl"]["convergence"]["data"]] == [0, 3, 3]
    assert folded["kl"]["loops"]["data"][1]["y"] == [3] * 5


# --- the plot --------------------------------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7)


@settings(max_examples=15, deadline=None)
@given(POINTS)
def test_the_front_holds_exactly_what_nothing_beats(points):
    x, y = "ms_per_token", "agreement"  # low is better, high is better
    kept = front(points, x, y)
    beaten = {
        i
        for (i, one), other in itertools.product(enumerate(points), points)
        if other[0] <= one[0] and other[1] >= one[1] and other != one
    }
    assert set(kept) == set(range(len(points))) - beaten
    assert [points[i][0] for i in kept] == sorted(points[i][0] for i in kept)


def test_names_of_near_points_do_not_overlap():
    assert label_places([(0, 0), (10, 1), (10.5, 1.01), (9.9, 0.99), (5, 0.5)]) == [
        "top center", "top center", "bottom center", "middle left", "top center"
    ]  # fmt: skip
    assert label_places([(1, 1)] * 2) == ["top center", "bottom center"]
    assert label_places([]) == []


def test_the_plot_says_which_way_is_better_and_who_has_no_value():
    base = dict.fromkeys([column.name for column in COLUMNS])
    rows = [{**base, "setup": "<b>", "ms_per_token": 3.0, "agreement": 0.5}, {**base, "setup": "none"}]
    made = pareto(rows, "ms_per_token", "agreement", "en", [0, 4])
    assert "lower is better" in made["layout"]["xaxis"]["title"]["text"]
    bytes_of = {
        lang: pareto(rows, "memory_bytes", "agreement", lang)["layout"]["xaxis"]["title"]["text"]
        for lang in ("en", "zh")
    }
    assert bytes_of == {"en": "memory at the end, bytes (lower is better)", "zh": "结束时的记忆（字节）（越低越好）"}
    assert "higher is better" in made["layout"]["yaxis"]["title"]["text"]
    assert made["data"][1]["text"] == ["&lt;b&gt;"]
    assert "none" in made["layout"]["annotations"][0]["text"]
    with pytest.raises(ValueError, match="stops"):
        pareto(rows, "stops", "agreement", "en")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_column_has_a_heading_and_every_axis_a_better(lang):
    headings = [heading(column.name, lang) for column in COLUMNS]
    assert len(set(headings)) == len(headings)
    assert all(len(head) < 34 for head in headings), "a heading is what comes before the colon"
    assert set(AXES) == set(BETTER)


def test_a15_the_plot_opens_where_looping_can_win():
    """Agreement with a plain baseline and its time are won by the plain model by definition."""
    base = dict.fromkeys([column.name for column in COLUMNS])
    rows = pd.DataFrame([{**base, "setup": "a", "kv_bytes_per_token": 8.0, "perplexity": 3.0, "ms_per_token": 1.0}])
    assert "KV" in table.plot(rows, "en").layout.xaxis.title.text
    assert "perplexity" in table.plot(rows, "en").layout.yaxis.title.text
    wordless = rows.assign(perplexity=None, agreement=1.0)
    assert "ms" in table.plot(wordless, "en").layout.xaxis.title.text


def test_a15_every_column_but_the_name_is_in_one_group():
    grouped = [name for names in table.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(column.name for column in COLUMNS if column.name != "setup")


def test_every_configuration_reads_the_prompt_in_its_template():
    model, tokenizer = tiny.model(context=512, loop_layers=(1, 2)), tiny.tokenizer()
    params = CompareParams(prompt="Say it.", template="alpaca", input="a dog", max_new_tokens=2)
    compared = Comparison(Subject(model, tokenizer, "tiny", "here"), params)
    assert tokenizer.decode(compared.prompt) == written("alpaca", "Say it.", "a dog")
    with pytest.raises(ValueError, match=r"^template='alpaca': chat=True is template='chat'"):
        CompareParams(prompt="Say it.", template="alpaca", chat=True)
