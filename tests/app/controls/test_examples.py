"""The models the page offers: each known, introduced in both languages, with prompts its tokenizer can read."""

from __future__ import annotations

import re

import pytest

from loopviz.app.controls.examples import EXAMPLES_SHOWN, OFFERS, OWN, Offer, is_example, offer_of
from loopviz.app.texts import LANGUAGES, text
from loopviz.model.checkpoints.load import known_models
from loopviz.train import arrows, glassbox
from loopviz.train.recipe import Recipe


def test_the_list_is_what_can_be_loaded() -> None:
    assert [offer.name for offer in OFFERS] == list(known_models())


@pytest.mark.parametrize("offer", [*OFFERS, OWN], ids=lambda offer: offer.name)
def test_each_has_prompts_and_a_word_in_every_language(offer: Offer) -> None:
    assert 3 <= len(offer.examples) <= EXAMPLES_SHOWN
    assert len(set(offer.examples)) == len(offer.examples)
    for lang in LANGUAGES:
        assert text(lang, f"look.{offer.name or 'own'}")


def test_a_suggested_prompt_is_known_as_one() -> None:
    assert is_example(offer_of("arrows-loop").examples[2])
    assert not is_example("mine")
    assert offer_of("somebody/model") is OWN


def test_arrows_prompts_are_problems_of_growing_depth() -> None:
    tokenizer, sizes = arrows.make_tokenizer(Recipe.load("arrows-loop").arrows.nodes), []
    for prompt in offer_of("arrows-loop").examples:
        assert tokenizer.unk_token_id not in tokenizer(prompt)["input_ids"]
        *drawn, question = prompt.split()
        target = dict(arrow.split(">") for arrow in drawn)
        assert len(target) == len(drawn) == Recipe.load("arrows-loop").arrows.arrows
        assert re.fullmatch("[a-p][?]", question)
        node, hops = question[0], 0
        while node in target:
            node, hops = target[node], hops + 1
        sizes.append(hops)
    assert sorted(sizes) == [2, 4, 6, 8]


def test_glassbox_prompts_are_symbols_it_knows() -> None:
    tokenizer = glassbox.make_tokenizer()
    for prompt in offer_of("glassbox").examples:
        assert tokenizer.unk_token_id not in tokenizer(prompt)["input_ids"]


def test_what_is_said_of_noinject_is_what_was_measured() -> None:
    """A28: "good near 4 loops, where it was trained" was said of a model trained with 5 on average and best at 6."""
    import json

    from loopviz.app.explore import first_run
    from loopviz.app.texts import LANGUAGES, text

    card = first_run.FILE.parents[1] / "models" / "stories-noinject" / "README.md"
    (row,) = re.findall(r"^\| loss \(nats a token\) \|(.+)\|$", card.read_text(encoding="utf-8"), re.M)[:1]
    (loops,) = re.findall(r"^\| loops \|(.+)\|$", card.read_text(encoding="utf-8"), re.M)[:1]
    losses = dict(zip((int(n) for n in loops.split("|")), (float(loss) for loss in row.split("|")), strict=True))
    best = min(losses, key=losses.__getitem__)
    trained = json.loads((card.parent / "recipe.json").read_text(encoding="utf-8"))["loops"]
    assert best == 6
    assert losses[24] > losses[best] + 0.05, "it drifts"
    assert trained["mean"] == 5
    for lang in LANGUAGES:
        said = re.findall(r"\d+", text(lang, "look.stories-noinject"))
        assert said == ["5", "6", "24"]
