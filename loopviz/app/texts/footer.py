"""What stands at the foot of every page (:mod:`loopviz.app.server.footer`), in English and Chinese."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "foot.license": "{name} licence",
        "foot.source": "Source: {where}",
        "foot.source.here": "Source: the code of this very installation",
        "foot.cite": "Cite (BibTeX)",
        "foot.cited": "Copied",
        "foot.verified": "✓ verified: measured = exact to {most}",
        "foot.verified.hint": "On {model}, a model whose every number is known beforehand, what was measured differs from what must come "
        "out by at most {cosine} (cosines) and {rate} (rate), over {tokens} words. Recorded with LoopViz {version}. Click to run this "
        "check here and see its panel.",
    },
    "zh": {
        "foot.license": "{name} 许可证",
        "foot.source": "源代码：{where}",
        "foot.source.here": "源代码：此安装正在运行的代码",
        "foot.cite": "引用（BibTeX）",
        "foot.cited": "已复制",
        "foot.verified": "✓ 已验证：测量值与精确值相差不超过 {most}",
        "foot.verified.hint": "在每个数值都预先已知的模型 {model} 上，测量值与应有值最多相差 {cosine}（余弦）和 {rate}（收缩率），共 {tokens} 个词。"
        "由 LoopViz {version} 记录。点击即可在此运行这项检验并查看其面板。",
    },
}
