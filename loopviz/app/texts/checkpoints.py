"""Why a checkpoint's files are refused (:data:`loopviz.checkpoint_rules.RULES`), under the same keys, in Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from loopviz.checkpoint_rules import RULES, WORDS

_OTHER = "配置与权重不属于同一个检查点"
_ZH = {
    "config_absent": "{folder} 中没有 config.json；请给出含有它的文件夹，或一个 .gguf 文件",
    "too_long": "{file} 大于 {most} MiB，这种文件不会这么大；请重新获取",
    "not_opened": "{file} 无法打开（{said}）",
    "not_json": "{file} 不是 JSON（{said}）；请重新获取",
    "no_object": "{file} 中应为一个 JSON 对象，而不是 {found}；请重新获取",
    "unreadable": "{what} 无法读取（{said}）",
    "worker_ended": "{what} 无法读取（{said}）；请换一个检查点",
    "memory_out": "读取 {what} 时内存用尽；请选择更小的检查点，或关闭其他程序",
    "memory": "dtype={dtype}：{name} 约需 {need} GB 内存，而空闲内存为 {free} GB；请选择更小的检查点{smaller}，或关闭其他程序",
    "kind_refused": "{file} 中的 model_type={value}：{why}；或选择{llamas}",
    "kind_unknown": "{file} 中的 model_type={value}：须为以下之一：{known}；请选择{llamas}",
    "architectures": "{file} 中的 architectures={value}：须含以下之一：{known}；请选择{llamas}",
    "packed": "{file} 中的 {field}={value}：已发布的循环模型使用自己的名称，其打包的权重不予读取；{advice}",
    "key_refused": "{file} 中的 {field}={value}：{why}；无法加载此检查点",
    "key_only": "{file} 中的 {field}={value}：{why}；只能加载 {allowed}",
    "layer_types": "{file} 中的 layer_types={value}：Llama 的每一层都是 'full_attention'",
    "hidden_act": "{file} 中的 hidden_act={value}：transformers 没有这种激活函数",
    "window": "{file} 中的 {field}={value}：Llama 的注意力及于全部 {context} 个词元的上下文；较长的文本会得到不同的数值",
    "ids": "{file} 中的 {field}={value}：须为一个词元编号、编号的列表，或空（null）",
    "sizes": "config.json 中的大小 {sizes}：每个都须为大于 0 的整数",
    "no_llama_config": "{file} 不是 Llama 的配置：{said}",
    "no_family_config": "{file} 不是{family} 的配置：{said}",
    "no_llama_built": "无法按 config.json 建立 Llama：{said}",
    "whole_from": "{file} 中的 {field}={value}：须为不小于 {least} 的整数",
    "not_negative": "{file} 中的 {field}={value}：须为 ≥ 0 的数",
    "share_or_null": "{file} 中的 {field}={value}：须为 [0, 1] 内的数，或空（null）",
    "numbers_or_empty": "{file} 中的 {field}={value}：须为数的列表，或为空",
    "head_width": "{file} 中的 kv_channels={value}：与 head_dim={other} 不一致；请只保留一个",
    "middle_layers": "{file} 中的 loop_middle_layers={value}：共有 {layers} 层",
    "init_values": "{file} 中的 init_values={value}：std 须为 ≥ 0 的数，embed_scale 须为 > 0 的数；起始状态和嵌入按它们缩放",
    "huginn_weights": f"{{file}} 中的 qk_bias={{value}}：权重是 Huginn 的（有 norm_4），其查询和键有偏置；{_OTHER}",
    "huginn_config": f"{{file}} 中的 qk_bias={{value}}：这是 Huginn 的配置，而权重属于由现成模型改造的模型（没有 norm_4）；{_OTHER}",
    "rope_object": "{file} 中的 {field}={value}：须为一个对象，或空（null）",
    "rope_two_kinds": "{file} 中的 {field}={value}：rope_type 与 type 写的规则不同；请只保留一个",
    "rope_kind": "{file} 中的 {field}：rope_type={value} 须为以下之一：{known}；若忽略它，位置会出错",
    "rope_no_kind": "{file} 中的 {field}={value}：没有写规则（rope_type），因此无法读取",
    "rope_key": "{file} 中的 {field}：规则 {kind} 没有 {key}={value} 这一项",
    "rope_partial": "{file} 中的 {field}：partial_rotary_factor={value}，而 Llama 旋转整个头",
    "rope_factor": "{file} 中的 {field}：factor={value}，而规则 'default' 不作缩放",
    "rope_number": "{file} 中的 {field}：{key}={value} 须为大于 0 的数",
    "rope_both": "{file} 中的 rope_scaling 与 rope_parameters 不一致；请只保留一个",
    "no_weights": "{folder} 中没有权重（{single}，或 {index} 及其分片）；请获取它们",
    "pickle": "{folder} 中有 {name} 而没有 {single}；打开 pickle 可能运行任何代码，因此从不读取。请选用带 safetensors 的检查点或 GGUF 文件",
    "loose_shard": "{folder} 中有 {name}，但既没有 {single} 也没有 {index}；请获取缺少的文件",
    "weight_map": "{file} 中的 weight_map：须为每个张量写明一个文件；请重新获取该文件",
    "shard_name": "{file} 中的 weight_map：{name} 不是其旁边某个 .safetensors 文件的简单名称；请勿使用此检查点",
    "shards_absent": "{folder} 中缺少 {of} 个分片中的 {n} 个，第一个是 {name}；请重新获取",
    "header_long": "{file} 的文件头有 {n} 字节，Llama 不会有这么长的文件头；请勿使用",
    "damaged": "{file} 已损坏或不完整（{said}）；请重新获取",
    "two_shards": "{folder} 中的 {name} 出现在两个分片中；请只保留同一个检查点的文件",
    "no_floats": "{folder} 中的 dtype={value}：只从 safetensors 读取浮点权重（{known}）；请选用未量化的检查点，或其 GGUF 文件",
    "layers_over_tensors": f"{{folder}} 中的 num_hidden_layers={{layers}}，而张量只有 {{n}} 个；{_OTHER}",
    "layers_other": f"{{folder}} 中的 num_hidden_layers={{layers}}，而权重有 {{n}} 层；{_OTHER}，或缺少权重：请重新获取",
    "tensors": f"{{folder}} 的 config.json 属于{{family}}，而其张量不是：{{faults}}。{_OTHER}，或缺少文件：请重新获取",
    "tensors_missing": "{folder} 中缺少 {n} 个张量，第一个是 {name}；文件不是完整的检查点（下载中断，或缺少分片）：请获取缺少的部分",
    "tensors_unexpected": "{folder} 中有 {n} 个多余的张量，第一个是 {name}；{why}",
    "tensor_shape": f"{{folder}} 中的 {{name}}：形状为 {{found}}，而配置要求 {{wanted}}；{_OTHER}",
    "no_copy": "{name}：config.json 说它就是 {of}，而两者的数值不同；请勿使用",
    "gate_nan": "{name}：退出门的权重不是数（NaN）；请重新获取该文件",
    "gate_nan_in": "{where} 中的 {name}：退出门的权重不是数（NaN）；请重新获取该文件，或用 `python -m loopviz gate` 训练一个门",
    "gate_other": "{file} 中有 {found}，而此模型的退出门应为 {wanted}；它是为另一个模型训练的：请移走它，或用 `python -m loopviz gate` 训练一个",
    "weights_unreadable": "{folder} 的权重无法读取（{said}）",
}
_WORDS_ZH = {
    "missing": "缺少 {n} 个：{names}",
    "unexpected": "多余 {n} 个：{names}",
    "of another shape": "形状不符 {n} 个：{names}",
    "shape": "{name} 为 {found}，应为 {wanted}",
    "comma": "、",
    "parts": "；",
    "others": "{names} 等",
}

_LLAMAS = "a checkpoint of the Llama architecture, for example SmolLM2, TinyLlama, Llama 2 or Llama 3"
_LLAMAS_ZH = " Llama 架构的检查点，例如 SmolLM2、TinyLlama、Llama 2 或 Llama 3"
_OWN, _OWN_ZH = "needs weights of its own, which a looped Llama does not have", "需要自己的权重，而循环的 Llama 没有"
# Sentences that stand in a place of a rule (:class:`loopviz.checkpoint_rules.Reason`), by their English.
_REASONS_ZH = {
    _LLAMAS: _LLAMAS_ZH,
    ", dtype=torch.bfloat16": "，或 dtype=torch.bfloat16",
    "take the unquantised checkpoint, and pack it with --quantization": "请选用未量化的检查点，再用 --quantization 打包",
    "the weights have biases the configuration does not speak of: if they are this model's, its config.json must say "
    '"attention_bias": true (q, k, v, o) or "mlp_bias": true': "权重中有配置没有提到的偏置：若它们属于此模型，其 config.json 须写明 "
    '"attention_bias": true（q、k、v、o）或 "mlp_bias": true',
    "the files are whole, but a Llama has no such tensors, and left out they would change the numbers: choose "
    + _LLAMAS: "文件是完整的，但 Llama 没有这些张量，忽略它们会改变数值：请选择" + _LLAMAS_ZH,
    # names of families
    "Llama": " Llama",
    "Ouro": " Ouro",
    "Nanbeige 4.2": " Nanbeige 4.2",
    "Huginn": " Huginn",
    "a retrofitted Llama": "改造的 Llama",
    "a retrofitted OLMo-2": "改造的 OLMo-2",
    "LoopLM": " LoopLM",
    # what cannot be run
    "an HRM-Text nests two loops of two stacks of layers in one another, gates its attention's output and reads a prompt in both "
    "directions: none of this is a block of Llama layers run again; open it with transformers' own class (AutoModelForCausalLM)": "HRM-Text "
    "把两叠层的两个循环相互嵌套，对注意力的输出加门，并双向读取提示词：这些都不是让一块 Llama 层再次运行；请用 transformers 自己的类"
    "（AutoModelForCausalLM）打开",
    "a TTT model, which has no layers to loop; in Python open it with loopviz.ttt.load_ttt": "这是 TTT 模型，没有可循环的层；在 Python 中请用 "
    "loopviz.ttt.load_ttt 打开",
    # switches of published families
    "one loop for all tokens, counted from 0: leave it out, and give loop_count one more": "所有词元用同一个循环，从 0 数起：请去掉它，并把 "
    "loop_count 设为它加一",
    "a first loop without its adapter is another loop": "第一次循环不经适配层，就是另一种循环",
    "the state meets the input in a linear layer": "状态与输入在线性层中会合",
    "another start state": "这是另一种起始状态",
    "noise in every loop, never the same twice": "每次循环都加噪声，次次不同",
    "another MLP": "这是另一种 MLP",
    "another activation": "这是另一种激活函数",
    "another norm": "这是另一种归一化",
    "biases of every projection are not mapped": "每个投影的偏置没有对应",
    f"norms of queries and keys: {_OWN}": f"查询和键的归一化{_OWN_ZH}",
    "loops that read one another's keys are another attention": "各次循环相互读取键，是另一种注意力",
    f"n-gram embeddings: {_OWN}": f"n-gram 嵌入{_OWN_ZH}",
    f"n-gram layers: {_OWN}": f"n-gram 层{_OWN_ZH}",
    f"several residual streams: {_OWN}": f"多条残差流{_OWN_ZH}",
    f"attention over depth: {_OWN}": f"跨深度的注意力{_OWN_ZH}",
    "the published weights have no biases": "发布的权重没有偏置",
    "a learned decay of the state between loops needs weights of its own": "循环之间学得的状态衰减需要自己的权重",
    "a norm of the input before the loop needs weights of its own": "循环之前对输入的归一化需要自己的权重",
    # keys of config.json
    "Llama rotates whole heads": "Llama 旋转整个头",
    "Llama in transformers rotates halves, not neighbours": "transformers 中的 Llama 按两半旋转，而不是按相邻的数",
    "multiplies rope_theta elsewhere; Llama has no such field": "在别处它与 rope_theta 相乘；Llama 没有这个字段",
    "a Llama here does not compute it, and left out it would change the numbers": "这里的 Llama 不计算它，忽略它会改变数值",
    "Llama has no norms of queries and keys": "Llama 没有查询和键的归一化",
    "Llama knows positions by rotation": "Llama 用旋转表示位置",
    "Llama's attention and MLP follow each other": "Llama 的注意力和 MLP 依次进行",
    "every layer of a Llama rotates": "Llama 的每一层都旋转",
    "the residual stream has the weights' dtype": "残差流与权重的 dtype 相同",
    "a causal model reads from left to right": "因果模型从左到右读取",
    "not a decoder": "这不是解码器",
    "not a plain decoder": "这不是普通的解码器",
    "a mixture of experts is not a Llama": "混合专家模型不是 Llama",
    "a draft model for another one": "这是另一个模型的草稿模型",
    "quantised safetensors are not read, but for bitsandbytes' NF4 and int8; take the unquantised checkpoint, or a GGUF file of it": "不读取"
    "量化的 safetensors，但 bitsandbytes 的 NF4 和 int8 除外；请选用未量化的检查点，或其 GGUF 文件",
    "compressed safetensors are not read; take the uncompressed checkpoint": "不读取压缩的 safetensors；请选用未压缩的检查点",
    # keys of a tokenizer
    "SentencePiece's options (sampling, for one) are not in tokenizer.json": "SentencePiece 的选项（例如采样）不在 tokenizer.json 中",
    "the tokenizer of tokenizer.json is what is used, and it does not do this": "使用的是 tokenizer.json 中的分词器，而它不这样做",
    "an argument of transformers' own, not a setting: it would replace what tokenizer.json says": "这是 transformers 自己的参数，不是设置：它会取代 "
    "tokenizer.json 的内容",
    # keys of a GGUF file
    "a file of another purpose than a model": "此文件的用途不是模型",
    "the layout of quantised blocks": "量化块的布局不同",
    "one of several files of a model; join them with llama-gguf-split --merge": "这是模型的若干文件之一；请用 llama-gguf-split --merge 合并",
    "an adapter is not a model": "适配器不是模型",
    "llama.cpp reads it in other architectures only": "llama.cpp 只在其他架构中读取它",
    "queries and keys in another order": "查询和键的次序不同",
    "of models that embed texts": "属于文本嵌入模型",
    "LoopViz does not know this key, and it may change the numbers": "LoopViz 不认识这个键，而它可能改变数值",
    "llama.cpp collapses blanks in T5's vocabularies only": "llama.cpp 只在 T5 的词表中合并空白",
    "llama.cpp normalises text in T5's vocabularies only": "llama.cpp 只在 T5 的词表中规范化文本",
    "of encoders, which do not generate": "属于编码器，而它不生成文本",
    "tokens that are never to be generated": "永远不得生成的词元",
    "of another kind of vocabulary, which a Llama file does not carry": "属于另一种词表，Llama 文件不含它",
    "LoopViz does not know this key, and it may change the token ids": "LoopViz 不认识这个键，而它可能改变词元编号",
}
WORDS_IN: dict[str, Mapping[str, str]] = {"en": WORDS, "zh": {**_WORDS_ZH, **_REASONS_ZH}}
TEXTS = {
    lang: {f"checkpoint.{key}": said for key, said in rules.items()} for lang, rules in (("en", RULES), ("zh", _ZH))
}
