"""What the page says of learning: the tour's and the glossary's buttons, links to the code; both languages."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "live.code": "Code",
        "live.code.hint": "Opens the file as this installation runs it",
    },
    "zh": {
        "live.code": "代码",
        "live.code.hint": "打开本机安装、正在运行的这个文件",
    },
}
