"""What is to be known of a model that loads all the same, by the code of its note; both languages."""

from __future__ import annotations

TEXTS: dict[str, dict[str, str]] = {
    "en": {
        "model.notes.one": "1 note",
        "model.notes": "{n} notes",
        "model.notes.about": "To know about {model}",
        "model.notes.of": "{model}: {said}",
        "note.code_ignored": "It comes with program code of its own (auto_map). Code of a model's files is never run here.",
        "note.dropped": "Its files name a special token that it does not have ({field}: {ids}; its {rows} tokens are "
        "numbered from 0), so that one is left out.",
        "note.tokens_without_row": "Its vocabulary lists words that it has no numbers for ({tokens}). A text with one of "
        "them is refused.",
        "note.mark.added": "Its settings ask for a special mark ({mark}) around texts, which its tokenizer file leaves out. "
        "It is added, as the settings say.",
        "note.mark.left_out": "Its settings ask for no special mark ({mark}) around texts, which its tokenizer file adds. "
        "It is left out, as the settings say.",
        "note.end_mark_added": "Its settings leave out the mark with which its answers end (token {id}). A text ends "
        "there too.",
        "note.pretokenizer_missing": "Its file does not say how it cuts text into pieces (tokenizer.ggml.pre). It is cut in "
        "the usual way (llama.cpp's default), which may differ from how the model was trained.",
        "note.untrained_loop_weights": "It has no learned weights for {field}: those used are as in a new model, and mean "
        "nothing until they are trained.",
        "note.trained_left_out": "It was trained with weights for {field}, which are left out here.",
        "note.lora_per_step": "Each of its first {steps} loop steps has a LoRA of its own; loop steps after these use that of step {steps}.",
        "note.unheld": "It brings settings for its loop that the controls cannot hold ({fields}); the usual ones stand there "
        "instead.",
        "note.marks_corrected": "Its settings call the padding its first and its last mark; those of its tokenizer are used (first {bos_token_id}, last {eos_token_id}, padding {pad_token_id}).",
        "note.loops_overridden": "Its file asks for {num_loops} loops, and lists losses for {loops}: it runs {loops}, as its authors' code does.",
        "note.family.ouro": "An Ouro: layers {first} to {last} run {loops} times, with a norm after every loop. After each loop a learned gate says how likely it is to stop there.",
        "note.family.nanbeige": "A Nanbeige 4.2: layers {first} to {last} run {loops} times; every loop keeps keys and values of its own.",
        "note.family.huginn": "A Huginn: its core, layers {first} to {last}, begins at a random state, is reminded of the input before every loop, and runs {loops} times.",
        "note.family.looplm": "A LoopLM: layer {first} begins at a random state, is reminded of the input by addition before every loop, and runs {loops} times.",
        "note.family.retrofitted_llama": "A stock Llama that was cut in three and trained on: its core, layers {first} to {last}, begins at a random state, is reminded of the input before every loop, and runs {loops} times.",
        "note.family.retrofitted_olmo2": "A stock OLMo-2 that was cut in three and trained on: its core, layers {first} to {last}, begins at a random state, is reminded of the input before every loop, and runs {loops} times.",
        "note.precision_half": "Its weights are held in {dtype}, the quicker half on this machine.",
        "note.precision_no_half": "Neither float16 nor bfloat16 is computed on this machine: it is held in float32.",
        "note.precision_auto": "It is held in {dtype}: a token is expected to take {exact_ms} ms in float32 and {chosen_ms} ms in {dtype} here, and up to {enough} ms stay exact.",
        "note.precision_cost": "It is held in {dtype}, and its figures are of that. On {tokens} tokens of a short text its next token is {kl} nats (KL) from float32's in the mean, and the likeliest is the same at {same} %. Its weights take {size} MB instead of {exact_size} MB. A word takes {ms} ms once through all layers on this machine, and {exact_ms} ms in float32, as measured while it was loaded.",
        "note.precision_floor": "In {dtype} a loop’s state settles no further than to changes of about {floor} of its norm, to which its numbers are rounded (half of the eps), unless it stands still: there the curves of convergence end.",
        "note.precision_floor_int8": "In {dtype} what the layers read is rounded to bfloat16, by up to {floor} of a number (half of its eps): near there the curves of convergence end.",
        "note.precision_refused": "It was to be held in {dtype}, which does not hold its weights: it is held in float32 instead.",
        "note.precision_packed": "Its layers are packed by bitsandbytes in its files already ({kind}), so the server's setting ({precision}) is not used for it.",
        "note.quantization": "The weights of its layers are packed by bitsandbytes ({kind}), all else is {dtype}, and its figures are of that. It is made for a GPU, and slower than floats on a CPU.",
        "note.precision_overflow": "It was to be held in {dtype}, in which its numbers run over on a short text: it is held in float32 instead.",
        "note.other": "Its files hold something that is read in another way here ({code}).",
    },
    "zh": {
        "model.notes.one": "1 条说明",
        "model.notes": "{n} 条说明",
        "model.notes.about": "关于 {model} 需要知道的",
        "model.notes.of": "模型 {model}：{said}",
        "note.code_ignored": "它附带了自己的程序代码（auto_map）。模型文件里的代码在这里从不运行。",
        "note.dropped": "它的文件提到一个它没有的特殊词元（{field}：{ids}；它的词元从 0 起共 {rows} 个），因此略去。",
        "note.tokens_without_row": "它的词表里有些词没有对应的数值（{tokens}）。含有这些词的文本会被拒绝。",
        "note.mark.added": "它的设置要求在文本前后加特殊标记（{mark}），而分词器文件没有加。这里按设置加上。",
        "note.mark.left_out": "它的设置要求文本不加特殊标记（{mark}），而分词器文件会加。这里按设置去掉。",
        "note.end_mark_added": "它的设置漏掉了回答结束的标记（词元 {id}）。文本遇到它也会结束。",
        "note.pretokenizer_missing": "它的文件没有说明如何切分文本（tokenizer.ggml.pre）。这里按通常方式（llama.cpp 的 default）切分，"
        "可能与训练时不同。",
        "note.untrained_loop_weights": "它没有学到 {field} 的权重：所用的权重如同新模型，训练之前没有意义。",
        "note.trained_left_out": "它训练时带有 {field} 的权重，这里没有使用。",
        "note.lora_per_step": "它的前 {steps} 次循环各有自己的 LoRA；之后的循环都使用第 {steps} 次的。",
        "note.unheld": "它带来的循环设置中有控件无法容纳的内容（{fields}），因此改用通常的值。",
        "note.marks_corrected": "它的设置把填充标记当作开头与结尾标记；这里使用分词器自己的标记（开头 {bos_token_id}，结尾 {eos_token_id}，填充 {pad_token_id}）。",
        "note.loops_overridden": "它的文件要求循环 {num_loops} 次，却列出了 {loops} 次的损失：与作者的代码一样，运行 {loops} 次。",
        "note.family.ouro": "这是 Ouro：第 {first} 到 {last} 层循环 {loops} 次，每次循环之后做归一化；学到的门（gate）在每次循环之后给出停在此处的概率。",
        "note.family.nanbeige": "这是 Nanbeige 4.2：第 {first} 到 {last} 层循环 {loops} 次，每次循环各自保留键与值。",
        "note.family.huginn": "这是 Huginn：核心（第 {first} 到 {last} 层）从随机状态出发，每次循环之前重新加入输入，循环 {loops} 次。",
        "note.family.looplm": "这是 LoopLM：第 {first} 层从随机状态出发，每次循环之前以相加的方式重新加入输入，循环 {loops} 次。",
        "note.family.retrofitted_llama": "由现成的 Llama 切成三段再训练而成：核心（第 {first} 到 {last} 层）从随机状态出发，每次循环之前重新加入输入，循环 {loops} 次。",
        "note.family.retrofitted_olmo2": "由现成的 OLMo-2 切成三段再训练而成：核心（第 {first} 到 {last} 层）从随机状态出发，每次循环之前重新加入输入，循环 {loops} 次。",
        "note.precision_half": "其权重以 {dtype} 保存，这是本机上较快的半精度格式。",
        "note.precision_no_half": "本机不支持 float16 或 bfloat16 计算：以 float32 保存。",
        "note.precision_auto": "以 {dtype} 保存：在本机上，预计每个词元用 float32 需 {exact_ms} 毫秒，用 {dtype} 需 {chosen_ms} 毫秒；不超过 {enough} 毫秒时保持精确。",
        "note.precision_cost": "以 {dtype} 保存，页面上的数字都是在此精度下得到的。在一段短文的 {tokens} 个词元上，其下一个词元的分布与 float32 的 KL 平均为 {kl} nat，最可能的词元有 {same}% 相同。其权重占 {size} MB，而非 {exact_size} MB。每个词走完一遍所有层在本机需 {ms} 毫秒，用 float32 需 {exact_ms} 毫秒（加载时测量）。",
        "note.precision_floor": "在 {dtype} 下，循环状态的变化最多稳定到其范数的约 {floor}，因为数字就舍入到这个程度（eps 的一半），除非它完全不再变化：收敛曲线在此为止。",
        "note.precision_floor_int8": "在 {dtype} 下，各层读到的数舍入为 bfloat16，每个数至多偏离 {floor}（其 eps 的一半）：收敛曲线在这附近为止。",
        "note.precision_refused": "本应以 {dtype} 保存，但该格式容不下其权重：改以 float32 保存。",
        "note.precision_packed": "其各层在文件中已由 bitsandbytes 压缩（{kind}），因此不使用服务器的精度设置（{precision}）。",
        "note.quantization": "其各层权重由 bitsandbytes 压缩（{kind}），其余为 {dtype}，数字都是在此情形下得到的。它为 GPU 而设，在 CPU 上比浮点慢。",
        "note.precision_overflow": "本应以 {dtype} 保存，但在一段短文上其数值溢出：改以 float32 保存。",
        "note.other": "它的文件里有内容在这里以另一种方式读取（{code}）。",
    },
}
