"""What the page says of learning: the tour's and the glossary's buttons, links to the code; both languages."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "live.glossary": "Glossary",
        "live.glossary.hint": "What the words on this page mean, with formulas",
        "live.glossary.search": "Search a word",
        "live.glossary.found": "{n} of {total} entries",
        "live.glossary.see": "See also:",
        "live.glossary.failed": "The glossary could not be fetched. Close it and open it again.",
        "live.code": "Code",
        "live.code.hint": "Opens the file as this installation runs it",
    },
    "zh": {
        "live.glossary": "术语表",
        "live.glossary.hint": "页面上各个词的含义与公式",
        "live.glossary.search": "搜索词语",
        "live.glossary.found": "共 {total} 条，找到 {n} 条",
        "live.glossary.see": "另见：",
        "live.glossary.failed": "未能取得术语表。请关闭后重新打开。",
        "live.code": "代码",
        "live.code.hint": "打开本机安装、正在运行的这个文件",
    },
}
