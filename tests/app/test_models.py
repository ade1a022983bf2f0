"""Models are loaded once, in the background, and a refusal is words."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from loopviz.app.models import KEEP, KEEP_SMALL, SMALL, Loaded, ModelRefused, ModelRoom, short_name
from loopviz.app.profile import PUBLIC


def _loaded(name: str) -> Loaded:
    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=3), parameters=lambda: [])
    return Loaded(name, model, None)


def test_many_who_ask_at_once_get_one_model() -> None:
    gate, loads = threading.Event(), []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loads.append(name)
        gate.wait(5)
        return _loaded(name)

    room = ModelRoom("a", load=load)
    thread, found = room.warm(), []
    others = [threading.Thread(target=lambda: found.append(room.get("a"))) for _ in range(5)]
    for other in others:
        other.start()
    assert room.ready("a") is None, "warming does not wait"
    gate.set()
    for waiting in (thread, *others):
        waiting.join(5)
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
    assert loaded.wait(5)
    room.status("a")
    room.get("a")
    assert loads == ["a"]


def test_the_default_is_loaded_although_nobody_asks() -> None:
    loaded = threading.Event()

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loaded.set()
        return _loaded(name)

    ModelRoom("a", load=load).warm_when_asked(latest=0.01)
    assert loaded.wait(5)


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
    room.warm().join(5)
    assert room.status("a").state == "failed"


def test_visitors_of_a_public_page_may_not_name_files_but_its_owner_may() -> None:
    allowed: dict[str, bool] = {}

    def load(name: str, progress: Any, local: bool) -> Loaded:
        allowed[name] = local
        return _loaded(name)

    room = ModelRoom("/models/own", profile=PUBLIC, load=load)
    room.get("/models/own")
    room.get("/etc/other")
    assert allowed == {"/models/own": True, "/etc/other": False}


def _large(name: str) -> Loaded:
    parameter = SimpleNamespace(numel=lambda: SMALL, element_size=lambda: 4)
    model = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=3), parameters=lambda: [parameter])
    return Loaded(name, model, None)


def test_only_a_few_large_models_are_held_and_the_default_never_goes() -> None:
    """A2: once visitors have used two other models, every fresh page said that the default is not loaded."""
    room = ModelRoom("a", load=lambda name, progress, local: _large(name))
    for name in "abcdef":
        room.get(name)
    assert [name for name in "abcdef" if room.ready(name) is not None] == ["a", *"ef"]
    assert len("ef") == KEEP
    assert room.status("a").state == "ready"
    assert room.status("b").state == "waiting"


def test_a_class_on_five_small_models_loads_each_once() -> None:
    loads: list[str] = []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loads.append(name)
        return _loaded(name)

    room = ModelRoom("a", load=load)
    for _ in range(30):
        for name in "bcdea":
            room.get(name)
    assert loads == [*"bcdea"]
    for n in range(2 * KEEP_SMALL):
        room.get(f"own-{n}")
    assert room.ready("a") is not None
    assert sum(room.ready(f"own-{n}") is not None for n in range(2 * KEEP_SMALL)) == KEEP_SMALL


def test_a_page_that_asks_how_far_a_model_is_has_it_loaded() -> None:
    """A2: a fresh page sat at "is not loaded yet" until somebody pressed Run."""
    gate, loads = threading.Event(), []

    def load(name: str, progress: Any, local: bool) -> Loaded:
        loads.append(name)
        gate.wait(5)
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
    for _ in range(500):
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


@pytest.mark.parametrize(
    ("name", "shown"),
    [("owner/name", "owner/name"), ("/home/me/m.gguf", "m.gguf"), ("~/m", "m"), ("smollm2", "smollm2")],
)
def test_paths_are_not_shown_whole(name: str, shown: str) -> None:
    assert short_name(name) == shown
