"""What is said about a link to the page (:mod:`loopviz.app.controls.link_word`), in English and Chinese."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "damaged": "This link is damaged, or was cut short: nothing was taken from it.",
        "newer": "This link was made by a newer LoopViz: nothing was taken from it.",
        "unknown": "The link names something this LoopViz does not have, which was left out: {names}.",
        "value": "The link asks for something that is not possible: {reason}",
        "path": "The link names a folder or file of one particular machine, which cannot be opened here; this server's own "
        "model is used.",
        "kept_path": "The model is a folder or file of this server, so it is not in the link: the link opens with the "
        "model of whatever server it is opened on.",
        "focus": "The link's selection could not be used, and was left out: {names}.",
        "long": "The prompt is too long for a link ({n} characters of address; browsers and proxies carry at most "
        "{limit}). Shorten it, or save the run as a file and send that.",
    },
    "zh": {
        "damaged": "此链接已损坏或被截断：没有采用其中任何内容。",
        "newer": "此链接由更新版本的 LoopViz 生成：没有采用其中任何内容。",
        "unknown": "链接中有当前 LoopViz 不认识的内容，已略去：{names}。",
        "value": "链接所要求的无法实现：{reason}",
        "path": "链接指向某一台机器上的文件夹或文件，在此无法打开；改用本服务器自己的模型。",
        "kept_path": "该模型是本服务器上的文件夹或文件，因此不写入链接：链接在哪台服务器上打开，就使用那台服务器的模型。",
        "focus": "链接中的选择无法使用，已略去：{names}。",
        "long": "提示词太长，放不进链接（地址需 {n} 个字符，浏览器和代理最多传送 {limit} 个）。请缩短提示词，或把本次运行保存为文件再发送。",
    },
}
