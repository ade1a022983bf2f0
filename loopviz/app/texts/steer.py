"""What the page says of settings changed while a run is being made, and of settings that follow others; both languages."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "live.changed": "The next word is read with {what}.",
        "live.not_now": "Not in this run: {reason}",
        "live.fitted": "Versions kept (V) lowered to {slots}: a word that settles early must still have filled every slot.",
        "later": "⏭ For the next run: {reason}",
        "later.layout": "the running one keeps its words in a cache laid out for the earlier value.",
        "later.model": "the running one goes on with its own model.",
        "later.sampling": "how the running one chooses its words was settled when it began.",
        "virtual_layer_count.info.dynamic": "Loop step r writes slot (r − 1) mod V. At most {most} here (never fewer than "
        "{most} loops), so that every word fills every slot.",
        "about.changed": "from token {t}: {what}",
        "about.changes": "changed {n} times, last from token {t}: {what}",
    },
    "zh": {
        "live.changed": "从下一个词起使用 {what}。",
        "live.not_now": "本次运行不能这样改：{reason}",
        "live.fitted": "保留的版本数（V）已降为 {slots}：即使一个词很快稳定下来，也必须写满每个槽位。",
        "later": "⏭ 下次运行生效：{reason}",
        "later.layout": "正在进行的运行，其缓存是按原来的值布局的。",
        "later.model": "正在进行的运行继续使用它自己的模型。",
        "later.sampling": "正在进行的运行如何选词，在开始时已经确定。",
        "virtual_layer_count.info.dynamic": "第 r 步写入槽位 (r − 1) mod V。此处最多 {most}（循环不少于 {most} 次），这样每个词都写满所有槽位。",
        "about.changed": "从词元 {t} 起：{what}",
        "about.changes": "更改了 {n} 次，最近一次从词元 {t} 起：{what}",
    },
}
