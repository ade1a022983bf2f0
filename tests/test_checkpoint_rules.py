"""Why a checkpoint's files are refused is data, and said in both languages: every rule, every part of one, every reason of the tables."""

from __future__ import annotations

import ast
import pickle
import re

import pytest
import torch

from loopviz.app.controls.refusal import told
from loopviz.app.texts import text
from loopviz.app.texts.checkpoints import WORDS_IN
from loopviz.checkpoint_rules import RULES, WORDS, Phrase, Phrases, Reason
from loopviz.model.checkpoints import inspect
from loopviz.model.checkpoints.errors import CheckpointRuleError
from loopviz.model.checkpoints.keys import CONFIG_KEYS, GGUF_KEYS, ONLY, REFUSED, TOKENIZER_KEYS
from loopviz.model.checkpoints.packed_folder import ADVICE
from loopviz.model.families import FAMILIES
from loopviz.model.families import REFUSED as NOT_RUN
from loopviz.paths import PACKAGE
from tests.test_checks import places

CHINESE = re.compile(r"[\u4e00-\u9fff]")
OF_FAMILIES = tuple(row for family in FAMILIES for row in family.keys)
REASONS = {
    row.why for row in (*CONFIG_KEYS, *OF_FAMILIES, *TOKENIZER_KEYS, *GGUF_KEYS) if row.verdict in (ONLY, REFUSED)
}
REASONS |= {*NOT_RUN.values(), inspect.LLAMAS, inspect.NO_BIASES, inspect.NO_LLAMAS, ADVICE}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_said_in_chinese_with_the_same_places(rule):
    said = text("zh", f"checkpoint.{rule}")
    assert CHINESE.search(said)
    assert places(said) == places(RULES[rule])
    assert text("en", f"checkpoint.{rule}") == RULES[rule]


@pytest.mark.parametrize("word", WORDS)
def test_every_part_of_a_rule_is_there_in_chinese_with_the_same_places(word):
    assert places(WORDS_IN["zh"][word]) == places(WORDS[word])
    assert WORDS_IN["zh"][word] != WORDS[word]


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_is_said_in_chinese(reason):
    """Of each key that is refused, or taken with some values alone: a reason that is reworded is said anew in both."""
    assert CHINESE.search(Reason(reason).said(WORDS_IN["zh"]))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_named_in_chinese(family):
    assert Reason(family.title) in WORDS_IN["zh"]


def test_whoever_refuses_fills_every_place_of_the_rule_and_no_rule_is_left_over():
    used, wrong = set(), []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "CheckpointRuleError":
                (rule,) = [part.value for part in node.args if isinstance(part, ast.Constant)] or [None]
                given = {word.arg for word in node.keywords if word.arg}
                used.add(rule)
                if rule is not None and rule != "memory" and given != places(RULES[rule]):
                    wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []
    assert used - {None} == {*RULES}


def test_it_goes_to_another_process_whole():
    names = Phrases([Phrase("shape", {"name": "a.weight", "found": [7], "wanted": [32]}), "b.weight"])
    faults = Phrases([Phrase("missing", {"n": 9, "names": Phrase("others", {"names": names})})], "parts")
    error = CheckpointRuleError("tensors", folder="f", family=Reason("Ouro"), faults=faults)
    again = pickle.loads(pickle.dumps(error))
    assert "9 missing: a.weight [7] instead of [32], b.weight and others. Configuration" in str(error)
    assert (str(again), again.rule) == (str(error), "tensors")
    assert told(again, "zh") == told(error, "zh")
    assert "属于 Ouro，而其张量不是：缺少 9 个：a.weight 为 [7]，应为 [32]、b.weight 等。" in told(error, "zh")
    assert told(error, "en") == str(error)


def test_memory_that_lacks_is_told_in_chinese_too():
    with pytest.raises(CheckpointRuleError, match=r"needs about 2\.00 GB of memory and 1\.00 GB are free") as caught:
        inspect.check_memory(2 * 10**9, "mine", torch.float32, 10**9)
    assert told(caught.value, "zh") == (
        "dtype=torch.float32：mine 约需 2.00 GB 内存，而空闲内存为 1.00 GB；请选择更小的检查点，或 dtype=torch.bfloat16，或关闭其他程序"
    )
