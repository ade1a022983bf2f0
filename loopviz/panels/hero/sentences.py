"""A paragraph about one word, made by rules from recorded numbers: what it guessed, why it stopped, what fewer loops had said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loopviz.figures import labels
from loopviz.panels.hero import strip
from loopviz.panels.hero.facts import Facts, Guess, Stop, facts_of

if TYPE_CHECKING:
    from loopviz.panels.kit.focus import Focus
    from loopviz.trace.trace import Trace

TOLD = 4  # changes of the guess told one by one

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "block": "In block {block}: ",
        "plain": "This model does not loop: “{word}” went through its layers once.",
        "skipped": "For “{word}” the loop was skipped: no loop ran.",
        "unknown": "What was guessed after each loop was not recorded in this run.",
        "wanted": "Then the model wanted “{text}”{p}.",
        "once": "After “{word}” the model wanted “{text}”{p}.",
        "always": "After “{word}” the model wanted “{text}” at every loop, with {first} first and {last} in the end.",
        "always_bare": "After “{word}” the model wanted “{text}” at every loop.",
        "first": "After “{word}” the model first wanted “{text}”{p}.",
        "turn_first": "Loop {step} brought “{text}”",
        "turn": ", loop {step} “{text}”",
        "turns": "Its guess changed {count} times; the last change, in loop {step}, brought “{text}”",
        "end": ", which had {p} in the end.",
        "end_bare": ".",
        "direct": "These guesses are read straight from the state (direct lens); the layers after the loop may still change them.",
        "given": "The prompt itself goes on with “{text}”.",
        "drawn": "“{text}”{p} was drawn.",
        "wrote": "It wrote “{text}”{p}.",
        "count": "Every word takes {n} loops here: the number is fixed.",
        "count_same": "It took {n} loops, a fixed number.",
        "kl": "It stopped after {n} loops: the last moved its guess by {value} nats, within the limit of {limit}.",
        "cosine": "It stopped after {n} loops: the last hardly turned its state (cosine {value}, limit {limit}).",
        "kl_bare": "It stopped after {n} loops, when its guess hardly moved any more.",
        "cosine_bare": "It stopped after {n} loops, when its state hardly turned any more.",
        "max": "It was stopped at {n} loops, the most allowed.",
        "max_kl": "It was stopped at {n} loops, the most allowed; the last still moved its guess by {value} nats, more than the limit of {limit}.",
        "max_cosine": "It was stopped at {n} loops, the most allowed; the last still turned its state (cosine {value}, limit {limit}).",
        "chooser": "After {n} loops the chooser of layers, “{name}”, let no more run.",
        "chooser_none": "The chooser of layers, “{name}”, let none run.",
        "other": "The rule “{name}” stopped it after {n} loops.",
        "least": "No word may stop sooner.",
        "together": "The prompt's {count} tokens were read together and share their loops.",
        "together_kl": "They stopped after {n} loops: the last moved their guesses by {value} nats on average, within the limit of {limit}.",
        "together_cosine": "They stopped after {n} loops: the last hardly turned their states (mean cosine {value}, limit {limit}).",
        "together_max": "They were stopped at {n} loops, the most allowed.",
        "together_other": "They took {n} loops.",
        "most_alone": "No other of the {others} words written took as many.",
        "most_tied": "Of the {others} other words written none took more, and {same} as many.",
        "all": "Each of the {others} other words written took as many.",
        "middle": "Of the {others} other words written {more} took more loops and {same} as many.",
        "fewer": "With {r} loops here it would have chosen “{text}”.",
        "fewer_drawn": "With {r} loops here its likeliest word would have been “{text}”.",
        "fewer_same": "With fewer loops here it would have chosen the same.",
        "fewer_same_drawn": "With fewer loops here its likeliest word would have been the same.",
        "join": " ",
        "p": " ({p})",
        "over": "over 99 %",
        "under": "under 1 %",
        "percent": "{p} %",
    },
    "zh": {
        "block": "在块 {block} 中：",
        "plain": "这个模型不循环：“{word}”只经过各层一次。",
        "skipped": "“{word}”跳过了循环：没有运行任何循环步。",
        "unknown": "本次运行没有记录每次循环之后的猜测。",
        "wanted": "随后模型想说“{text}”{p}。",
        "once": "读到“{word}”之后，模型想说“{text}”{p}。",
        "always": "读到“{word}”之后，模型每次循环都想说“{text}”，起初为 {first}，最后为 {last}。",
        "always_bare": "读到“{word}”之后，模型每次循环都想说“{text}”。",
        "first": "读到“{word}”之后，模型起初想说“{text}”{p}。",
        "turn_first": "第 {step} 次循环带来“{text}”",
        "turn": "，第 {step} 次“{text}”",
        "turns": "猜测共改变 {count} 次；最后一次在第 {step} 次循环，带来“{text}”",
        "end": "，最后概率为 {p}。",
        "end_bare": "。",
        "direct": "这些猜测直接从状态读出（直接透镜），循环之后的各层仍可能改变它们。",
        "given": "提示词自己接着说“{text}”。",
        "drawn": "抽中的是“{text}”{p}。",
        "wrote": "它写下了“{text}”{p}。",
        "count": "这里每个词都循环 {n} 次：次数是固定的。",
        "count_same": "它循环了 {n} 次，次数是固定的。",
        "kl": "它在 {n} 次循环后停下：最后一次只让猜测移动了 {value} 奈特，不超过界限 {limit}。",
        "cosine": "它在 {n} 次循环后停下：最后一次几乎没有转动状态（余弦 {value}，界限 {limit}）。",
        "kl_bare": "它在 {n} 次循环后停下，那时猜测已几乎不动。",
        "cosine_bare": "它在 {n} 次循环后停下，那时状态已几乎不转。",
        "max": "它在第 {n} 次循环被停下，这是允许的最多次数。",
        "max_kl": "它在第 {n} 次循环被停下，这是允许的最多次数；最后一次仍让猜测移动了 {value} 奈特，超过界限 {limit}。",
        "max_cosine": "它在第 {n} 次循环被停下，这是允许的最多次数；最后一次仍在转动状态（余弦 {value}，界限 {limit}）。",
        "chooser": "{n} 次循环之后，层选择器“{name}”不再让任何层运行。",
        "chooser_none": "层选择器“{name}”没有让任何层运行。",
        "other": "规则“{name}”在 {n} 次循环后让它停下。",
        "least": "任何词都不能更早停下。",
        "together": "提示词的 {count} 个词元是一起读入的，循环次数相同。",
        "together_kl": "它们在 {n} 次循环后停下：最后一次平均只让猜测移动了 {value} 奈特，不超过界限 {limit}。",
        "together_cosine": "它们在 {n} 次循环后停下：最后一次几乎没有转动状态（平均余弦 {value}，界限 {limit}）。",
        "together_max": "它们在第 {n} 次循环被停下，这是允许的最多次数。",
        "together_other": "它们循环了 {n} 次。",
        "most_alone": "其余 {others} 个写出的词都没有循环这么多次。",
        "most_tied": "其余 {others} 个写出的词中没有循环更多次的，{same} 个同样多。",
        "all": "其余 {others} 个写出的词也都循环了这么多次。",
        "middle": "其余 {others} 个写出的词中，{more} 个循环更多次，{same} 个同样多。",
        "fewer": "若在这里只循环 {r} 次，它会选“{text}”。",
        "fewer_drawn": "若在这里只循环 {r} 次，它最可能的词会是“{text}”。",
        "fewer_same": "在这里循环更少次，它的选择也一样。",
        "fewer_same_drawn": "在这里循环更少次，它最可能的词也一样。",
        "join": "",
        "p": "（{p}）",
        "over": "超过 99 %",
        "under": "不到 1 %",
        "percent": "{p} %",
    },
}


def piece(text: str) -> str:
    """A piece as it stands in a sentence."""
    return labels.plain(labels.show_token(text))


def share(p: float | None, words: Mapping[str, str]) -> str:
    """A probability in whole per cent; "" when it is not known."""
    if p is None:
        return ""
    whole = strip.whole_percent(p)
    return words["under"] if whole < 1 else words["over"] if whole > 99 else words["percent"].format(p=whole)


class _Teller:
    """Sentences in one language.

    Args:
        facts: what they are about.
        lang: "en" or "zh".
    """

    def __init__(self, facts: Facts, lang: str) -> None:
        self.facts, self.lang, self.words = facts, lang, WORDS[lang]

    def say(self, key: str, **values: object) -> str:
        """A sentence; pieces in it are never read as places of a template."""
        return labels.fill(self.words[key], **values)

    def in_brackets(self, p: float | None) -> str:
        """A probability behind a word."""
        return self.say("p", p=share(p, self.words)) if p is not None else ""

    def paragraph(self) -> str:
        """All of it."""
        parts = [*self.guessed(), *self.wrote(), *self.stopped(), *self.ranked(), *self.fewer()]
        before = self.say("block", block=self.facts.block) if self.facts.blocks > 1 else ""
        return before + self.words["join"].join(part for part in parts if part)

    # --- what it guessed ----------------------------------------------------------------------------------------------

    def guessed(self) -> list[str]:
        """From the first guess to the last."""
        facts, word = self.facts, piece(self.facts.word)
        if not facts.loops:
            known = facts.final
            wanted = [self.say("wanted", text=piece(known.text), p=self.in_brackets(known.p))] if known else []
            return [self.say("plain" if facts.loops is None else "skipped", word=word), *wanted]
        if not facts.guesses or facts.final is None:
            return [self.say("unknown")]
        first = facts.guesses[0]
        direct = [] if facts.true_lens else [self.say("direct")]
        if len(facts.guesses) == 1:
            return [self._unchanged(word, first, facts.final), *direct]
        return [
            self.say("first", word=word, text=piece(first.text), p=self.in_brackets(first.p)),
            self._turned(),
            *direct,
        ]

    def _unchanged(self, word: str, first: Guess, last: Guess) -> str:
        if self.facts.loops == 1:
            return self.say("once", word=word, text=piece(first.text), p=self.in_brackets(first.p))
        if first.p is None or last.p is None:
            return self.say("always_bare", word=word, text=piece(first.text))
        shares = {"first": share(first.p, self.words), "last": share(last.p, self.words)}
        return self.say("always", word=word, text=piece(first.text), **shares)

    def _turned(self) -> str:
        turns, final = self.facts.guesses[1:], self.facts.final
        assert final is not None  # there are guesses
        end = self.say("end_bare") if final.p is None else self.say("end", p=share(final.p, self.words))
        if len(turns) > TOLD:
            last = turns[-1]
            return self.say("turns", count=len(turns), step=last.step, text=piece(last.text)) + end
        said = [
            self.say("turn" if i else "turn_first", step=turn.step, text=piece(turn.text))
            for i, turn in enumerate(turns)
        ]
        return "".join(said) + end

    def wrote(self) -> list[str]:
        """What came next, where that is not its last guess."""
        facts = self.facts
        if facts.given:
            return [self.say("given", text=piece(facts.wrote))]
        if facts.is_final and facts.guesses:
            return []
        key = "drawn" if facts.drawn else "wrote"
        return [self.say(key, text=piece(facts.wrote), p=self.in_brackets(facts.wrote_p))]

    # --- why it stopped -----------------------------------------------------------------------------------------------

    def stopped(self) -> list[str]:
        """The reason, with the number that was compared and its limit where there are such."""
        facts, stop = self.facts, self.facts.stop
        if stop is None:
            return []
        if not facts.loops:
            return [self.say("chooser_none", name=piece(stop.reason))] if stop.chosen else []
        least = [self.say("least")] if stop.least and stop.reason in ("kl", "cosine") else []
        if facts.together > 1:
            return [self.say("together", count=facts.together), self._together(stop), *least]
        return [self._alone(stop), *least]

    def _numbers(self, stop: Stop) -> dict[str, str] | None:
        if stop.value is None or stop.limit is None:
            return None
        return {"value": _number(stop.value, stop.measure), "limit": _number(stop.limit, stop.measure)}

    def _together(self, stop: Stop) -> str:
        n, numbers = self.facts.loops, self._numbers(stop)
        if stop.reason in ("kl", "cosine") and numbers:
            return self.say(f"together_{stop.reason}", n=n, **numbers)
        return self.say("together_max" if stop.reason == "max" else "together_other", n=n)

    def _alone(self, stop: Stop) -> str:
        n, reason, numbers = self.facts.loops, stop.reason, self._numbers(stop)
        if reason == "count":
            return self.say("count" if self._all_alike() else "count_same", n=n)
        if reason in ("kl", "cosine"):
            return self.say(reason, n=n, **numbers) if numbers else self.say(f"{reason}_bare", n=n)
        if reason == "max":
            beyond = numbers and _beyond(stop)
            return self.say(f"max_{stop.measure}", n=n, **numbers) if numbers and beyond else self.say("max", n=n)
        return self.say("chooser" if stop.chosen else "other", n=n, name=piece(reason))

    def _all_alike(self) -> bool:
        """Whether all words written took as many: a count may have been changed during the run."""
        place = self.facts.place
        return place is None or place.same == place.others

    # --- how it compares ------------------------------------------------------------------------------------------------

    def ranked(self) -> list[str]:
        """Its loops among those of the other words written; ties are told."""
        place, stop = self.facts.place, self.facts.stop
        if place is None or (stop and stop.reason == "count" and self._all_alike()):
            return []
        if place.same == place.others:
            key = "all"
        elif place.more:
            key = "middle"
        else:
            key = "most_tied" if place.same else "most_alone"
        return [self.say(key, more=place.more, same=place.same, others=place.others)]

    def fewer(self) -> list[str]:
        """What fewer loops would have chosen at this place, where the run knows it."""
        facts = self.facts
        if not facts.knows_fewer:
            return []
        drawn = "_drawn" if facts.drawn else ""
        if facts.fewer is None:
            return [self.say(f"fewer_same{drawn}")]
        return [self.say(f"fewer{drawn}", r=facts.fewer.step, text=piece(facts.fewer.text))]


def _beyond(stop: Stop) -> bool:
    """Whether the last step's number is on the far side of the limit."""
    assert stop.value is not None  # where there are numbers
    assert stop.limit is not None
    return stop.value > stop.limit if stop.measure == "kl" else stop.value < stop.limit


def _number(value: float, measure: str) -> str:
    """As people write it: a divergence to three digits, a cosine to as many as tell it from one."""
    return labels.number(value, "en") if measure == "kl" else f"{value:.7g}"


def explain(trace: Trace, focus: Focus) -> dict[str, Any] | None:
    """What is said of the selected token: `{"token", "block", "text", "branch"}`; None when there is none, or none of that block.

    `branch`: what can be tried from here, `{"token", "loops"}`: the run up to and with this token, with so many loops; or None.
    """
    at = focus.selected(len(trace))
    if at is None or (trace.meta["blocks"] and focus.block >= len(trace.frames[at]["blocks"])):
        return None
    facts = facts_of(trace, at, focus)
    branch = None if facts.branch is None else {"token": facts.token, "loops": facts.branch}
    told = _Teller(facts, focus.lang).paragraph()
    return {"token": facts.token, "block": focus.block, "text": told, "branch": branch}
