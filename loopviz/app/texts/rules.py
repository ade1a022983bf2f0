"""The rules that a value may break (:data:`loopviz.checks.RULES`), under the same keys, in Chinese."""

from __future__ import annotations

from loopviz.checks import RULES

_ZH = {
    "whole_from_one": "须为不小于 1 的整数",
    "at_most_kept": "须 ≤ {most}；每一个都要占用记录",
    "whole_in": "须为 {low} 到 {high} 之间的整数",
    "finite": "须为有限的数",
    "finite_nats": "须为有限且 ≥ 0 的数（nats）",
    "finite_in": "须为 {range} 内的有限数",
    "finite_in_for": "layer_chooser={chooser} 时须为 {range} 内的有限数",
    "finite_from": "须为 {low} 到 {high} 之间的有限数",
    "finite_above": "须为大于 {low}、不超过 {high} 的有限数",
    "yes_no": "须为开（True）或关（False）",
    "one_of": "须为以下之一：{choices}",
    "some_of": "须为由以下若干项组成的元组：{choices}",
    "list_for_one_block": "列表须每个循环块一个值，而这里只有 1 个块；请只给一个值",
    "list_for_blocks": "列表须每个循环块一个值，而这里有 {n} 个块；请给一个值，或 {n} 个值",
    "registered_in_notebook": "这里不认识它；保存该模型时它由笔记本或脚本注册，请先运行那段代码。已知的有 {known}",
    "registered_by_module": "这里不认识它；保存该模型时它由模块 {module} 注册，请先导入 {module}（命令行：--import {module}）。已知的有 {known}",
    "layers_shape": "须为 None、一对层号（首层, 末层），或由这样的数对组成的列表",
    "layers_empty": "须为 None、一对层号（首层, 末层），或由这样的数对组成的列表；普通 Llama 请写 None",
    "layer_outside": "该模型有 {n} 层（0..{last}），没有第 {layer} 层",
    "first_after_last": "首层 {a} 在末层 {b} 之后；请写 ({b}, {a})",
    "blocks_overlap": "各循环块须依次递增且不重叠，而 {one} 之后是 {other}",
    "count_over_max": "须 ≤ max_loop_count={most}；请调高 max_loop_count 或调低 loop_count",
    "max_under_floor": "动态停止（dynamic_stop）时须 ≥ min_loop_count={floor}；请调高 max_loop_count 或调低 min_loop_count",
    "slots_over_floor": "动态停止（dynamic_stop）时须 ≤ min_loop_count={floor}，这样每次前向都会写入每个槽；"
    "请调低 virtual_layer_count 或调高 min_loop_count",
    "prompt_type": "这里须为文本，而不是 {type}",
    "prompt_empty": "为空；请至少输入一个字符",
    "prompt_characters": "有 {n} 个字符，最多读取 {most} 个（模型的上下文为 {context} 个词元）；请缩短提示词",
    "prompt_half": "第 {place} 个字符是半个代理对，不是文本；请删去",
    "prompt_no_token": "分词器从中得不到任何词元；请换一段文字",
    "prompt_tokens": "有 {n} 个词元，而模型的上下文为 {context} 个词元；请至少缩短 {over} 个词元",
    "chat_none": "该分词器没有对话模板（这是基础模型，不是对话模型）；请关闭对话",
    "chat_refuses": "模型的对话模板拒绝了这段提示词（{said}）；请关闭对话",
    "chat_no_text": "模型的对话模板没有给出文本；请关闭对话",
    "text_unreadable": "模型的分词器读不了它（{said}）；请换一段文本",
    "logits_nan": "模型的 logits 已不是数（NaN）：它的状态发散了；减少循环、减小 loop_damping 或打开 loop_norm 可使其保持在界内",
}

TEXTS = {lang: {f"rule.{key}": said for key, said in rules.items()} for lang, rules in (("en", RULES), ("zh", _ZH))}
