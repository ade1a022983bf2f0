"""What is said as something is started, waits, or gives way to another model; both languages."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        # beside the buttons
        "live.state.starting": "starting…",
        "live.state.running": "writing · {n} words",
        "live.full": "Not started: {n} runs are waiting already, and no more can. Try again in a minute.",
        "live.state.stopping": "stopping…",
        "live.queued.next": "waiting for a free place · you are next · running now: {running}",
        # beside a control
        "gave": "⚠ You had set {was}; {model} cannot have that, so this is its own value.",
        "gave.card": "⚠ It was set to {was}; this model cannot have that, so this is its own value.",
        "gave.true": "on",
        "gave.false": "off",
        # a prompt that is too long
        "refused.beside": "Not started: see the ⚠ beside the prompt.",
        "refused.has": "Run {model}, which has it",
        "compare.prompt.hint": "Shift+Enter compares, Enter makes a line.",
        "prompt.keep": "Keep the last {n} tokens",
        # the run of a link
        "live.linked": "This link holds a set-up, not a result",
        "live.linked.of": "This link: {loop}, “{prompt}”",
        "live.linked.why": "A link holds a set-up and no result, and runs nothing by itself: press Run it, and the run waits for a free "
        "place like any other and can be stopped.",
        "live.linked.prompt": "Prompt",
        "live.linked.model": "Model",
        "live.linked.loop": "How it loops",
        "live.linked.run": "Run it",
        "live.model.load": "Load this model",
        "live.model.check": "Check this checkpoint",
        "live.model.check.hint": "In the Lab: what it is, whether every weight is a number, its perplexity plain and looped. Some seconds.",
        "live.linked.recorded": "Show the recorded run",
        # the same run once more
        "live.rerun.same": "Run again with this run's own settings: they are put into the controls",
        "live.rerun.lost": "This run's settings cannot be put into the controls: {names}.",
        "live.rerun.gone": "The server no longer keeps this run, so its settings are not known.",
    },
    "zh": {
        "live.state.starting": "正在开始…",
        "live.state.running": "正在生成 · {n} 个词",
        "live.full": "未开始：已有 {n} 个运行在等待，不能再多了。请过一分钟再试。",
        "live.state.stopping": "正在停止…",
        "live.queued.next": "等待空位 · 下一个就是您 · 正在运行：{running}",
        "gave": "⚠ 您曾设为 {was}；{model} 无法这样设置，因此改用它自己的值。",
        "gave.card": "⚠ 曾设为 {was}；此模型无法这样设置，因此改用它自己的值。",
        "gave.true": "开",
        "gave.false": "关",
        "refused.beside": "未开始：见提示词旁边的 ⚠。",
        "refused.has": "改用具备此项的 {model} 运行",
        "compare.prompt.hint": "按 Shift+Enter 比较，按 Enter 换行。",
        "prompt.keep": "保留最后 {n} 个词元",
        "live.linked": "这个链接保存的是设置，不是结果",
        "live.linked.of": "此链接：{loop}，“{prompt}”",
        "live.linked.why": "链接保存的是设置而不是结果，也不会自行运行任何内容：点击“运行”后，它与其他运行一样等待空位，并可随时停止。",
        "live.linked.prompt": "提示词",
        "live.linked.model": "模型",
        "live.linked.loop": "如何循环",
        "live.linked.run": "运行",
        "live.model.load": "加载此模型",
        "live.model.check": "检查这个检查点",
        "live.model.check.hint": "在实验室中：它是什么、每个权重是否为数值、不循环与循环时的困惑度。只需几秒。",
        "live.linked.recorded": "显示录制的运行",
        "live.rerun.same": "用这次运行自己的设置再运行一次：设置会填入各控件",
        "live.rerun.lost": "这次运行的设置无法填入控件：{names}。",
        "live.rerun.gone": "服务器已不再保存这次运行，因此不知道它的设置。",
    },
}
