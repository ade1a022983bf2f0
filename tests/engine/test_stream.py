"""stream() makes the tokens generate() makes, ends as it should, and leaves nothing behind."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref

import pytest
import torch

from loopviz.engine import StreamSettings, run, run_meta, stream
from loopviz.model import Interrupted, LoopCache, interruptible
from loopviz.prompt_templates import written
from loopviz.trace import EXTRAS, Trace, check_frame, check_meta
from loopviz.trace.recording import recorder
from tests.engine import tiny

PROMPT = "Once 🙂 upon 从前"

LOOPS = {
    "plain": {},
    "serial": {"loop_layers": (1, 2), "loop_count": 3, "virtual_layer_count": 3, "virtual_attention_mode": "serial"},
    "serial V<N": {
        "loop_layers": (1, 2),
        "loop_count": 4,
        "virtual_layer_count": 2,
        "virtual_attention_mode": "serial",
    },
    "parallel": {"loop_layers": (1, 3), "loop_count": 3, "virtual_layer_count": 2},
    "parallel N<V": {"loop_layers": (0, 1), "loop_count": 2, "virtual_layer_count": 5},
    "ema": {"loop_layers": (1, 2), "loop_count": 3, "kv_cache_mode": "merge_strategy"},
    "dynamic": {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "kv_cache_mode": "merge_strategy",
        "merge_strategy": "last",
        "cosine_threshold": 0.97,
        "kl_threshold": 0.02,
    },
    "dynamic parallel": {
        "loop_layers": (1, 2),
        "loop_strategy": "dynamic_stop",
        "min_loop_count": 2,
        "virtual_layer_count": 2,
        "convergence_criterion": "kl",
        "kl_threshold": 0.05,
    },
    "two blocks": {"loop_layers": [(0, 1), (3, 4)], "loop_count": [2, 3], "loop_damping": [1.0, 0.5]},
    "dynamic, layers by influence": {"loop_layers": (1, 3), "layer_chooser": "influence", "layer_threshold": 0.25},
    "dynamic, tokens by difficulty": {"loop_layers": (1, 3), "layer_chooser": "difficulty", "layer_threshold": 0.75},
}
SAMPLING = {
    "greedy": {},
    "greedy, penalty": {"repetition_penalty": 1.3},
    "sampled": {"do_sample": True, "seed": 3},
    "sampled, warped": {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "seed": 11},
    "sampled, penalty": {"do_sample": True, "temperature": 1.4, "repetition_penalty": 1.2, "seed": 5},
}


def generated(model, settings: StreamSettings, prompt: str = PROMPT) -> list[int]:
    """What generate() appends to the prompt, under the global seed."""
    inputs = tiny.tokenizer()(prompt, return_tensors="pt")
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        out = model.generate(**inputs, **settings.generate_kwargs())
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def chosen(trace: Trace) -> list[int]:
    return [frame["next_id"] for frame in trace.frames[trace.meta["prompt_tokens"] - 1 :]]


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("loop", LOOPS)
def test_stream_makes_the_tokens_of_generate(loop, sampling):
    model = tiny.model(seed=1, **LOOPS[loop])
    settings = StreamSettings(max_new_tokens=24, **SAMPLING[sampling])
    trace = run(model, tiny.tokenizer(), PROMPT, settings)
    assert chosen(trace) == generated(model, settings)
    assert len(set(chosen(trace))) > 3  # or the comparison says little
    if loop.startswith("dynamic"):
        assert len({frame["blocks"][0]["n_steps"] for frame in trace.frames}) > 1


def test_recording_does_not_change_the_tokens():
    model = tiny.model(seed=2, **LOOPS["parallel"])
    on, off = (
        run(model, tiny.tokenizer(), PROMPT, StreamSettings(do_sample=True, record=record))
        for record in ("full", "off")
    )
    assert chosen(on) == chosen(off)
    same = ("token_id", "text", "next_text", "kv", "finish", "phase", "pass_tokens")
    for a, b in zip(on.frames, off.frames, strict=True):
        assert all(a[key] == b[key] for key in same)
        assert [block["n_steps"] for block in a["blocks"]] == [block["n_steps"] for block in b["blocks"]]
        assert b["blocks"][0]["states"] is None
        assert set(map(tuple, b["blocks"][0]["steps"].values())) == {()}
        assert a["blocks"][0]["states"] is not None
    assert off.frames[-1]["next_logprob"] == pytest.approx(on.frames[-1]["next_logprob"], abs=1e-4)
    assert off.frames[0]["next_logprob"] is None  # nobody computed it: generate() does not either


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("record", ["full", "off"])
def test_frames_and_meta_are_well_formed(loop, record):
    model = tiny.model(seed=1, **LOOPS[loop])
    settings = StreamSettings(max_new_tokens=3, record=record, top_tokens=4)
    trace = run(model, tiny.tokenizer(), PROMPT, settings, model_name="tiny")
    check_meta(trace.meta)
    prompt_ids = tiny.tokenizer()(PROMPT)["input_ids"]
    assert [frame["token_id"] for frame in trace.frames][: len(prompt_ids)] == prompt_ids
    assert len(trace) == len(prompt_ids) + 2
    assert trace.meta["prompt_tokens"] == len(prompt_ids)
    for frame, after in itertools.zip_longest(trace.frames, trace.frames[1:]):
        check_frame(frame, hidden=32)
        assert len(frame["blocks"]) == len(trace.meta["blocks"])
        assert frame["phase"] == ("prompt" if frame["index"] < len(prompt_ids) else "generated")
        if after is not None:
            assert (frame["next_id"], frame["next_text"]) == (after["token_id"], after["text"])
            assert frame["finish"] is None
    assert trace.frames[-1]["finish"] == "length"
    decoded = tiny.tokenizer().decode([*prompt_ids, *chosen(trace)])
    assert decoded.startswith(trace.text)
    assert trace.text.rstrip("\ufffd") == decoded.rstrip("\ufffd")  # a text may end inside a character


def test_meta_describes_the_run():
    model = tiny.model(**LOOPS["two blocks"])
    settings = StreamSettings(seed=9, top_tokens=7)
    meta = run_meta(model, tiny.tokenizer(), PROMPT, settings, model_name="tiny")
    assert meta["model"] == "tiny"
    assert [block["layers"] for block in meta["blocks"]] == [[0, 1], [3, 4]]
    assert [block["damping"] for block in meta["blocks"]] == [1.0, 0.5]
    assert meta["loop"]["loop_layers"] == [[0, 1], [3, 4]]
    assert meta["settings"]["seed"] == 9
    assert meta["top_k"] == 7
    heads = {"heads": 4, "kv_heads": 2, "head_dim": 8}
    assert meta["shape"] == {"layers": 5, "hidden": 32, **heads, "itemsize": 4, "vocab": 290}


# -- ends ----------------------------------------------------------------------------------------------------------------


def test_eos_ends_the_text_as_it_ends_generate():
    model = tiny.model(seed=1, **LOOPS["serial"])
    settings = StreamSettings(max_new_tokens=24)
    tokens = chosen(run(model, tiny.tokenizer(), PROMPT, settings))
    for eos in (tokens[5], [290 - 1, tokens[9]]):
        model.generation_config.eos_token_id = eos
        model.generation_config.pad_token_id = 0
        trace = run(model, tiny.tokenizer(), PROMPT, settings)
        assert trace.frames[-1]["finish"] == "eos"
        assert chosen(trace) == generated(model, settings)
        assert len(chosen(trace)) < 24
        assert trace.text == "".join(frame["text"] for frame in trace.frames)


def test_a_full_context_ends_the_text():
    length = len(tiny.tokenizer()(PROMPT)["input_ids"])
    model = tiny.model(context=length + 3, **LOOPS["parallel"])
    trace = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=50))
    assert trace.frames[-1]["finish"] == "context"
    assert len(trace) == length + 3
    exact = run(tiny.model(context=length), tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=50))
    assert (len(exact), exact.frames[-1]["finish"]) == (length, "context")
    with pytest.raises(ValueError, match=rf"prompt: {length} tokens.*context is {length - 1} tokens"):
        stream(tiny.model(context=length - 1), tiny.tokenizer(), PROMPT)


@pytest.mark.parametrize("at", [0, 3, "prompt's end", "later"])
def test_stop_takes_hold_at_once(at):
    model = tiny.model(**LOOPS["parallel"])
    passes = []
    handle = model.model.embed_tokens.register_forward_hook(lambda *_: passes.append(1))
    length = len(tiny.tokenizer()(PROMPT)["input_ids"])
    last = {"prompt's end": length - 1, "later": length + 4}.get(at, at)
    stop = threading.Event()
    frames = []
    for frame in stream(model, tiny.tokenizer(), PROMPT, StreamSettings(), stop=stop):
        frames.append(frame)
        if frame["index"] == last:
            stop.set()
    handle.remove()
    assert len(frames) == last + 1
    assert len(passes) == max(1, last - length + 2)
    assert frames[-1]["finish"] is None


def test_stop_before_the_start_runs_nothing():
    stop = threading.Event()
    stop.set()
    assert list(stream(tiny.model(), tiny.tokenizer(), PROMPT, stop=stop)) == []


@pytest.mark.parametrize("kind", LOOPS)
def test_h1_long_prompt_cannot_be_left(kind):
    """A stop while the prompt is read: no layer begins any more, no frame comes, nothing is left behind."""
    model, stop, ran = tiny.model(**LOOPS[kind]), threading.Event(), []

    def begin(layer, given):
        ran.append(layer)
        if len(ran) == 4:
            stop.set()

    handles = [layer.register_forward_pre_hook(begin) for layer in model.model.layers]
    gc.collect()  # what another test left
    caches_before = sum(type(thing) is LoopCache for thing in gc.get_objects())
    settings = StreamSettings(extras=EXTRAS)
    assert list(stream(model, tiny.tokenizer(), PROMPT, settings, stop=stop)) == []
    assert len(ran) == 4
    for handle in handles:
        handle.remove()
    gc.collect()
    assert sum(type(thing) is LoopCache for thing in gc.get_objects()) == caches_before
    again = run(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=3))
    fresh = run(tiny.model(**LOOPS[kind]), tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=3))
    assert [frame["next_id"] for frame in again.frames] == [frame["next_id"] for frame in fresh.frames]


def test_h1_what_is_recorded_of_a_prompt_that_was_read_can_be_left(monkeypatch):
    """With every panel on, the states and weights of a long prompt take longer than reading it."""
    model, stop, heads = tiny.model(**LOOPS["serial"]), threading.Event(), []
    monkeypatch.setattr(recorder, "MAX_ROWS", 1)  # a chunk a token

    plain = recorder.head_logits

    def head(*given):
        heads.append(1)
        if len(heads) == 2:
            stop.set()
        return plain(*given)

    monkeypatch.setattr(recorder, "head_logits", head)
    frames = list(stream(model, tiny.tokenizer(), PROMPT, StreamSettings(extras=EXTRAS), stop=stop))
    assert len(heads) == 2
    assert len(frames) == 1, "what was whole stays, what was being worked out does not come half"
    assert frames[0]["finish"] is None
    for frame in frames:
        check_frame(frame)


def test_h1_a_stop_acts_in_the_middle_of_a_token():
    model, stop, ran = tiny.model(**LOOPS["serial"]), threading.Event(), []
    length = len(tiny.tokenizer()(PROMPT)["input_ids"])
    frames = stream(model, tiny.tokenizer(), PROMPT, StreamSettings(), stop=stop)
    found = [next(frames) for _ in range(length + 2)]

    def begin(layer, given):
        ran.append(layer)
        stop.set()

    for layer in model.model.layers:
        layer.register_forward_pre_hook(begin)
    assert found + list(frames) == found
    assert len(ran) == 1


def test_a_stop_of_another_run_is_not_taken_for_ones_own():
    """Who runs the stream is interrupted: it must hear of it, and not of a text that seems to have ended."""
    outer = threading.Event()
    frames = stream(tiny.model(), tiny.tokenizer(), PROMPT, StreamSettings())
    next(frames)
    outer.set()
    with interruptible(outer), pytest.raises(Interrupted):
        for _ in frames:
            pass


# -- bad input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("", "prompt: empty"), (7, "prompt: int"), ("a\ud800", "surrogate"), ("x" * 300_000, "300,000 characters")],
)
def test_a_prompt_that_cannot_run_is_refused_before_the_first_frame(prompt, says):
    with pytest.raises(ValueError, match=says):
        stream(tiny.model(), tiny.tokenizer(), prompt)


def test_chat_needs_a_template():
    model, tokenizer = tiny.model(**LOOPS["serial"]), tiny.tokenizer.__wrapped__()
    with pytest.raises(ValueError, match="no chat template"):
        stream(model, tokenizer, "hello", StreamSettings(chat=True))
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    trace = run(model, tokenizer, "hello", StreamSettings(chat=True, max_new_tokens=2))
    prompt = "".join(frame["text"] for frame in trace.frames if frame["phase"] == "prompt")
    assert prompt == "[user]hello>"
    assert trace.meta["prompt"] == "hello"
    again = run(model, tokenizer, "hello", StreamSettings(template="chat", max_new_tokens=2))
    assert [frame["token_id"] for frame in again.frames] == [frame["token_id"] for frame in trace.frames]
    assert again.meta["settings"] == trace.meta["settings"], "by one name, and with the one of before"
    assert (trace.meta["settings"]["template"], trace.meta["settings"]["chat"]) == ("chat", True)
    assert StreamSettings(**{**trace.meta["settings"], "extras": ()}).to_dict() == trace.meta["settings"]


@pytest.mark.parametrize(
    ("template", "input"), [("none", ""), ("alpaca", ""), ("alpaca", "a dog {input}"), ("vicuna", "")]
)
def test_the_whole_text_that_the_model_reads_is_in_the_run_as_its_prompt(template, input):
    """A model without a chat template can be asked by a published form; the tokens of the form are the prompt's."""
    model, tokenizer = tiny.model(context=512, **LOOPS["serial"]), tiny.tokenizer()
    settings = StreamSettings(template=template, input=input, max_new_tokens=3)
    trace = run(model, tokenizer, "saw {prompt}?", settings)
    prompt = "".join(frame["text"] for frame in trace.frames if frame["phase"] == "prompt")
    assert prompt == written(template, "saw {prompt}?", input)
    assert [frame["phase"] for frame in trace.frames].count("prompt") == trace.meta["prompt_tokens"]
    assert (trace.meta["prompt"], trace.meta["settings"]["chat"]) == ("saw {prompt}?", False)
    assert [trace.meta["settings"][name] for name in ("template", "input")] == [template, input]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"template": "alpaca", "chat": True}, r"^template='alpaca': chat=True is template='chat'"),
        ({"template": "vicuna", "input": "x"}, r"^input='x': only template='alpaca'.*template='vicuna'"),
        ({"template": "alpaca", "input": 7}, "^input=7: must be text"),
        ({"template": "alpaca", "input": "a\ud800"}, "^input: half a surrogate pair"),
        ({"template": ["chat"]}, r"^template=\['chat'\]: must be one of 'none', 'chat', 'alpaca', 'vicuna'"),
    ],
)
def test_a_template_that_cannot_be_is_refused_by_name(fields, says):
    with pytest.raises(ValueError, match=says):
        StreamSettings(**fields)


def test_what_a_template_adds_counts_against_the_context():
    model, tokenizer = tiny.model(context=64, **LOOPS["serial"]), tiny.tokenizer()
    stream(model, tokenizer, "hello").close()
    with pytest.raises(ValueError, match="context is 64 tokens"):
        stream(model, tokenizer, "hello", StreamSettings(template="vicuna"))
    with pytest.raises(ValueError, match=r"^template='chat': this tokenizer has no chat template"):
        stream(model, tokenizer, "hello", StreamSettings(template="chat"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("max_new_tokens", 10**9),
        ("temperature", 0),
        ("temperature", 1e-300),  # numerics D9: passed, and then no distribution was left
        ("temperature", 1e-5),
        ("repetition_penalty", 1e-300),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("min_p", -0.1),
        ("min_p", float("nan")),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("seed", -1),
        ("record", "some"),
        ("top_tokens", 0),
        ("top_tokens", 1000),
        ("chat", 1),
        ("do_sample", "yes"),
        ("extras", "exit"),
        ("extras", ("exit", "smell")),
        ("extras", None),
    ],
)
def test_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}="):
        StreamSettings(**{field: value})


def test_extras_need_a_recorder_and_come_in_one_order():
    with pytest.raises(ValueError, match=r"^extras=\('keys',\).*record='off'"):
        StreamSettings(record="off", extras=("keys",))
    assert StreamSettings(extras=["attention", "exit", "exit"]).extras == ("exit", "attention")
    assert StreamSettings(extras=("keys",)).to_dict()["extras"] == ["keys"]


def test_a_state_that_blows_up_is_reported():
    model = tiny.model(**LOOPS["serial"])
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        list(stream(model, tiny.tokenizer(), PROMPT))


def test_more_top_tokens_than_the_vocabulary():
    trace = run(tiny.model(**LOOPS["serial"]), tiny.tokenizer(), "a", StreamSettings(max_new_tokens=1, top_tokens=100))
    assert len(trace.frames[0]["blocks"][0]["steps"]["topk_ids"][0]) == trace.meta["top_k"] == 100


# -- leaves nothing behind -----------------------------------------------------------------------------------------------


def test_no_mode_leaks_to_the_consumer():
    state = torch.get_rng_state()
    for _ in stream(
        tiny.model(**LOOPS["ema"]), tiny.tokenizer(), PROMPT, StreamSettings(do_sample=True, max_new_tokens=4)
    ):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def _census() -> tuple[int, int, int]:
    gc.collect()
    objects = gc.get_objects()
    caches = sum(type(o) is LoopCache for o in objects)
    return sum(type(o) in (torch.Tensor, torch.nn.Parameter) for o in objects), caches, threading.active_count()


@pytest.mark.parametrize("extras", [(), EXTRAS])
def test_fifty_abandoned_runs_leave_nothing(extras):
    model = tiny.model(**LOOPS["parallel"])
    layers = model.model.layers

    def abandon(i: int) -> None:
        frames = stream(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=30, extras=extras))
        list(itertools.islice(frames, i % 25))  # never started, in the prompt, in the text
        if i % 2:
            frames.close()

    for i in range(25):  # as far as the text: what a layer consists of is remembered with the model
        abandon(i)
    before = _census()
    for i in range(50):
        abandon(i)
    assert _census() == before
    assert not model.model._loop_hooks
    assert model.model.layers is layers


@pytest.mark.parametrize("extras", [(), EXTRAS])
@pytest.mark.parametrize("frames_taken", [1, 20, 1000])
def test_hook_and_cache_go_at_once(frames_taken, extras, monkeypatch):
    """Not when the garbage collector comes by: a cache may be large."""
    import loopviz.model

    caches, views = [], []

    def cache(config):
        made = LoopCache(config)
        caches.append(weakref.ref(made))
        return made

    monkeypatch.setattr(loopviz.model, "LoopCache", cache)
    model = tiny.model(**LOOPS["parallel"])
    original = model.with_loop
    monkeypatch.setattr(model, "with_loop", lambda **fields: (views.append(original(**fields)), views[-1])[1])
    gc.collect()
    gc.disable()
    try:
        frames = stream(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=20, extras=extras))
        list(itertools.islice(frames, frames_taken))
        own = views[-1]  # the first is what changes during the run are checked on
        if frames_taken == 1:
            assert own.model._loop_hooks
            assert (own.model.layers is model.model.layers) == (not extras)
            assert caches[0]() is not None
        frames.close()
        assert not any(view.model._loop_hooks for view in views)
        assert own.model.layers is model.model.layers
        assert caches[0]() is None
    finally:
        gc.enable()


def test_an_error_in_the_consumer_cleans_up():
    model, caches = tiny.model(**LOOPS["parallel"]), _census()[1]

    def consume() -> None:
        for _ in stream(model, tiny.tokenizer(), PROMPT):
            raise RuntimeError("the page is gone")

    with pytest.raises(RuntimeError, match="the page is gone"):
        consume()
    assert _census()[1] == caches


def test_two_threads_on_the_same_weights_do_not_meet():
    model = tiny.model(seed=3, **LOOPS["parallel"])
    other = model.with_loop(loop_count=5, max_loop_count=8, kv_cache_mode="merge_strategy")
    jobs = [
        (model, StreamSettings(max_new_tokens=30, do_sample=True, seed=1)),
        (other, StreamSettings(max_new_tokens=30, do_sample=True, seed=2)),
        (model, StreamSettings(max_new_tokens=30, record="off")),
        (model, StreamSettings(max_new_tokens=30, extras=EXTRAS)),
    ]
    alone = [chosen(run(m, tiny.tokenizer(), PROMPT, s)) for m, s in jobs]
    together: dict[int, list[int]] = {}
    barrier = threading.Barrier(len(jobs))

    def work(i: int) -> None:
        barrier.wait()
        together[i] = chosen(run(jobs[i][0], tiny.tokenizer(), PROMPT, jobs[i][1]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together.get(i) for i in range(len(jobs))] == alone


def test_later_settings_do_not_reach_a_run():
    model = tiny.model(**LOOPS["parallel"])
    frames = stream(model, tiny.tokenizer(), PROMPT, StreamSettings(max_new_tokens=6))
    model.set_loop(loop_count=1)
    counts = set()
    for frame in frames:
        counts.add(frame["blocks"][0]["n_steps"])
        model.set_loop(loop_count=2)
    assert counts == {3}


@pytest.mark.parametrize(
    "edge", [{"temperature": 1e-4}, {"temperature": 100}, {"repetition_penalty": 0.01}, {"top_p": 1e-300}, {"min_p": 1}]
)
def test_the_ends_of_every_range_still_leave_a_distribution(edge):
    """numerics D9: a value that a check lets through and the arithmetic cannot hold."""
    trace = run(tiny.model(), tiny.tokenizer(), "the dog", StreamSettings(max_new_tokens=3, do_sample=True, **edge))
    assert len(trace.tokens) == len(tiny.tokenizer()("the dog")["input_ids"]) + 2
