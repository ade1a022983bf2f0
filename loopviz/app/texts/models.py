"""What is said of models that are not ours: where they are, and why they cannot be had; both languages."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "model.info.offered": "A model of the list.",
        "model.info.named": "A model of the list, or one of these of the Hugging Face Hub: {names}.",
        "model.info.hub": "A name from the list, or a Hugging Face id, of the Llama family.",
        "model.ask": "This link asks for the model {name}, which is not loaded here. It is fetched, or opened, only if you agree.",
        "model.given_up": "loading {name} was stopped: nobody was waiting for it any more. Press Run to load it",
        "model.not_offered": "this server offers only {names}",
        "model.no_paths": "this server opens no files or folders of its machine; it offers {names}",
        "model.no_hub_id": "not the name of a model of the Hugging Face Hub (owner/name, owner/name/file.gguf)",
        "limit.layers": "{name} has {n} layers; this server loads models of at most {limit} layers",
        "limit.vocabulary": "{name} has a vocabulary of {n} tokens; this server loads models of at most {limit}",
        "limit.weights": "{name} takes {size} once loaded; this server loads models of at most {limit}",
        "limit.memory": "{name} needs {size} of memory and {limit} are free here; choose a smaller model",
        "limit.download": "the files of {name} are {size}; this server fetches at most {limit} for a model",
        "limit.disk": "the files of {name} are {size} and {limit} are free on this server's disk",
        "limit.unlisted": "the Hub does not say how large {file} of {name} is, so it is not fetched",
    },
    "zh": {
        "model.info.offered": "列表中的模型。",
        "model.info.named": "列表中的模型，或 Hugging Face Hub 上的这些模型：{names}。",
        "model.info.hub": "列表中的名称，或 Hugging Face 编号，须属于 Llama 系列。",
        "model.ask": "此链接要求使用模型 {name}，它尚未在此加载。只有您同意后才会下载或打开。",
        "model.given_up": "已停止加载 {name}：不再有人等待它。按“运行”可重新加载",
        "model.not_offered": "此服务器只提供 {names}",
        "model.no_paths": "此服务器不打开本机上的文件或文件夹，只提供 {names}",
        "model.no_hub_id": "不是 Hugging Face Hub 上的模型名称（owner/name、owner/name/file.gguf）",
        "limit.layers": "{name} 有 {n} 层；此服务器最多加载 {limit} 层的模型",
        "limit.vocabulary": "{name} 的词表有 {n} 个词元；此服务器最多加载 {limit} 个词元的模型",
        "limit.weights": "{name} 加载后占 {size}；此服务器最多加载 {limit} 的模型",
        "limit.memory": "{name} 需要 {size} 内存，而此处只剩 {limit}；请选择更小的模型",
        "limit.download": "{name} 的文件共 {size}；此服务器为一个模型最多获取 {limit}",
        "limit.disk": "{name} 的文件共 {size}，而此服务器的磁盘只剩 {limit}",
        "limit.unlisted": "Hub 没有说明 {name} 的 {file} 有多大，因此不获取",
    },
}
