"""Runs that share passes write what they write alone; each ends by its own stop, and alone falls to nobody."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopviz.engine import StreamSettings, batch, stream
from loopviz.engine.engine import Request
from loopviz.engine.local import LocalEngine
from loopviz.engine.many import stream_many
from loopviz.engine.single_run import Run
from loopviz.engine.steering import Steering
from loopviz.model import LoopCache, register_criterion
from loopviz.model.shared_pass import SharedPass
from loopviz.trace import Frame, check_frame
from loopviz.trace.schema import decode_states
from tests.engine import tiny
from tests.engine.test_stream import LOOPS, SAMPLING
from tests.model.choosing import registered

PROMPTS = ("Once 🙂 upon 从前", "the dog", "a small dog. there was", "从")
TIMES = ("pass_runs", "pass_ms", "wall_ms", "parts", "memory")


def alike(one: Any, other: Any, where: str = "frame") -> None:
    """Two runs' frames say the same, but for times and rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            if name not in TIMES and name != "ms":
                alike(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            alike(a, b, f"{where}[{i}]")
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-4), where
    elif where.endswith(".states") and one is not None:
        assert decode_states(other, 32) == pytest.approx(decode_states(one, 32), rel=2e-3, abs=2e-3), where  # float16
    else:
        assert one == other, where


def made(tokenizer: Any, view: Any, prompt: str, chosen: StreamSettings, steering: Steering | None = None) -> Run:
    steering = steering or Steering()
    steering.bind(view)
    return Run(view, tokenizer, tokenizer(prompt)["input_ids"], chosen, steering)


class Together:
    """Runs read in one thread, in passes that those of them share which are told to."""

    def __init__(self, model: Any) -> None:
        self.passes = SharedPass(model)

    def begin(self, run: Run, prompt: str) -> list[Frame]:
        return list(run.read(tiny.tokenizer()(prompt)["input_ids"]))

    def read(self, runs: list[Run], tokens: list[int]) -> list[Frame]:
        tickets = [batch.Ticket(run, token, run.turn()) for run, token in zip(runs, tokens, strict=True)]
        batch.read_shared(self.passes, tickets)
        assert not any(ticket.alone or ticket.error for ticket in tickets)
        return [ticket.frame for ticket in tickets]


SHARED = {name: loop for name, loop in LOOPS.items() if "layer_chooser" not in loop} | {
    "both": {
        "loop_layers": (1, 3),
        "loop_strategy": "dynamic_stop",
        "convergence_criterion": "both",
        "max_loop_count": 6,
    },
    "as Huginn stops": {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "convergence_criterion": "huginn_kl",
        "criterion_threshold": 0.05,
        "max_loop_count": 7,
    },
    "average": {
        "loop_layers": (2, 3),
        "loop_count": 5,
        "kv_cache_mode": "merge_strategy",
        "merge_strategy": "average",
        "loop_init": "random",
        "loop_init_std": 0.5,
    },
    "normed": {"loop_layers": (1, 4), "loop_count": 3, "loop_final_norm": "every_step", "loop_damping": 0.7},
    "normed last": {"loop_layers": (1, 2), "loop_count": 2, "loop_final_norm": "last_step"},
}


@st.composite
def plans(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = []
    for _ in range(draw(st.integers(2, 5))):
        full = draw(st.booleans())
        rows.append(
            {
                "loop": draw(st.sampled_from(sorted(SHARED))),
                "prompt": draw(st.sampled_from(PROMPTS)),
                "begins": draw(st.integers(0, 4)),
                "settings": {
                    "max_new_tokens": draw(st.integers(2, 8)),
                    "record": "full" if full else "off",
                    "top_tokens": draw(st.integers(1, 5)),
                    "extras": draw(st.sampled_from(((), ("exit",), ("keys",), ("exit", "keys")))) if full else (),
                    **SAMPLING[draw(st.sampled_from(sorted(SAMPLING)))],
                },
                "steered": draw(st.booleans()),
            }
        )
    return rows


def steered(row: dict[str, Any], at: int) -> Steering:
    steering = Steering()
    loop = SHARED[row["loop"]]
    if row["steered"] and isinstance(loop.get("loop_count"), int):
        steering.set_loop(token=at + 2, loop_damping=0.6)
    return steering


@settings(max_examples=15, deadline=None)
@given(plans())
def test_runs_that_share_passes_say_what_they_say_alone(rows):
    model, tokenizer = tiny.model(seed=1).double(), tiny.tokenizer()
    together, frames, runs = Together(model), [[] for _ in rows], {}
    lengths = [len(tokenizer(row["prompt"])["input_ids"]) for row in rows]
    turn = 0
    while turn < 5 or runs:
        for i, row in enumerate(rows):
            if row["begins"] == turn:
                view, chosen = model.with_loop(**SHARED[row["loop"]]), StreamSettings(**row["settings"])
                runs[i] = made(tokenizer, view, row["prompt"], chosen, steered(row, lengths[i]))
                frames[i] += together.begin(runs[i], row["prompt"])
        going = [i for i in runs if frames[i][-1]["finish"] is None]
        if len(going) > 0:
            read = together.read([runs[i] for i in going], [frames[i][-1]["next_id"] for i in going])
            for i, frame in zip(going, read, strict=True):
                frames[i].append(frame)
        for i in [i for i in runs if frames[i][-1]["finish"] is not None]:
            runs.pop(i).close()
        turn += 1
    for i, row in enumerate(rows):
        view, steering = model.with_loop(**SHARED[row["loop"]]), steered(row, lengths[i])
        alone = list(stream(view, tokenizer, row["prompt"], StreamSettings(**row["settings"]), steering=steering))
        alike(alone, frames[i])
        for frame in frames[i]:
            check_frame(frame, hidden=32)


@pytest.mark.parametrize("loop", SHARED)
def test_logits_and_caches_are_those_of_each_run_alone(loop):
    model = tiny.model(seed=3)
    views = [model.with_loop(**SHARED[name]) for name in (loop, *SHARED)]
    prompts = torch.randint(0, 290, (len(views), 5), generator=torch.Generator().manual_seed(1))
    caches = [[LoopCache(view.config) for view in views] for _ in range(2)]
    passes = SharedPass(model)
    with torch.inference_mode():
        for side in caches:
            for view, cache, prompt in zip(views, side, prompts, strict=True):
                view.model(input_ids=prompt[None, : 3 + len(cache.layers) % 3], past_key_values=cache, use_cache=True)
        from loopviz.model.shared_pass import PassRow

        for token in range(4):
            alone, reports = [], []
            for view, cache in zip(views, caches[0], strict=True):
                alone.append(view(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[0])
                reports.append(view.last_pass)
            rows = [PassRow(view, cache, token) for view, cache in zip(views, caches[1], strict=True)]
            together = model.lm_head(passes.run(rows))
            torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=1e-4)
            for view, report, one, other in zip(views, reports, *caches, strict=True):
                assert view.last_pass.reasons == report.reasons
                assert [n.tolist() for n in view.last_pass.steps] == [n.tolist() for n in report.steps]
                assert one.occupancy() == other.occupancy()


def test_a_gate_reads_out_in_a_shared_pass_what_it_reads_out_alone():
    base = tiny.model(
        seed=3,
        loop_layers=(1, tiny.model().config.num_hidden_layers - 1),
        loop_count=4,
        exit_selection="gate",
        exit_threshold=0.5,
    )
    with torch.no_grad():
        gate = base.model.loop_gates["0"]
        gate.weight.copy_(torch.randn(gate.weight.shape, generator=torch.Generator().manual_seed(2)))
    asked = [{"exit_threshold": 0.3}, {"exit_threshold": 0.9}, {"exit_selection": "gate_weighted"}, {"loop_count": 2}]
    tokenizer, chosen = tiny.tokenizer(), StreamSettings(max_new_tokens=6, extras=("exit",))
    alone = [list(stream(base.with_loop(**loop), tokenizer, PROMPTS[0], chosen)) for loop in asked]
    together = Together(base)
    runs = [made(tokenizer, base.with_loop(**loop), PROMPTS[0], chosen) for loop in asked]
    frames = [together.begin(run, PROMPTS[0]) for run in runs]
    for _ in range(5):
        read = together.read(runs, [one[-1]["next_id"] for one in frames])
        for one, frame in zip(frames, read, strict=True):
            one.append(frame)
    for one, other in zip(alone, frames, strict=True):
        alike(one, other)
    told = [[frame["next_logprob"] for frame in one] for one in alone]
    assert len({str(one) for one in told}) == len(asked), "each reads out something else"


# -- through an engine, in threads ---------------------------------------------------------------------------------------


def engine(**loop: Any) -> LocalEngine:
    return LocalEngine("tiny", tiny.model(seed=1, **loop), tiny.tokenizer())


@pytest.fixture
def shared_rows(monkeypatch) -> list[int]:
    """How many rows each shared pass had."""
    counts: list[int] = []
    plain = SharedPass.run

    def counted(self: SharedPass, rows: Any) -> Any:
        counts.append(len(rows))
        return plain(self, rows)

    monkeypatch.setattr(SharedPass, "run", counted)
    return counts


def read_all(handles: list[Any]) -> list[list[Frame]]:
    """Every run's frames, each taken by a thread of its own; none goes on before all have begun."""
    begun = threading.Barrier(len(handles))

    def read(handle: Any) -> list[Frame]:
        first = next(handle.frames)
        begun.wait(60)
        return [first, *handle.frames]

    with ThreadPoolExecutor(len(handles)) as pool:
        return list(pool.map(read, handles))


def test_runs_of_an_engine_at_once_say_what_each_says_alone(shared_rows):
    of_tiny = engine()
    asked = [
        Request(prompt, SHARED[name], {"max_new_tokens": 24, "do_sample": i % 2 == 1, "seed": i})
        for i, (prompt, name) in enumerate(zip(PROMPTS, ("serial", "parallel", "ema", "dynamic"), strict=True))
    ]
    alone = [list(of_tiny.start(request).frames) for request in asked]
    assert not shared_rows  # a run alone shares nothing
    assert {frame["pass_runs"] for frames in alone for frame in frames} == {1}
    together = read_all([of_tiny.start(request) for request in asked])
    for one, other in zip(alone, together, strict=True):
        alike([frame["token_id"] for frame in one], [frame["token_id"] for frame in other])
    assert max(shared_rows) > 1
    # every frame says how many runs shared its pass: as many frames say "three" as passes of three had rows
    said = Counter(frame["pass_runs"] for frames in together for frame in frames)
    del said[1]
    assert said == {rows: rows * count for rows, count in Counter(shared_rows).items()}


def test_a_run_alone_is_bit_for_bit_what_stream_makes():
    of_tiny = engine(**LOOPS["serial"])
    frames = list(of_tiny.start(Request("the dog", {}, {"max_new_tokens": 6})).frames)
    plain = list(stream(of_tiny.model, of_tiny.tokenizer, "the dog", StreamSettings(max_new_tokens=6)))
    for a, b in zip(frames, plain, strict=True):
        for frame in (a, b):
            for name in TIMES:
                frame.pop(name)
            for block in frame["blocks"]:
                block["steps"].pop("ms")
        assert a == b


def test_a_stop_ends_one_run_within_a_token_and_the_others_go_on():
    of_tiny = engine(**LOOPS["serial"])
    handles = [of_tiny.start(Request(prompt, {}, {"max_new_tokens": 60})) for prompt in PROMPTS[:3]]
    after_stop: list[Frame] = []

    def stopped(handle: Any) -> int:
        seen = 0
        for frame in handle.frames:
            seen += frame["phase"] == "generated"
            if seen == 5 and not after_stop:
                handle.stop()
                after_stop.append(frame)
            elif after_stop:
                after_stop.append(frame)
        return seen

    with ThreadPoolExecutor(3) as pool:
        ended, *others = [pool.submit(stopped, handles[0]), *(pool.submit(list, h.frames) for h in handles[1:])]
        assert ended.result() == 5
        assert all(other.result()[-1]["finish"] == "length" for other in others)
    assert len(after_stop) == 1


def test_a_run_that_fails_falls_to_nobody_else():
    @register_criterion("fails_in_batch", replace=True)
    def fails(context: Any) -> torch.Tensor:
        if context.state.shape[1] == 1:
            raise RuntimeError("this criterion's own")
        return torch.zeros(context.state.shape[0], dtype=torch.bool)

    of_tiny = engine()
    good = [Request(prompt, SHARED["serial"], {"max_new_tokens": 20}) for prompt in PROMPTS[:2]]
    bad = Request("the dog", {**LOOPS["dynamic"], "convergence_criterion": "fails_in_batch"}, {"max_new_tokens": 20})
    alone = [[frame["next_id"] for frame in of_tiny.start(request).frames] for request in good]
    handles = [of_tiny.start(request) for request in (*good, bad)]
    with ThreadPoolExecutor(3) as pool:
        *well, failed = [pool.submit(list, handle.frames) for handle in handles]
        with pytest.raises(RuntimeError, match="this criterion's own"):
            failed.result()
        assert [[frame["next_id"] for frame in one.result()] for one in well] == alone


def test_a_run_whose_sampler_fails_ends_alone(monkeypatch):
    model, tokenizer = tiny.model(seed=1, **LOOPS["serial"]), tiny.tokenizer()
    runs = [made(tokenizer, model.with_loop(), prompt, StreamSettings(max_new_tokens=9)) for prompt in PROMPTS[:3]]
    together = Together(model)
    tokens = [together.begin(run, prompt)[-1]["next_id"] for run, prompt in zip(runs, PROMPTS, strict=False)]
    monkeypatch.setattr(runs[1].sampler, "choose", lambda logits: 1 // 0)
    tickets = [batch.Ticket(run, token, run.turn()) for run, token in zip(runs, tokens, strict=True)]
    batch.read_shared(together.passes, tickets)
    assert [type(ticket.error) for ticket in tickets] == [type(None), ZeroDivisionError, type(None)]
    assert [ticket.frame is None for ticket in tickets] == [False, True, False]


def test_steering_reaches_a_run_that_shares_passes_from_its_next_token_on():
    of_tiny = engine(**LOOPS["serial"])
    handles = [of_tiny.start(Request(prompt, {}, {"max_new_tokens": 30})) for prompt in PROMPTS[:2]]

    def steered(handle: Any) -> list[int]:
        steps = []
        for frame in handle.frames:
            if frame["phase"] == "generated":
                steps.append(frame["blocks"][0]["n_steps"])
                if len(steps) == 6:
                    handle.steer(loop_count=1)
        return steps

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(steered, handles[0]), pool.submit(list, handles[1].frames)
        assert one.result() == [3] * 6 + [1] * 23
        assert all(frame["blocks"][0]["n_steps"] == 3 for frame in other.result())
    assert len(handles[0].meta["changes"]) == 1


def test_a_hundred_abandoned_runs_leave_nothing(shared_rows):
    of_tiny = engine(**LOOPS["serial"])
    threads = threading.active_count()

    def abandon(i: int) -> None:
        handle = of_tiny.start(Request(PROMPTS[i % 4], {}, {"max_new_tokens": 50}))
        written = 0
        for frame in handle.frames:
            written += frame["phase"] == "generated"
            if written > 1 + i % 3:
                break

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(abandon, range(100)))
    rooms = batch.rooms_of(of_tiny.model)
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= threads
    assert max(shared_rows) > 1
    assert (rooms._runs, rooms._rooms) == (0, {})


def test_a_room_keeps_no_model():
    of_tiny = engine(**LOOPS["serial"])
    read_all([of_tiny.start(Request(prompt, {}, {"max_new_tokens": 6})) for prompt in PROMPTS[:2]])
    layers = weakref.ref(of_tiny.model.model.layers)
    del of_tiny
    gc.collect()
    assert layers() is None


def test_runs_taken_by_one_thread_do_not_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(batch, "PATIENCE", 60.0)
    of_tiny = engine(**LOOPS["serial"])
    frames = [of_tiny.start(Request(prompt, {}, {"max_new_tokens": 8})).frames for prompt in PROMPTS[:2]]
    began = time.monotonic()
    pairs = [tuple(map(next, frames)) for _ in range(6)]
    for room in batch.rooms_of(of_tiny.model)._rooms.values():
        room._took = 60.0
    pairs += zip(*frames, strict=False)
    assert len(pairs) > 6
    assert time.monotonic() - began < 30


def test_a_run_of_many_loops_holds_up_nobody_of_few_and_shares_with_its_like(monkeypatch):
    deep, shallow = {"loop_layers": (1, 3), "loop_count": 90, "max_loop_count": 90}, SHARED["serial"]
    together: list[set[int]] = []
    plain = SharedPass.run

    def watched(self: SharedPass, rows: Any) -> Any:
        together.append({row.view.config.loop_blocks()[0].max_steps for row in rows})
        return plain(self, rows)

    monkeypatch.setattr(SharedPass, "run", watched)
    of_tiny = LocalEngine("tiny", tiny.model(seed=1).double(), tiny.tokenizer())  # ninety loops add up what is rounded
    asked = [Request(prompt, loop, {"max_new_tokens": 12}) for loop in (deep, shallow) for prompt in PROMPTS[:2]]
    alone = [[frame["next_id"] for frame in of_tiny.start(request).frames] for request in asked]
    runs = read_all([of_tiny.start(request) for request in asked])
    assert [[frame["next_id"] for frame in run] for run in runs] == alone
    assert {90} in together
    assert {3} in together
    # the deep runs stand among the shallow until the first of those has asked
    assert sum(len(steps) > 1 for steps in together) <= 1


def test_how_deep_a_run_is_follows_what_it_did_and_what_others_do():
    model, tokenizer = tiny.model(seed=1), tiny.tokenizer()  # of five layers
    may = {"loop_layers": (1, 3), "loop_strategy": "dynamic_stop", "max_loop_count": 4_000, "cosine_threshold": 0.05}
    often = [{"loop_layers": (1, 3), "loop_count": n, "max_loop_count": n} for n in (12, 13, 125)]
    runs = [
        made(tokenizer, model.with_loop(**loop), "the dog", StreamSettings(max_new_tokens=2)) for loop in (may, *often)
    ]
    for run in runs:
        list(run.read(tokenizer("the dog")["input_ids"]))
    counts = [batch.layer_runs(run) for run in runs]
    assert counts == [2 + 3 * n for n in (int(runs[0].view.last_pass.steps[0][0]), 12, 13, 125)]
    assert counts[0] < 5 * 8, "and not the thousands that it may loop"
    rooms = batch.Rooms()
    rooms._depths[object()] = 5  # a plain model's
    assert [rooms._room(run) for run in runs] == [rooms._rooms[i] for i in (0, 0, 1, 2)], "38, 41 and 377 layer runs"
    rooms._depths = {runs[2]: counts[2]}
    assert rooms._room(runs[2]) is rooms._rooms[0], "it is the shallowest now"
    for run in runs:
        run.close()


def test_a_run_whose_last_pass_ran_no_layer_at_all_finds_a_room():
    def none_of_them(ctx: Any) -> torch.Tensor:
        return torch.zeros_like(ctx.all_layers())

    with registered("none_of_them", none_of_them):
        view = tiny.model(seed=1).with_loop(loop_layers=(0, 4), loop_count=3, layer_chooser="none_of_them")
        steering = Steering()
        run = made(tiny.tokenizer(), view, "the dog", StreamSettings(max_new_tokens=2), steering)
        list(run.read(tiny.tokenizer()("the dog")["input_ids"]))
        steering.set_loop(layer_chooser="none")
        run.turn()
        assert run.may_share()
        assert batch.layer_runs(run) == 1, "a depth that others' can be a multiple of"
        rooms = batch.Rooms()
        assert rooms._room(run) is rooms._rooms[0]
        run.close()


# -- many prompts in one thread ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["serial", "dynamic parallel", "dynamic, layers by influence"])
def test_many_prompts_in_one_thread_say_what_each_says_alone(loop, shared_rows):
    model, tokenizer = tiny.model(seed=1, **LOOPS[loop]), tiny.tokenizer()
    prompts, chosen = [*PROMPTS, "a", "🐕"], StreamSettings(max_new_tokens=9)
    found: list[list[Frame]] = [[] for _ in prompts]
    for place, frame in stream_many(model, tokenizer, prompts, chosen, at_once=3):
        found[place].append(frame)
    for prompt, frames in zip(prompts, found, strict=True):
        alone = list(stream(model, tokenizer, prompt, chosen))
        assert [f["next_id"] for f in frames] == [f["next_id"] for f in alone]
        assert frames[-1]["finish"] == "length"
    assert max(shared_rows, default=0) == (0 if "layers" in loop else 3)
