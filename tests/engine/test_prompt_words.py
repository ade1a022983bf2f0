"""A prompt in a language the model does not know is said to be one (A23), by what its tokenizer has words for."""

from __future__ import annotations

from typing import Any

import pytest

from loopviz.app.controls.examples import OFFERS, offer_of
from loopviz.app.explore.run import Registry
from loopviz.app.explore.service import Service
from loopviz.app.sessions.models import ModelRoom
from loopviz.engine.local import LocalEngine as Loaded
from loopviz.engine.prompt_words import unread_share
from loopviz.model.checkpoints.load import load_checkpoint

CHINESE = "从前有一个小机器人，它住在山里。"


@pytest.fixture(scope="module")
def stories() -> Any:
    return load_checkpoint("stories-loop")


@pytest.mark.parametrize("prompt", [CHINESE, "Жил-был маленький робот", "むかしむかし"])
def test_a23_a_script_the_model_never_learned_comes_as_bytes(stories: Any, prompt: str) -> None:
    kind, pieces = unread_share(stories.tokenizer, prompt)
    assert kind == "foreign"
    assert pieces > 1.5


@pytest.mark.parametrize(
    "prompt", ["Once upon a time", "The café of Zoë was naïve", "", "1 + 2 = 3", "Tom said “你”", "→ ★"]
)
def test_a_prompt_it_can_read_is_left_alone(stories: Any, prompt: str) -> None:
    assert unread_share(stories.tokenizer, prompt) is None


def test_a23_an_unknown_word_is_told_apart() -> None:
    tokenizer = load_checkpoint("arrows-loop").tokenizer
    assert unread_share(tokenizer, "Once upon a time there was a robot")[0] == "unknown"
    assert unread_share(tokenizer, offer_of("arrows-loop").examples[0]) is None


def test_a23_the_hint_stands_beside_the_prompt(stories: Any) -> None:
    loaded = Loaded("stories-loop", stories.model, stories.tokenizer, "here")
    service = Service(ModelRoom("stories-loop", load=lambda *_: loaded), Registry())
    assert service.prompt_hint("stories-loop", CHINESE, "en") == "", "not there yet: nothing is known"
    service.room.get("stories-loop")
    for lang in ("en", "zh"):
        assert "3.0" in service.prompt_hint("stories-loop", CHINESE, lang)
    assert service.prompt_hint("stories-loop", "Once upon a time", "en") == ""


def test_a23_a_model_that_knows_some_chinese_has_a_prompt_for_it() -> None:
    assert any("\u4e00" <= char <= "\u9fff" for char in "".join(offer_of("smollm2-135m-instruct").examples))
    assert all(len(offer.examples) <= 4 for offer in OFFERS)
