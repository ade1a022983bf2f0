"""What the server says to whom it does not let in (:mod:`loopviz.app.server.request_guard`), in English and Chinese."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "door.host": "This server is not known as {host!r}, so nothing is shown under that name. Whoever runs it can allow the "
        "name: LOOPVIZ_HOSTS={host}",
        "door.foreign": "This request was made by the page of another site. Nothing was done. Open LoopViz itself.",
        "door.closed": "There is nothing at this address.",
        "door.kind": "This address takes {kind} only. Nothing was done.",
        "door.json": "The request cannot be read: it must be JSON, of few levels, with whole characters and finite numbers. "
        "Nothing was done.",
        "door.call": "The request is not one that this page makes: reload the page, or look at the call's values. Nothing was "
        "done.",
        "door.large": "The request is too large: at most {limit} bytes are taken here. Nothing was done.",
        "door.slow": "The request did not arrive in time. Try again.",
        "door.full": "Very many runs are waiting just now, and this one was not taken. Try again in a minute.",
    },
    "zh": {
        "door.host": "本服务器不叫 {host!r}，因此在该名称下不显示任何内容。服务器的管理者可以允许此名称：LOOPVIZ_HOSTS={host}",
        "door.foreign": "此请求来自另一个网站的页面，没有执行任何操作。请直接打开 LoopViz。",
        "door.closed": "此地址没有任何内容。",
        "door.kind": "此地址只接受 {kind}，没有执行任何操作。",
        "door.json": "无法读取请求：必须是层数不多的 JSON，字符完整、数字有限。没有执行任何操作。",
        "door.call": "这不是本页面会发出的请求：请重新加载页面，或检查调用的各个值。没有执行任何操作。",
        "door.large": "请求太大：此处最多接受 {limit} 字节。没有执行任何操作。",
        "door.slow": "请求没有及时送达，请重试。",
        "door.full": "眼下等待的运行太多，没有接受这一个。请过一分钟再试。",
    },
}
