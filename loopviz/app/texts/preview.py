"""What the preview of a link says (see loopviz.app.server.link_preview); both languages."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "preview.explore.title": "LoopViz: watch a looped language model think",
        "preview.explore": "Type a prompt and see, word by word and loop by loop, how a language model that reads every word several "
        "times over comes to its answer.",
        "preview.learn.title": "LoopViz: lessons on looped language models",
        "preview.learn": "Guess first, then look: short lessons in which a small language model answers, loop by loop, on this very page.",
        "preview.anatomy.title": "LoopViz: inside one layer of a looped language model",
        "preview.anatomy": "For one word, one layer and one loop step of a real run: every number that was computed, in order, with its formula, "
        "its line of code and its picture.",
        "preview.compare.title": "LoopViz: ways to loop, side by side",
        "preview.compare": "The same prompt, up to six ways to loop a language model: what each costs, and what it buys.",
        "preview.lab.title": "LoopViz: measure a looped language model",
        "preview.lab": "Perplexity by loops, where to loop, which layers matter: measured on a text of your own.",
        "preview.state.title": "LoopViz: a run set up for you",
        "preview.state": "This link brings a prompt, a model and settings. Open it, press Run, and watch every word take its loops.",
        "preview.link.title": "LoopViz: {loop}, “{prompt}”",
        "preview.link": "{facts}. Open the link, press Run it, and watch every word take its loops.",
        "preview.card": "A link to a run: open it, press Run it, watch every word take its loops.",
        "preview.card.model": "model: {model}",
        "preview.card.loops": "loops",
        "preview.card.most": "at most",
        "preview.image": "A text whose words are coloured by how many loops each took",
    },
    "zh": {
        "preview.explore.title": "LoopViz：看循环语言模型如何思考",
        "preview.explore": "输入提示词，逐词逐步地看一个把每个词反复读几遍的语言模型如何得出答案。",
        "preview.learn.title": "LoopViz：循环语言模型小课",
        "preview.learn": "先猜，再看：几分钟一课，由一个小语言模型在这一页上逐次循环地给出答案。",
        "preview.anatomy.title": "LoopViz：循环语言模型的一层之内",
        "preview.anatomy": "一次真实运行中的一个词、一层、一个循环步：按顺序给出算出的每个数，附公式、代码行和图。",
        "preview.compare.title": "LoopViz：并排对比各种循环方式",
        "preview.compare": "同一提示词，最多六种循环方式：各自付出什么，又换来什么。",
        "preview.lab.title": "LoopViz：测量循环语言模型",
        "preview.lab": "不同循环次数的困惑度、在哪里循环、哪些层重要：用您自己的文本来测量。",
        "preview.state.title": "LoopViz：为您设置好的一次运行",
        "preview.state": "此链接带有提示词、模型和设置。打开后点击“运行”，看每个词走过它的循环。",
        "preview.link.title": "LoopViz 链接：{loop}，“{prompt}”",
        "preview.link": "{facts}。打开链接，点击“运行”，看每个词走过它的循环。",
        "preview.card": "这是一次运行的链接：打开它，点击“运行”，看每个词走过它的循环。",
        "preview.card.model": "模型：{model}",
        "preview.card.loops": "次循环",
        "preview.card.most": "最多",
        "preview.image": "一段文字，每个词按它循环的次数着色",
    },
}
