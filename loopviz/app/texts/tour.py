"""The tour: its steps as data. What a step points at, how the recorded run is looked at meanwhile, what it says.

Nothing here knows which run is stored: a word of the run, a number of loops, a place is a `{fact}` found in it by rule
(:mod:`loopviz.app.explore.tour`), and a step whose `claims` do not hold for it is left out. So a text states no number of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Said:
    """A step's words in one language.

    title: what it is about.
    words: plain words first, the term in brackets; `[a word](#key)` leads to the glossary's entry, `{fact}` is filled in.
    """

    title: str
    words: str


@dataclass(frozen=True)
class Question:
    """What a step asks: the answers to choose from, and what is said of one chosen.

    answers: the fact that lists them, in order.
    right: the fact that says which of them holds, from 0.
    focus: as a step's: how the run is looked at once one is chosen.
    en, zh: what is said then, when it was right and when not.
    """

    answers: str
    right: str
    focus: Mapping[str, Any]
    en: tuple[str, str]
    zh: tuple[str, str]

    def said(self, lang: str) -> tuple[str, str]:
        """What is said in `lang`: when right, when not."""
        return {"en": self.en, "zh": self.zh}[lang]


@dataclass(frozen=True)
class Step:
    """One step.

    key: its name.
    target: CSS selector of what it explains; may hold a `{fact}`.
    en, zh: its words.
    focus: fields of :class:`loopviz.panels.Focus`; what is not named is as on a page just opened. "@name" is that fact.
    shown: the fact that says how many tokens the slider shows; "" for all.
    play: whether the replay runs on from there.
    panels: panels that are on meanwhile, whatever the visitor switched; "@name" is that fact.
    claims: of :data:`loopviz.app.explore.tour.CLAIMS`: what the words take for granted of the run.
    asks: a question that the reader answers before going on, or not.
    """

    key: str
    target: str
    en: Said
    zh: Said
    focus: Mapping[str, Any] = field(default_factory=dict)
    shown: str = ""
    play: bool = False
    panels: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    asks: Question | None = None

    def said(self, lang: str) -> Said:
        """The words in `lang`, "en" or "zh"."""
        return {"en": self.en, "zh": self.zh}[lang]


STEPS: tuple[Step, ...] = (
    Step(
        "why",
        ".lv-ring",
        Said(
            "Thinking longer with the same layers",
            "A language model usually sends each word once through its layers, and then must say what comes next, however hard "
            "that is. This one may send it round again through the same {looped} layers ([looped block](#block)): no new "
            "weight, only more thinking. Here “{turn_text}” goes round {turn_loops} times. In the middle is the loop it is in; the "
            "row of guesses beside it says what the model would answer if it stopped there.",
        ),
        Said(
            "用同样的层想得更久",
            "语言模型通常让每个词只经过各层一遍，然后就必须说出下一个词，不管这有多难。这个模型可以让词再一次通过同样的 {looped} 层"
            "（[循环块](#block)）：不增加任何权重，只是多想一会儿。这里“{turn_text}”循环了 {turn_loops} 次。圆环中间是当前的循环；"
            "旁边一排猜测，是模型若停在那里会给出的回答。",
        ),
        focus={"token": "@turn"},
        claims=("loops", "turns", "true_lens"),
    ),
    Step(
        "text",
        ".lv-text",
        Said(
            "A word goes round several times",
            "This is a run made earlier and stored (recorded run). Before the model says what comes next, it sends each word "
            "([token](#token)) through the same layers again and again ([loop steps](#loop_step)). The colour of a word "
            "tells how many loops it took; below the text it says which colour is which.",
        ),
        Said(
            "一个词会循环好几遍",
            "这是预先生成并保存的一次运行（录制的运行）。模型在说出下一个词之前，会让每个词（[词元](#token)）一遍又一遍地通过同样的层"
            "（[循环步](#loop_step)）。词的颜色表示它循环了多少次；文字下方说明哪种颜色是几次。",
        ),
        claims=("loops",),
    ),
    Step(
        "replay",
        ".lv-player",
        Said(
            "Watch it being written",
            "The run plays again, from where the prompt ended and the model went on. Drag the slider to any word, or press "
            "Space to stop and to go on: every picture below follows.",
        ),
        Said(
            "看它怎样写出来",
            "运行正在回放：从提示词结束、模型接着写的地方开始。把滑块拖到任意一个词，或按空格键暂停和继续：下面所有的图都会跟着变化。",
        ),
        shown="prompt",
        play=True,
        claims=("goes_on",),
    ),
    Step(
        "hard",
        "#lv-word-{hard}",
        Said(
            "A hard word",
            "The slider now stands where “{hard_text}” had just been read. The model took {hard_loops} loops over "
            "it, more than over most others. Why it stopped there: {hard_why}. The word is held, so the pictures "
            "show this word. A click on another word holds that one.",
        ),
        Said(
            "一个难词",
            "滑块现在停在刚读入“{hard_text}”的地方。模型为它循环了 {hard_loops} 次，比大多数词都多。停止的原因：{hard_why}。"
            "这个词已被选定，所以各图显示的都是它。点击别的词就选定别的词。",
        ),
        focus={"token": "@hard"},
        shown="hard_read",
        claims=("uneven",),
    ),
    Step(
        "curve",
        '[data-panel="convergence"]',
        Said(
            "How much each loop still changes",
            "From left to right stand the loops over “{hard_text}”. The top curve tells how far each one turned what "
            "the model holds of the word ([state](#state)), the middle one how far it moved the guess at the next word "
            "([KL divergence](#kl)), the bottom one how long its step was beside the state itself. At the last loop each is "
            "less than a tenth of what it was at the first. The dashed line across the middle marks where the loop may stop "
            "([threshold](#threshold)); the dotted grey one across the top is not used here.",
        ),
        Said(
            "每次循环还改变多少",
            "从左到右是“{hard_text}”的各次循环。最上面的曲线表示每次循环使模型对这个词的记录（[状态](#state)）转动了多少，"
            "中间的曲线表示对下一个词的猜测移动了多少（[KL 散度](#kl)），最下面的曲线表示这一步相对于状态本身有多长。"
            "到最后一次循环，三者都不到第一次的十分之一。中间图里的虚线表示到哪里就可以停止（[阈值](#threshold)）；"
            "最上面图里的灰色点线表示这里不使用。",
        ),
        focus={"token": "@hard"},
        panels=("convergence",),
        claims=("uneven", "stops_by_kl", "calms"),
    ),
    Step(
        "guess",
        '[data-panel="would_say"]',
        Said(
            "It changes its mind",
            "Now “{turn_text}” is held. A row is a loop, from the top down, with what the model would say next if it "
            "stopped there ([exit lens](#exit_lens)). After the first loop “{turn_first}” is ahead; from loop {turn_step} on "
            "it is “{turn_last}”. A triangle marks a change of the winner.",
        ),
        Said(
            "它改变了主意",
            "现在选定的是“{turn_text}”。一行是一次循环，从上到下；每行是模型若停在这里，接下来会说的词（[出口透镜](#exit_lens)）。"
            "第一次循环之后领先的是“{turn_first}”，从第 {turn_step} 次循环起是“{turn_last}”。三角表示第一名换了。",
        ),
        focus={"token": "@turn"},
        panels=("would_say",),
        claims=("turns", "true_lens"),
    ),
    Step(
        "map",
        '[data-panel="token_loop_map"]',
        Said(
            "The whole text at a glance",
            "A column is a word, a row a loop, from the bottom up. The colour tells how far the guess still moved in that "
            "loop: the choice at the top of the panel was just set to that ([KL divergence](#kl)); try another one. "
            "A click on a cell holds that word and that loop, as “{hard_text}” and its loop {hard_step} are held now.",
        ),
        Said(
            "一眼看全文",
            "一列是一个词，一行是一次循环，从下到上。颜色表示这次循环里猜测还移动了多少：面板上方的选项刚刚换成了它（[KL 散度](#kl)），"
            "也可以试试别的。点击一格就选定那个词和那次循环；现在选定的是“{hard_text}”和它的第 {hard_step} 次循环。",
        ),
        focus={"token": "@hard", "step": "@hard_step", "metric": "kl"},
        panels=("token_loop_map",),
        claims=("uneven",),
    ),
    Step(
        "path",
        '[data-panel="state_trajectory"]',
        Said(
            "Two words, two paths",
            "“{easy_text}” took only {easy_loops} loops, “{hard_text}” took {hard_loops}. Both are pinned, so both stay "
            "in sight: the pink path is that of “{hard_text}”, the grey one that of “{easy_text}”. A path shows where the "
            "[state](#state) goes, loop by loop, from an open circle to a filled mark: a list of {hidden} numbers, drawn along "
            "the two directions in which states differ most.",
        ),
        Said(
            "两个词，两条路径",
            "“{easy_text}”只循环了 {easy_loops} 次，“{hard_text}”循环了 {hard_loops} 次。两个词都已固定，所以会一直显示：粉色的是“{hard_text}”的路径，灰色的是“{easy_text}”的路径。"
            "路径表示[状态](#state)随每次循环从空心圆走到实心标记：状态是 {hidden} 个数字，这里沿差别最大的两个方向画出。",
        ),
        focus={"token": "@hard", "pins": ("@easy", "@hard")},
        panels=("state_trajectory",),
        claims=("uneven",),
    ),
    Step(
        "memory",
        '[data-panel="kv_occupancy"]',
        Said(
            "What it keeps of a word",
            "Of every word the model keeps notes that later words look up ([KV cache](#kv_cache)). But which loop's notes? "
            "One place shared by all loops ([slot](#slot)) keeps the latest. With several slots loops take turns, and each reads its "
            "own ([serial](#serial)), or every loop reads all ([parallel](#parallel)). Or all are blended into one "
            "([merge](#merge)). Taking turns has a catch: with two slots, odd and even loops read different notes, and may "
            "never agree, however easy the word. This run: {memory}.",
        ),
        Said(
            "它为一个词保留什么",
            "模型为每个词保留一份笔记，供后面的词查看（[KV 缓存](#kv_cache)）。但保留哪一次循环的笔记？所有循环共用一个位置"
            "（[槽位](#slot)），就只留下最后的；有几个槽位时，各次循环轮流使用，可以只读自己的（[串行](#serial)），也可以每次都读全部"
            "（[并行](#parallel)）；或者全部合成一份（[合并](#merge)）。轮流使用有一个陷阱：若有两个槽位，奇数次与偶数次循环看的是不同的笔记，无论词多容易都可能永远谈不拢。这次运行：{memory}。",
        ),
        panels=("kv_occupancy",),
        claims=("loops",),
    ),
    Step(
        "panels",
        ".lv-shelf",
        Said(
            "Switch pictures on and off",
            "“{panel}” was just switched on. Some panels need more than every run records: it is recorded only while they "
            "are on, and what that costs is said where they are switched on. Where a run lacks it, the panel says so.",
        ),
        Said(
            "打开和关闭面板",
            "刚刚打开了“{panel}”。有些面板需要的内容并非每次运行都会记录：只有面板打开时才记录，打开时会说明代价。"
            "若某次运行没有记录，面板会如实说明。",
        ),
        panels=("@panel_name",),
        claims=("has_more",),
    ),
    Step(
        "yours",
        "#lv-ask",
        Said(
            "Now your own",
            "A click under “{ways}” sets another way to loop, or to remember, and runs the prompt at once; the line below "
            "says what to look for. Or type a beginning of your own and press “{run}”. Your run then takes the place "
            "of this one, and ends the tour.",
        ),
        Said(
            "现在轮到您",
            "点击“{ways}”中的一项，就会换一种循环或记忆的方式，并立即运行提示词；下面一行说明该看什么。也可以自己输入一个开头，"
            "再按“{run}”。您的运行会取代这次录制的运行，导览也随之结束。",
        ),
    ),
    Step(
        "more",
        "#lv-learn",
        Said(
            "Look things up",
            "The glossary explains every term, with its formula. “{how}” at the foot of a panel leads on to the code itself. "
            "The key ? lists all keys. This tour, too, can be taken again from here.",
        ),
        Said(
            "随时查阅",
            "术语表解释每一个术语，并附公式。面板底部的“{how}”一直通向代码本身。按 ? 键可列出全部按键。这个导览也可以从这里再走一遍。",
        ),
    ),
    Step(
        "question",
        ".lv-strip",
        Said(
            "One question before you go",
            "Look at “{turn_text}” once more. Had its loop been ended after {cut} of its {turn_loops} loops, what would the model "
            "have said next?",
        ),
        Said(
            "走之前的一个问题",
            "再看一眼“{turn_text}”。它一共循环了 {turn_loops} 次；如果在第 {cut} 次循环之后就停下，模型接下来会说什么？",
        ),
        focus={"token": "@turn"},
        claims=("turns", "true_lens"),
        asks=Question(
            "cut_answers",
            "cut_right",
            {"token": "@turn", "step": "@cut"},
            (
                "Yes: “{cut_text}”. After all its loops it says “{turn_last}”. The lessons ask more such questions.",
                "After loop {cut} it says “{cut_text}”; it is marked in the row now. After all its loops it says “{turn_last}”. "
                "The lessons ask more such questions.",
            ),
            (
                "对，是“{cut_text}”。全部循环之后它说的是“{turn_last}”。课程里还有更多这样的问题。",
                "第 {cut} 次循环之后它会说“{cut_text}”，现在那一排里已标出。全部循环之后它说的是“{turn_last}”。课程里还有更多这样的问题。",
            ),
        ),
    ),
)
