"""What programs are told that ask a server (:mod:`loopviz.app.server.api`), in English and Chinese."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "api.busy": "{n} calls of programs are being answered or wait, and no more are taken at a time. Try again later.",
        "api.busy.own": "{n} calls from your address are being answered or wait, and no more are taken at a time. Wait for one.",
        "api.no_tool": "{name}: there is no such tool; there are {names}",
        "api.mapping": "The call's body must be a JSON object: the tool's arguments by name.",
        "api.large": "trace={form}: this Trace takes {size} bytes so, and at most {most} are sent. Ask for trace='file', or 'none', "
        "or for fewer tokens (settings.max_new_tokens).",
        "limits.calls_of_one": "Calls by programs at a time, from one address",
        "limits.answer_bytes": "A Trace in the answer to a program",
    },
    "zh": {
        "api.busy": "已有 {n} 个程序调用正在处理或等待，同时不再接受更多。请稍后再试。",
        "api.busy.own": "来自您地址的 {n} 个调用正在处理或等待，同时不再接受更多。请等其中一个完成。",
        "api.no_tool": "{name}：没有这个工具；有的是 {names}",
        "api.mapping": "调用的内容须为 JSON 对象：按名称给出工具的各个参数。",
        "api.large": "trace={form}：这样的 Trace 有 {size} 字节，而最多发送 {most} 字节。请改用 trace='file' 或 'none'，"
        "或减少词元数（settings.max_new_tokens）。",
        "limits.calls_of_one": "来自同一地址的程序可同时进行的调用",
        "limits.answer_bytes": "给程序的回答中的 Trace",
    },
}
