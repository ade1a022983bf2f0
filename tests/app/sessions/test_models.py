"""Models are loaded once, in the background, and a refusal is words."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loopviz.app.profile import LOCAL, MIB, PUBLIC
from loopviz.app.sessions import models
from loopviz.app.sessions.models import ModelRefused, ModelRoom, short_name
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.lowered import PrecisionRefused


def _loaded(name: str) -> Loaded:
    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=3), parameters=lambda: [], modules=lambda: [])
    return Loaded(name, model, None)


def test_many_who_ask_at_once_get_one_model() -> None:
    gate, loads = threading.Event(), []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loads.append(name)
        gate.wait(60)
        return _loaded(name)

    room = ModelRoom("a", load=load)
    thread, found = room.warm(), []
    others = [threading.Thread(target=lambda: found.append(room.get("a"))) for _ in range(5)]
    for other in others:
        other.start()
    assert room.ready("a") is None, "warming does not wait"
    gate.set()
    for waiting in (thread, *others):
        waiting.join(60)
    assert loads == ["a"]
    assert {id(model) for model in found} == {id(room.ready("a"))}
    assert room.status("a").state == "ready"


def test_the_default_waits_for_the_first_who_asks_and_is_loaded_once() -> None:
    loads, loaded = [], threading.Event()

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loads.append(name)
        loaded.set()
        return _loaded(name)

    room = ModelRoom("a", load=load)
    room.warm_when_asked(latest=1000)
    assert loads == []
    assert room.status("a").state in ("importing", "loading", "ready")
    assert loaded.wait(60)
    room.status("a")
    room.get("a")
    assert loads == ["a"]


def test_the_default_is_loaded_soon_once_a_page_is_on_its_way() -> None:
    loaded = threading.Event()

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loaded.set()
        return _loaded(name)

    room = ModelRoom("a", load=load)
    room.warm_when_asked(latest=1000)
    room.expect(within=0.01)
    assert loaded.wait(60)


def test_threads_take_shorter_turns_while_the_default_is_loaded_and_usual_ones_after_it() -> None:
    for other in threading.enumerate():  # of an earlier test
        if other.name == "loopviz-model":
            other.join(60)
    usual, turns = sys.getswitchinterval(), []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        turns.append(sys.getswitchinterval())
        raise ValueError("gone")

    ModelRoom("a", load=load).warm().join(60)
    assert 0 < turns[0] < usual
    assert sys.getswitchinterval() == usual


def test_the_first_page_counts_and_none_where_nothing_is_to_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    room, asked = ModelRoom("a", load=lambda *_: _loaded("a")), []
    monkeypatch.setattr(
        room, "_warm_after", lambda seconds: asked.append(seconds) or SimpleNamespace(cancel=lambda: None)
    )
    room.expect(within=1)
    assert asked == [], "its server warms no model"
    room.warm_when_asked(latest=1000)
    for within in (5, 0):
        room.expect(within)
    assert asked == [1000, 5]
    room.status("a")
    room.expect(within=1)
    assert asked == [1000, 5], "somebody has asked: it is being loaded"


def test_the_default_is_loaded_although_nobody_asks() -> None:
    loaded = threading.Event()

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loaded.set()
        return _loaded(name)

    ModelRoom("a", load=load).warm_when_asked(latest=0.01)
    assert loaded.wait(60)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("not a Llama"), "not a Llama"),
        (OSError("no such file"), "no such file"),
        (MemoryError(), "out of memory"),
        (RuntimeError("secret"), "went wrong"),
    ],
)
def test_a_refusal_is_told_and_tried_again_next_time(error: Exception, words: str) -> None:
    tries = []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        tries.append(name)
        if len(tries) == 1:
            raise error
        return _loaded(name)

    room = ModelRoom("a", load=load)
    with pytest.raises(ModelRefused, match=words) as caught:
        room.get("a")
    assert "secret" not in str(caught.value)
    assert room.status("a").state == "failed"
    assert words in room.status("a").tell("en")
    assert room.get("a").name == "a"
    assert room.status("a").state == "ready"


def test_a_failed_default_does_not_raise_in_the_background() -> None:
    def load(name: str, progress: Any, local: bool) -> Loaded:
        raise ValueError("gone")

    room = ModelRoom("a", load=load)
    room.warm().join(60)
    assert room.status("a").state == "failed"


def test_visitors_of_a_public_page_may_not_name_files_but_its_owner_may() -> None:
    allowed: dict[str, bool] = {}

    def load(name: str, progress: Any, local: bool) -> Loaded:
        allowed[name] = local
        return _loaded(name)

    room = ModelRoom("/models/own", profile=PUBLIC, load=load)
    assert (room.default, room.names[0]) == ("own", "own"), "where it lies is not said"
    room.get("own")
    for name in ("/etc/other", "/models/own"):
        with pytest.raises(ModelRefused, match="opens no files or folders"):
            room.get(name)
    room.get("glassbox")
    assert allowed == {"/models/own": True, "glassbox": False}


def _of_bytes(name: str, n_bytes: int) -> Loaded:
    parameter = SimpleNamespace(numel=lambda: n_bytes, element_size=lambda: 1)
    model = SimpleNamespace(
        config=SimpleNamespace(num_hidden_layers=3), parameters=lambda: [parameter], modules=lambda: []
    )
    return Loaded(name, model, None)


def test_kept_models_are_weighed_in_bytes_and_the_default_never_goes() -> None:
    """C3 and point 3: two models were held whatever they weighed."""
    profile = replace(LOCAL, model_bytes=300 * MIB)
    sizes = {"a": 900, "big": 200, "small": 1, "tiny": 1, "huge": 400}
    room = ModelRoom("a", profile=profile, load=lambda name, progress, local: _of_bytes(name, sizes[name] * MIB))
    held = lambda: [name for name in sizes if name in room._held]  # noqa: E731
    for name in ("a", "big", "small", "tiny"):
        room.get(name)
    assert held() == ["a", "big", "small", "tiny"], "202 of 300 MiB beside the default"
    assert room.ready("big") is not None, "somebody works with it: it is not what is needed least"
    room._held["b"] = _of_bytes("b", 99 * MIB)
    room.get("small")
    room._let_go(profile.model_bytes, keep="small")
    assert held() == ["a", "big", "small"], "the one needed least went, and no other"
    room.get("huge")
    assert held() == ["a", "huge"], "one that is larger than all that may be kept is there while it is the newest"
    assert room.status("big").state == "waiting"
    assert room.status("a").state == "ready"


def test_a_model_that_nobody_needs_goes_and_the_default_stays() -> None:
    """It was held until another needed its room, however long that took."""
    gone: list[str] = []
    profile = replace(LOCAL, model_seconds=0.4)
    room = ModelRoom("a", profile=profile, load=lambda name, progress, local: _of_bytes(name, MIB))
    room.when_let_go.append(lambda loaded: gone.append(loaded.name))
    for name in ("a", "idle", "busy"):
        room.get(name)
    until = time.monotonic() + 10
    while not gone and time.monotonic() < until:
        assert room.ready("busy") is not None
        time.sleep(0.02)
    assert gone == ["idle"]
    assert room.ready("idle") is None
    while len(gone) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert gone == ["idle", "busy"]
    assert room.ready("a") is not None


def test_a_class_on_many_small_models_loads_each_once() -> None:
    loads: list[str] = []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loads.append(name)
        return _loaded(name)

    room = ModelRoom("a", load=load)
    for _ in range(30):
        for name in "bcdea":
            room.get(name)
    assert loads == [*"bcdea"]


def test_a_page_that_asks_how_far_a_model_is_has_it_loaded() -> None:
    """A2: a fresh page sat at "is not loaded yet" until somebody pressed Run."""
    gate, loads = threading.Event(), []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loads.append(name)
        gate.wait(60)
        if name == "bad" and loads.count("bad") == 1:
            raise ValueError("no such file")
        return _loaded(name)

    room = ModelRoom("a", load=load)
    for _ in range(3):
        room.want("a")
        room.want("bad")
    gate.set()
    for name, state in (("a", "ready"), ("bad", "failed")):
        assert _becomes(room, name, state)
    assert room.want("bad").state == "failed", "a look is no try"
    room.want("bad", again=True)
    assert _becomes(room, "bad", "ready")
    assert sorted(loads) == ["a", "bad", "bad"]


def _becomes(room: ModelRoom, name: str, state: str) -> bool:
    for _ in range(6000):
        if room.status(name).state == state:
            return True
        threading.Event().wait(0.01)
    return False


def test_progress_is_shown_as_it_comes() -> None:
    seen = []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        seen.append(room.status(name).tell("en"))
        progress("download", 0.25)
        seen.append(room.status(name).tell("en"))
        return _loaded(name)

    room = ModelRoom("a", load=load)
    room.get("a")
    assert "PyTorch" in seen[0]
    assert "downloading 25%" in seen[1]


def test_what_a_model_is_and_takes_is_said_before_its_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def load() -> SimpleNamespace:
        seen.extend(room.status("a").tell(lang) for lang in ("en", "zh"))
        return SimpleNamespace(rate=lambda: None, layers=3, parameters=0, n_bytes=0)

    prepared = SimpleNamespace(need=1_530_000_000, n_weights=347_000_000, n_bytes=1_390_000_000, load=load)
    monkeypatch.setattr("loopviz.engine.local.prepare", lambda *_, **__: prepared)
    monkeypatch.setattr("loopviz.model.checkpoints.inspect.available_memory", lambda: 10**12)
    room = ModelRoom("a")
    room.get("a")
    assert seen[0].endswith("reading the weights (347 M parameters, 1.3 GiB stored, about 1.4 GiB of memory)")
    assert "（347 百万参数，文件中占 1.3 GiB，约需 1.4 GiB 内存）" in seen[1]


def test_a_model_is_loaded_in_the_precision_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    engine = SimpleNamespace(rate=lambda: None, layers=3, parameters=0, n_bytes=0)

    def prepare(*_: object, precision: str, **__: object) -> SimpleNamespace:
        asked.append(precision)
        return SimpleNamespace(need=1, n_weights=1, n_bytes=1, load=lambda: engine)

    monkeypatch.setattr("loopviz.engine.local.prepare", prepare)
    ModelRoom("a").get("a")
    ModelRoom("a", profile=replace(LOCAL, precision="half")).get("a")
    assert asked == ["exact", "half"]


def test_a_precision_is_a_model_of_its_own_for_all_who_choose_it_and_none_for_those_who_do_not() -> None:
    loads: list[tuple[str, str]] = []

    def load(name: str, progress: Any, local: bool, precision: str = "the server's") -> Loaded:
        loads.append((name, precision))
        return _of_bytes(name, MIB)

    room = ModelRoom("a", load=load)
    own = room.get("a")
    assert room.ready("a", "int8") is None, "nothing is waited for"
    assert room.status("a", "int8").state == "waiting"
    int8 = room.get("a", precision="int8")
    assert (room.get("a", precision="int8"), room.ready("a", "int8")) == (int8, int8)
    for same in ("", "server", "exact"):
        assert room.get("a", precision=same) is room.ready("a", same) is own, "as this server has it"
    assert int8 is not own
    assert loads == [("a", "the server's"), ("a", "int8")]
    assert (room.held(), room.holds(own), room.holds(int8)) == (2, True, True)
    assert room.status("a", "int8").tell("en").startswith("a in int8 is ready")
    assert room.status("a").tell("en").startswith("a is ready")
    assert room.want("a", precision="half").state == "waiting"
    assert room.get("a", precision="half") is not int8
    assert room.ready("a") is own
    other = ModelRoom("a", profile=replace(LOCAL, precision="int8"), load=load)
    assert other.get("a", precision="int8") is other.get("a")
    assert loads[-1] == ("a", "the server's")


def test_under_auto_what_comes_along_is_exact_and_no_second_model() -> None:
    loads: list[tuple[str, str]] = []

    def load(name: str, progress: Any, local: bool, precision: str = "the server's") -> Loaded:
        loads.append((name, precision))
        return _of_bytes(name, MIB)

    room = ModelRoom("stories-loop", profile=replace(LOCAL, precision="auto"), load=load)
    assert room.get("stories-loop", precision="exact") is room.get("stories-loop") is room.ready("stories-loop", "auto")
    assert loads == [("stories-loop", "the server's")]
    room.get("smollm2-135m-instruct", precision="exact")
    assert loads[-1] == ("smollm2-135m-instruct", "exact"), "which auto may hold otherwise"


@pytest.mark.parametrize(("dtype", "same"), [("float32", True), ("float16", False)])
def test_under_auto_a_model_that_is_held_exactly_is_the_exact_one(dtype: str, same: bool) -> None:
    def load(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(layers=3, parameters=0, n_bytes=0, describe=lambda: SimpleNamespace(dtype=dtype))

    room: Any = ModelRoom("own", profile=replace(LOCAL, precision="auto"), load=load)
    own = room.get("own")
    assert (room.get("own", precision="exact") is own) == same


def test_what_visitors_choose_a_precision_for_counts_and_goes_as_theirs_and_the_default_stays() -> None:
    profile = replace(PUBLIC, model_bytes=300 * MIB)
    sizes = {"": 900, "half": 250, "int8": 200}
    load = lambda name, progress, local, precision="": _of_bytes(name, sizes[precision] * MIB)  # noqa: E731
    room = ModelRoom("stories-loop", profile=profile, load=load)
    own, gone = room.get("stories-loop"), []
    room.when_let_go.append(gone.append)
    half = room.get("stories-loop", precision="half")
    int8 = room.get("stories-loop", precision="int8")
    assert gone == [half], "450 of 300 MiB beside the default"
    assert room.ready("stories-loop", "half") is None
    assert room.status("stories-loop", "half").state == "waiting"
    assert (room.ready("stories-loop"), room.ready("stories-loop", "int8")) == (own, int8)


def test_the_limits_of_visitors_hold_for_ours_in_a_precision_that_they_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    engine = SimpleNamespace(rate=lambda: None, layers=3, parameters=0, n_bytes=0)

    def prepare(*_: object, **how: Any) -> SimpleNamespace:
        asked.append({name: how[name] for name in ("precision", "chosen", "bounded", "allow_paths")})
        return SimpleNamespace(need=1, n_weights=1, n_bytes=1, load=lambda: engine, same=lambda held: None)

    monkeypatch.setattr("loopviz.engine.local.prepare", prepare)
    room = ModelRoom("/models/own", profile=replace(PUBLIC, precision="half"))
    room.get("own")
    room.get("own", precision="int8")
    assert asked == [
        {"precision": "half", "chosen": False, "bounded": False, "allow_paths": True},
        {"precision": "int8", "chosen": True, "bounded": True, "allow_paths": True},
    ]


def test_weights_that_another_precision_has_read_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(n_bytes: int) -> Any:
        return SimpleNamespace(rate=lambda: None, layers=3, parameters=0, n_bytes=n_bytes)

    found = {"exact": engine(900), "int8": engine(250), "auto": engine(250)}

    def prepare(*_: object, precision: str, **__: object) -> SimpleNamespace:
        def read() -> Any:
            assert precision != "auto", "its weights are there"
            return found[precision]

        same = lambda held: found["auto"] if precision == "auto" and held is found["int8"] else None  # noqa: E731
        return SimpleNamespace(need=1, n_weights=1, n_bytes=1, load=read, same=same)

    monkeypatch.setattr("loopviz.engine.local.prepare", prepare)
    room = ModelRoom("a", profile=replace(LOCAL, model_bytes=300))
    for precision in ("", "int8", "auto"):
        room.get("a", precision=precision)
    assert room.held() == 3, "250 bytes of 300 beside the default"
    assert room.ready("a", "auto") is found["auto"]
    room._let_go_one(keep="a")
    assert room.ready("a", "int8") is None
    room._let_go(200, keep="a")
    assert room.held() == 1, "whose weights they were is gone: now they are its own"


def test_what_a_precision_cannot_do_is_refused_as_such_and_the_model_is_not() -> None:
    def load(name: str, progress: Any, local: bool, precision: str = "") -> Loaded:
        if precision == "int8":
            raise PrecisionRefused("precision_refused", "no kernel", precision="int8", dtype="int8")
        if precision == "half" or name == "bad":
            raise ValueError("memory is short")
        return _loaded(name)

    room = ModelRoom("a", load=load)
    said = {"en": "precision='int8': a cannot be held in int8 (no kernel). Choose exact", "zh": "无法以 int8 保存"}
    for lang, words in said.items():
        with pytest.raises(ModelRefused) as caught:
            room.get("a", lang, precision="int8")
        assert words in str(caught.value)
        assert caught.value.field == room.status("a", "int8").field == "precision"
    room.get("a")
    for name, field in (("a", "precision"), ("bad", "model")):  # of a model that is here otherwise, and of none
        with pytest.raises(ModelRefused) as caught:
            room.get(name, precision="half")
        assert caught.value.field == field
    assert room.status("a").state == "ready"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("owner/name", "owner/name"), ("/home/me/m.gguf", "m.gguf"), ("~/m", "m"), ("smollm2", "smollm2")],
)
def test_paths_are_not_shown_whole(name: str, shown: str) -> None:
    assert short_name(name) == shown


# --- strangers' models: by name ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "~",
        "~root",
        "~root/model",
        "/etc/passwd",
        "../..",
        "C:\\models\\x",
        "\\\\host\\share",
        "x.gguf",
        "ok/driveby",
        "a/b/c.gguf",
    ],
)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_m3_a_public_server_refuses_by_name_without_a_path_of_its_own(name: str, lang: str, tmp_path: Any) -> None:
    """server_paths_in_refusals, folders_of_the_teacher: expanded before they were refused, and told what is there."""
    loads: list[str] = []
    room = ModelRoom("stories-loop", profile=PUBLIC, load=lambda name, *_: loads.append(name))
    with pytest.raises(ModelRefused) as caught:
        room.get(name, lang)
    for told in (str(caught.value), room.status(name).tell(lang), room.want(name, lang, again=True).tell(lang)):
        assert "stories-loop" in told, "what may be had is said"
        assert "/root" not in told.replace(name, "")
        assert str(Path.home()) not in told.replace(name, "")
    assert room.status(name).state == "failed"
    assert loads == []


def test_c3_a_named_model_is_the_host_s_choice() -> None:
    """hub_model_of_141_gigabytes: any model of the Hub could be named."""
    profile = replace(PUBLIC, named_models=("ok/allowed",))
    room = ModelRoom("stories-loop", profile=profile, load=lambda name, *_: _loaded(name))
    assert room.get("ok/allowed").name == "ok/allowed"
    assert "ok/allowed" in room.told("en")
    with pytest.raises(ModelRefused, match="offers only"):
        room.get("ok/other")


def test_m3_what_a_library_says_of_the_machine_is_not_said_to_visitors() -> None:
    said = (
        "model_type='gpt2' in /home/u/.cache/huggingface/hub/models--ok--gpt2/snapshots/0123abcd/config.json: must be"
    )

    def load(name: str, progress: Any, local: bool) -> Loaded:
        raise ValueError(said)

    public = ModelRoom("stories-loop", profile=replace(PUBLIC, any_model=True), load=load)
    with pytest.raises(ModelRefused) as caught:
        public.get("ok/gpt2")
    assert str(caught.value) == "model_type='gpt2' in ok/gpt2/config.json: must be"
    with pytest.raises(ModelRefused, match=r"/home/u/\.cache"):
        ModelRoom("a", load=load).get("ok/gpt2")  # who sits at the machine is told where


def test_link_that_downloads_waits_for_the_visitor() -> None:
    """H7: a link's model was fetched, and a folder opened, without a click."""
    loads: list[str] = []
    room = ModelRoom("a", load=lambda name, *_: loads.append(name) or _loaded(name))
    for name in ("ok/driveby", "/some/folder"):
        assert room.want(name, linked=True).state == "ask"
        assert name in room.want(name, linked=True).tell("zh")
        assert room.status(name).state == "waiting"
    assert loads == []
    room.want("ok/driveby")
    assert _becomes(room, "ok/driveby", "ready")
    assert room.want("ok/driveby", linked=True).state == "ready", "it is here: nothing is fetched"
    room.want("glassbox", linked=True)
    assert _becomes(room, "glassbox", "ready"), "what is offered is here"


# --- strangers' models: one never blocks another, and ends with its visitors ------------------------------------------


class _Slow:
    """A loader whose loads of `slow` models last until they are given up or let go; the others' are there at once."""

    def __init__(self) -> None:
        self.go, self.begun, self.given_up = threading.Event(), [], []

    def __call__(self, name: str, progress: Callable[[str, float | None], None], local: bool) -> Loaded:
        self.begun.append(name)
        while "slow" in name and not self.go.is_set():
            try:
                progress("download", 0.5)
            except BaseException:
                self.given_up.append(name)
                raise
            time.sleep(0.01)
        return _loaded(name)


def test_c3_loading_one_model_never_blocks_another() -> None:
    """The one loading lock was held by a download: a bundled model showed nothing for as long."""
    load = _Slow()
    room = ModelRoom("a", profile=replace(LOCAL, model_loads=1), load=load)
    waiting = [threading.Thread(target=room.get, args=(f"ok/slow-{n}",)) for n in range(3)]
    for thread in waiting:
        thread.start()
    assert _until(lambda: load.begun)
    assert room.get("arrows-loop").name == "arrows-loop"
    assert len(load.begun) == 2, "those that visitors name take turns"
    load.go.set()
    for thread in waiting:
        thread.join(60)
    assert all(room.ready(f"ok/slow-{n}") for n in range(3))


def test_c3_loads_wait_for_memory_and_what_is_offered_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two large models at once would need the memory of both."""
    monkeypatch.setattr("loopviz.model.checkpoints.inspect.available_memory", lambda: 1_000)
    room, entered = ModelRoom("a", load=lambda name, *_: _loaded(name)), []

    def take(name: str, need: int) -> None:
        loading = models._Loading(name, waiters=1)
        with room._memory(need, loading):
            entered.append(name)

    with room._memory(600, models._Loading("ok/big", waiters=1)):
        second = threading.Thread(target=take, args=("ok/other", 600))
        second.start()
        take("arrows-loop", 600)
        take("ok/small", 300)
        assert entered == ["arrows-loop", "ok/small"]
        with pytest.raises(models.GivenUp), room._memory(600, models._Loading("ok/left")):
            pass
    second.join(60)
    assert entered == ["arrows-loop", "ok/small", "ok/other"]
    assert room._reserved == {}


def test_point_3_a_model_that_needs_memory_has_others_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    room = ModelRoom("a", load=lambda name, *_: _loaded(name))
    for name in ("a", "old", "new"):
        room.get(name)
    monkeypatch.setattr(
        "loopviz.model.checkpoints.inspect.available_memory", lambda: 500 if "old" in room._held else 900
    )
    with room._memory(800, models._Loading("ok/big", waiters=1)):
        assert [*room._held] == ["a", "new"], "what was needed least went, and no more than that"


def test_c3_a_load_ends_with_the_last_visitor_who_waits_for_it() -> None:
    """156 MB more were written after the visitor had left; there was no cancel."""
    load, stops = _Slow(), [threading.Event(), threading.Event()]
    room = ModelRoom("a", load=load)
    refused: list[str] = []

    def wait(stop: threading.Event) -> None:
        try:
            room.get("ok/slow", "en", stop.is_set)
        except ModelRefused as error:
            refused.append(str(error))

    threads = [threading.Thread(target=wait, args=(stop,)) for stop in stops]
    for thread in threads:
        thread.start()
    assert _until(lambda: load.begun and room._loads["ok/slow"].waiters == 2)
    room._loads["ok/slow"].until = 0.0  # no page looks
    stops[0].set()
    threads[0].join(60)
    assert "was stopped" in refused[0]
    assert load.given_up == [], "somebody else waits"
    stops[1].set()
    threads[1].join(60)
    assert _until(lambda: load.given_up == ["ok/slow"])
    assert _becomes(room, "ok/slow", "waiting")
    load.go.set()
    assert room.get("ok/slow").name == "ok/slow", "who comes later has it loaded"


def test_c3_a_page_that_was_closed_wants_nothing() -> None:
    load = _Slow()
    room = ModelRoom("a", load=load)
    room.want("ok/slow")
    assert _until(lambda: load.begun)
    room.want("ok/slow")
    assert not room._loads["ok/slow"].unwanted(), "a page has just looked"
    room._loads["ok/slow"].until = 0.0
    assert _until(lambda: load.given_up == ["ok/slow"])


def test_c3_who_pressed_stop_only_looks() -> None:
    load = _Slow()
    room = ModelRoom("a", load=load)
    assert room.want("ok/slow", look=True).state == "waiting"
    assert load.begun == []
    room.want("ok/slow")
    assert _until(lambda: load.begun)
    until = room._loads["ok/slow"].until
    assert room.want("ok/slow", look=True).state in ("importing", "loading")
    assert room._loads["ok/slow"].until == until, "a look keeps nothing alive"
    load.go.set()
    assert _becomes(room, "ok/slow", "ready")


def test_m7_a_panic_while_a_model_is_loaded_ends_as_words() -> None:
    """A panic of native code is no Exception: the page waited for ever."""

    class PanicException(BaseException):
        pass

    def load(name: str, progress: Any, local: bool) -> Loaded:
        raise PanicException("entered unreachable code")

    room = ModelRoom("a", load=load)
    with pytest.raises(ModelRefused, match="Reference"):
        room.get("a")
    assert room.status("a").state == "failed"


def test_the_reference_of_an_unforeseen_error_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def load(name: str, progress: Any, local: bool) -> Loaded:
        raise RuntimeError("secret")

    with pytest.raises(ModelRefused) as caught:
        ModelRoom("a", load=load).get("a")
    assert str(caught.value).split()[-1] in caplog.text


def _until(holds: Callable[[], Any]) -> bool:
    for _ in range(6000):
        if holds():
            return True
        time.sleep(0.01)
    return False
