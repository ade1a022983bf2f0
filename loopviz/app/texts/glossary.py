"""The glossary: what the words of this page mean, plain words first, then the formula and what its letters stand for.

Terms stand in an order that can be read from top to bottom. A formula is KaTeX, the same in both languages.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """A term in one language.

    name: the term itself.
    plain: what it is, in words that need no formula.
    symbols: what the letters of the formula stand for; empty for a term without one.
    also: what else the term is called in running text.
    """

    name: str
    plain: str
    symbols: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Term:
    """An entry: its key (an anchor on a page), its words, its formula ("" for none), and keys of terms to read with it."""

    key: str
    en: Wording
    zh: Wording
    formula: str = ""
    see: tuple[str, ...] = ()

    def wording(self, lang: str) -> Wording:
        """The words in `lang`, "en" or "zh"."""
        return {"en": self.en, "zh": self.zh}[lang]


GLOSSARY: tuple[Term, ...] = (
    Term(
        "token",
        Wording(
            "token",
            "The piece of text a model reads and writes at a time: a word, part of a word, or a mark. Position t counts "
            "from 0.",
        ),
        Wording("词元", "模型一次读入或写出的一小段文字：一个词、词的一部分或一个标点。位置 t 从 0 数起。"),
    ),
    Term(
        "state",
        Wording(
            "state (hidden state)",
            "The list of numbers a model holds for a token while it works on it. Each layer changes it a little; at the end "
            "the next word is read from it.",
            "s: the state; H: how many numbers it has.",
        ),
        Wording(
            "状态（隐藏状态）",
            "模型处理一个词元时为它保存的一串数字。每一层都会略微改变它，最后从中读出下一个词。",
            "s：状态；H：其中数字的个数。",
        ),
        r"s\in\mathbb{R}^{H}",
    ),
    Term(
        "block",
        Wording(
            "looped block",
            "A run of neighbouring layers that a state is sent through again and again. The layers are the same each time: "
            "looping adds no weights.",
            "a, b: first and last layer of the block, counted from 0; g: one pass through them, one after the other.",
            also=("block",),
        ),
        Wording(
            "循环块",
            "一段相邻的层，状态会一遍又一遍地通过它们。每一遍用的都是同样的层：循环不增加任何权重。",
            "a、b：块的第一层和最后一层，从 0 数起；g：依次通过这些层一遍。",
            also=("块",),
        ),
        r"g=\mathrm{layer}_b\circ\cdots\circ\mathrm{layer}_a",
        ("prelude", "coda", "loop_step"),
    ),
    Term(
        "prelude",
        Wording(
            "prelude",
            "The layers before the looped block. They run once and turn the token into the state that enters the block.",
            "s₀: the state that enters the block; a: the block's first layer.",
        ),
        Wording(
            "前奏层（prelude）",
            "循环块之前的各层。它们只运行一次，把词元变成进入循环块的状态。",
            "s₀：进入循环块的状态；a：块的第一层。",
        ),
        r"s_0=\mathrm{layer}_{a-1}\circ\cdots\circ\mathrm{layer}_0(\text{token})",
        ("block",),
    ),
    Term(
        "coda",
        Wording(
            "coda",
            "The layers after the looped block. They run once, on the state the last loop step left, and prepare it for "
            "reading the next word.",
            "s_N: the state after the last loop step; b: the block's last layer; L: how many layers the model has.",
        ),
        Wording(
            "尾声层（coda）",
            "循环块之后的各层。它们在最后一个循环步留下的状态上只运行一次，为读出下一个词做准备。",
            "s_N：最后一个循环步之后的状态；b：块的最后一层；L：模型的层数。",
        ),
        r"\mathrm{coda}(s_N)=\mathrm{layer}_{L-1}\circ\cdots\circ\mathrm{layer}_{b+1}(s_N)",
        ("block", "exit_lens"),
    ),
    Term(
        "loop_step",
        Wording(
            "loop step",
            "One trip of the state through the looped block. Step 1 starts from what the prelude made; each later step "
            "starts where the one before ended.",
            "r: number of the step, from 1; s_r: the state after step r; g: one pass through the block; N: steps that were "
            "run. Damping, injection and the loop norm, where used, change what enters or how far a step goes.",
        ),
        Wording(
            "循环步",
            "状态通过循环块一次。第 1 步从前奏层的结果开始，之后每一步从上一步结束处开始。",
            "r：步的编号，从 1 开始；s_r：第 r 步之后的状态；g：通过循环块一遍；N：实际运行的步数。若使用阻尼、注入或循环归一化，"
            "则会改变每一步的输入或移动的距离。",
        ),
        r"s_r=g(s_{r-1}),\qquad r=1,\dots,N",
        ("damping", "injection", "loop_norm"),
    ),
    Term(
        "layer_pass",
        Wording(
            "layer pass",
            "One layer worked through once for one token: the unit in which computing is counted here. Looping costs layer "
            "passes instead of weights.",
            "L: layers of the model; N: loop steps this token ran; a, b: first and last layer of the block (with several "
            "blocks, the second part is summed over them).",
        ),
        Wording(
            "层次运算（layer pass）",
            "一个词元通过一层一次：这里用它来计量运算。循环增加的是层次运算，而不是权重。",
            "L：模型的层数；N：该词元运行的循环步数；a、b：块的第一层和最后一层（有多个块时，对第二部分求和）。",
            also=("层次数",),
        ),
        r"\text{layer passes}=L+(N-1)(b-a+1)",
    ),
    Term(
        "damping",
        Wording(
            "damping",
            "Going only part of the way in each loop step: a smaller step is safer with layers that were never trained to "
            "be repeated.",
            "α: the part that is gone, above 0 and up to 1 (1 is the plain loop); g(x_r): where the full step would lead; "
            "x_r: what enters the step.",
        ),
        Wording(
            "阻尼",
            "每个循环步只走一部分路程：对于没有为重复运行而训练过的层，小一些的步子更稳妥。",
            "α：实际走的比例，大于 0，至多为 1（1 即普通循环）；g(x_r)：完整一步会到达之处；x_r：这一步的输入。",
        ),
        r"s_r=s_{r-1}+\alpha\,\bigl(g(x_r)-s_{r-1}\bigr)",
        ("loop_step",),
    ),
    Term(
        "injection",
        Wording(
            "injection",
            "Reminding every loop step of the original input, so that it is not lost on the way: added, or mixed in by a "
            "learned matrix. A model must be trained for it to help.",
            "x_r: what enters step r; e: what the prelude made; W: the learned matrix.",
        ),
        Wording(
            "注入",
            "让每个循环步都重新看到原来的输入，以免中途丢失：直接相加，或用学习到的矩阵混入。模型需为此训练过才有益处。",
            "x_r：第 r 步的输入；e：前奏层的结果；W：学习到的矩阵。",
        ),
        r"x_r=s_{r-1}\ \ (\text{none}),\qquad x_r=s_{r-1}+e\ \ (\text{add}),\qquad x_r=W\,[s_{r-1};e]\ \ (\text{linear})",
        ("loop_step", "prelude"),
    ),
    Term(
        "loop_norm",
        Wording(
            "loop norm",
            "Bringing what enters a loop step back to a fixed size, so that the state cannot grow without bound from step "
            "to step.",
            "x: what enters the step, with H numbers; w: learned weights, one for each number; ⊙: number by number; ε: a "
            "tiny constant against division by zero.",
        ),
        Wording(
            "循环归一化",
            "把每个循环步的输入重新缩放到固定大小，使状态不会一步步无限增长。",
            "x：这一步的输入，共 H 个数；w：学习到的权重，每个数一个；⊙：逐个相乘；ε：防止除以零的极小常数。",
        ),
        r"\mathrm{RMSNorm}(x)=w\odot\frac{x}{\sqrt{\frac{1}{H}\sum_{i=1}^{H}x_i^{2}+\varepsilon}}",
        ("loop_step",),
    ),
    Term(
        "direct_lens",
        Wording(
            "direct lens",
            "Asking a state in the middle of the loop which word would come next, by reading it as if it were the model's "
            "last state. Cheap, and only a rough answer where more layers would have followed.",
            "p_r: the probability of every possible next token, read from s_r; W_head: the matrix that turns a state into "
            "one score a token; norm: the model's final norm.",
        ),
        Wording(
            "直接透镜",
            "把循环中途的状态当作模型的最后状态来读，问它下一个词会是什么。代价很小；若后面本来还有别的层，答案就只是粗略的。",
            "p_r：从 s_r 读出的每个可能的下一个词元的概率；W_head：把状态变成每个词元一个分数的矩阵；norm：模型最后的归一化。",
        ),
        r"p_r=\mathrm{softmax}\bigl(W_{\text{head}}\,\mathrm{norm}(s_r)\bigr)",
        ("exit_lens",),
    ),
    Term(
        "exit_lens",
        Wording(
            "exit lens",
            "What the model would really say if it stopped looping now: the state goes through the coda before it is read. "
            "At the last step this is the model's own answer.",
            "p̂_r: the probabilities so read; coda: the layers after the block; W_head, norm: as in the direct lens.",
        ),
        Wording(
            "出口透镜",
            "如果现在就停止循环，模型真正会说什么：状态先通过尾声层再读出。在最后一步，它就是模型自己的回答。",
            "p̂_r：这样读出的概率；coda：循环块之后的各层；W_head、norm：与直接透镜相同。",
        ),
        r"\hat p_r=\mathrm{softmax}\bigl(W_{\text{head}}\,\mathrm{norm}(\mathrm{coda}(s_r))\bigr)",
        ("direct_lens", "coda"),
    ),
    Term(
        "exit_gate",
        Wording(
            "exit gate",
            "One small layer that some models (Ouro) learned: after every loop step it says how likely it is to stop there. A token "
            "is read out at the first step by which these probabilities have added up to a threshold. As published, all loops run, "
            "and the gate only chooses among them.",
            "λ_r: what the gate says after step r; σ: squeezes a number between 0 and 1; w, b: the gate’s weights; s_r: the "
            "state after step r, normed; p_r: how likely it is to stop at r, and not before.",
        ),
        Wording(
            "出口门",
            "有些模型（Ouro）学到的一个很小的层：每个循环步之后，它给出停在此处的概率。这些概率累计首次达到阈值的那一步，就是词元被读出的那一步。"
            "按发表的做法，所有循环都会运行，门只在其中选择。",
            "λ_r：门在第 r 步之后所说的；σ：把数压到 0 与 1 之间；w、b：门的权重；s_r：第 r 步之后归一化的状态；p_r：停在第 r 步、而不是更早的概率。",
        ),
        r"\lambda_r=\sigma(w\cdot s_r+b),\qquad p_r=\lambda_r\prod_{j<r}(1-\lambda_j)",
        ("exit_lens", "loop_step"),
    ),
    Term(
        "cosine",
        Wording(
            "cosine similarity",
            "Whether two states point the same way: 1 is the same direction, 0 a right angle, −1 the opposite. Here "
            "always the states of two neighbouring loop steps; 1 − cosine near 0 means that the loop has settled.",
            "s_r · s_{r−1}: the two states multiplied number by number and added up; ‖s‖: the length of a state.",
            also=("cosine",),
        ),
        Wording(
            "余弦相似度",
            "两个状态的方向是否一致：1 为同向，0 为直角，−1 为反向。这里比较的总是相邻两个循环步的状态；1 − 余弦接近 0 表示循环已经稳定。",
            "s_r · s_{r−1}：两个状态逐个相乘后相加；‖s‖：状态的长度。",
            also=("余弦",),
        ),
        r"\cos(s_r,s_{r-1})=\frac{s_r\cdot s_{r-1}}{\lVert s_r\rVert\,\lVert s_{r-1}\rVert}",
        ("threshold",),
    ),
    Term(
        "kl",
        Wording(
            "KL divergence",
            "How much a prediction changed from one loop step to the next: 0 means not at all. It weighs every possible next "
            "word by how likely the earlier step thought it. In nats, the unit of the natural logarithm.",
            "p_{r−1}, p_r: the predictions of two neighbouring steps; v: runs over all tokens.",
            also=("KL",),
        ),
        Wording(
            "KL 散度",
            "从一个循环步到下一步，预测改变了多少：0 表示完全没变。它按前一步认为的可能性，对每个可能的下一个词加权。单位是奈特（nat），"
            "即自然对数的单位。",
            "p_{r−1}、p_r：相邻两步的预测；v：取遍所有词元。",
            also=("KL",),
        ),
        r"\mathrm{KL}(p_{r-1}\,\Vert\,p_r)=\sum_v p_{r-1}(v)\,\ln\frac{p_{r-1}(v)}{p_r(v)}",
        ("direct_lens", "threshold"),
    ),
    Term(
        "entropy",
        Wording(
            "entropy",
            "How unsure a prediction is: 0 when one word is certain, large when many words are about as likely. In nats.",
            "p_r(v): probability of token v after step r.",
        ),
        Wording(
            "熵",
            "预测有多不确定：某个词确定无疑时为 0，许多词差不多可能时很大。单位：奈特。",
            "p_r(v)：第 r 步之后词元 v 的概率。",
        ),
        r"H(p_r)=-\sum_v p_r(v)\,\ln p_r(v)",
    ),
    Term(
        "rank",
        Wording(
            "rank",
            "The place of the word that really came next among all words, ordered by how likely a loop step thought them. "
            "1 is the top: the step would have said that word.",
            "next: the token that came next; the bars count the tokens that are likelier.",
        ),
        Wording(
            "排名",
            "把所有词按某个循环步认为的可能性排序，真正出现的下一个词排第几。1 为最高：这一步会说出这个词。",
            "next：真正的下一个词元；竖线表示数出更可能的词元个数。",
        ),
        r"\mathrm{rank}_{p_r}(\text{next})=1+\bigl|\{v:\,p_r(v)>p_r(\text{next})\}\bigr|",
    ),
    Term(
        "fixed_point",
        Wording(
            "fixed point",
            "A state that a loop step leaves as it is. A loop that settles comes ever closer to one: more steps then "
            "change nothing.",
            "s*: the fixed point; g: one pass through the block.",
        ),
        Wording(
            "不动点",
            "循环步不再改变的状态。稳定下来的循环会越来越接近这样的点：再多的步也不会有变化。",
            "s*：不动点；g：通过循环块一遍。",
        ),
        r"g(s_*)=s_*",
        ("contraction",),
    ),
    Term(
        "contraction",
        Wording(
            "contraction",
            "Each loop step moves less far than the one before, by about the same factor: the loop then settles quickly and "
            "surely. Above 1 the steps grow instead.",
            "ρ_r: that factor at step r; s_r − s_{r−1}: how far step r moved the state.",
        ),
        Wording(
            "收缩",
            "每个循环步都比上一步移动得少，且大致按同样的比例：这时循环会又快又稳地安定下来。大于 1 则步子反而越来越大。",
            "ρ_r：第 r 步的这个比例；s_r − s_{r−1}：第 r 步使状态移动的量。",
        ),
        r"\rho_r=\frac{\lVert s_{r+1}-s_r\rVert}{\lVert s_r-s_{r-1}\rVert}<1",
        ("fixed_point",),
    ),
    Term(
        "dynamic_stop",
        Wording(
            "dynamic stop",
            "Looping until the state no longer changes, instead of a fixed number of times: easy words take few steps, hard "
            "ones more. There is a floor and an upper bound. A prompt is read in one pass, so its tokens share one number "
            "of steps, decided on their mean.",
            "N: steps run; the criterion is that of the thresholds.",
        ),
        Wording(
            "动态停止",
            "不是循环固定次数，而是循环到状态不再变化为止：容易的词步数少，难的词步数多。步数有下限和上限。提示词是一次读入的，"
            "因此其中的词元共用一个步数，由它们的平均值决定。",
            "N：实际运行的步数；criterion 即由阈值给出的停止判据。",
        ),
        r"N=\min\{\,r\ge r_{\min}:\ \text{criterion holds at } r\ \text{ or }\ r=r_{\max}\,\}",
        ("threshold",),
    ),
    Term(
        "threshold",
        Wording(
            "threshold",
            "How little change counts as none. The loop may stop once the direction of the state, or the prediction, "
            "changes by no more than this.",
            "τ_cos, τ_KL: the two thresholds. Which of the two tests counts is the criterion: either, both, cosine or KL.",
        ),
        Wording(
            "阈值",
            "变化小到多少才算没有变化。状态的方向或预测的变化不超过它时，循环就可以停止。",
            "τ_cos、τ_KL：两个阈值。以哪个检验为准由判据决定：满足其一、两者都满足、只看余弦或只看 KL。",
        ),
        r"\cos(s_r,s_{r-1})\ge\tau_{\cos},\qquad \mathrm{KL}(p_{r-1}\,\Vert\,p_r)\le\tau_{\mathrm{KL}}",
        ("dynamic_stop", "cosine", "kl"),
    ),
    Term(
        "kv_cache",
        Wording(
            "KV cache",
            "The model's memory of what it has read. For every token and layer it keeps a key (what to look for) and a value "
            "(what to take from it), so that earlier text need not be read again.",
            "T: tokens read; D: numbers in a key of one head; K: key/value heads; itemsize: bytes of one number; slots: how "
            "many versions a layer keeps of each token, 1 without loops.",
        ),
        Wording(
            "KV 缓存",
            "模型对已读内容的记忆。它为每个词元、每一层保存一个键（用来查找）和一个值（用来取用），这样就不必重读前文。",
            "T：已读词元数；D：一个头的键中数字的个数；K：键/值头数；itemsize：一个数占的字节数；slots：一层为每个词元保留的版本数，不循环时为 1。",
        ),
        r"\text{bytes}=\sum_{\text{layers}}T\cdot 2\,D\,K\cdot\text{itemsize}\cdot\text{slots}",
        ("slot",),
    ),
    Term(
        "slot",
        Wording(
            "slot",
            "One version of each token that a looped layer keeps in the cache. Loop steps take turns: with fewer slots than "
            "steps, a later step writes over an earlier one's.",
            "r: the loop step, from 1; V: slots of a layer; the slot's number counts from 0.",
        ),
        Wording(
            "槽位",
            "循环层在缓存中为每个词元保留的一个版本。各循环步轮流写入：槽位少于步数时，后面的步会覆盖前面的。",
            "r：循环步，从 1 数起；V：一层的槽位数；槽位编号从 0 数起。",
        ),
        r"\mathrm{slot}(r)=(r-1)\bmod V",
        ("serial", "parallel"),
    ),
    Term(
        "serial",
        Wording(
            "serial attention",
            "A loop step looks only at its own slot of every earlier token: step 2 sees what step 2 wrote then.",
            "A_r: what step r looks at; K, V with an index: keys and values held in that slot; V alone: number of slots.",
            also=("serial",),
        ),
        Wording(
            "串行注意力",
            "每个循环步只看前面词元中自己的那个槽位：第 2 步看到的是当时第 2 步写下的内容。",
            "A_r：第 r 步所看的内容；带下标的 K、V：该槽位中的键和值；单独的 V：槽位数。",
        ),
        r"A_r=\bigl(K_{(r-1)\bmod V},\,V_{(r-1)\bmod V}\bigr)",
        ("slot", "parallel"),
    ),
    Term(
        "parallel",
        Wording(
            "parallel attention",
            "A loop step looks at all slots of every earlier token at once: at what every step wrote, side by side.",
            "A_r: what step r looks at; [ ; ]: put side by side; K, V with an index: keys and values held in that slot.",
            also=("parallel",),
        ),
        Wording(
            "并行注意力",
            "每个循环步同时看前面每个词元的所有槽位：各步写下的内容并排在一起。",
            "A_r：第 r 步所看的内容；[ ; ]：并排拼接；带下标的 K、V：该槽位中的键和值。",
        ),
        r"A_r=\bigl([K_0;\dots;K_{V-1}],\,[V_0;\dots;V_{V-1}]\bigr)",
        ("slot", "serial"),
    ),
    Term(
        "merge",
        Wording(
            "merge",
            "Keeping one version of each token instead of several: what the loop steps wrote is blended into one key and "
            "one value. Memory then does not grow with the loops.",
            "m: what is kept; kv_r: the key, or the value, of step r; N: steps run. Average and last are shown; the moving "
            "average has its own entry.",
        ),
        Wording(
            "合并",
            "每个词元只保留一个版本而不是多个：把各循环步写下的内容合成一个键和一个值。这样内存就不随循环次数增长。",
            "m：保留的内容；kv_r：第 r 步的键或值；N：实际运行的步数。这里给出平均与取最后一个；滑动平均另有条目。",
        ),
        r"m=\frac{1}{N}\sum_{r=1}^{N}kv_r\ \ (\text{average}),\qquad m=kv_N\ \ (\text{last})",
        ("ema", "kv_cache"),
    ),
    Term(
        "ema",
        Wording(
            "EMA (exponential moving average)",
            "A blend that is updated at every step: keep a part of the old, add a part of the new. Earlier steps fade, "
            "later ones count more or less depending on the weight.",
            "m_r: the blend after step r; α: the weight of the OLD blend; kv_r: the key, or the value, of step r.",
        ),
        Wording(
            "EMA（指数滑动平均）",
            "每一步都更新的混合：保留旧值的一部分，加上新值的一部分。较早的步逐渐淡出，新旧各占多少由权重决定。",
            "m_r：第 r 步之后的混合值；α：旧值的权重；kv_r：第 r 步的键或值。",
        ),
        r"m_1=kv_1,\qquad m_r=\alpha\,m_{r-1}+(1-\alpha)\,kv_r",
        ("merge",),
    ),
    Term(
        "prefill",
        Wording(
            "prefill",
            "Reading the whole prompt in one pass through the model, all its tokens side by side.",
        ),
        Wording("预填充（prefill）", "让模型一次前向读完整个提示词，其中的词元并排处理。"),
        see=("decode",),
    ),
    Term(
        "decode",
        Wording(
            "decode",
            "Writing: one token a pass. The model reads the token it wrote last, looks at the cache for everything before, "
            "and gives the probabilities of the next.",
            "x_t: the token at position t; p: the model's probabilities.",
        ),
        Wording(
            "解码（decode）",
            "写作：每次前向一个词元。模型读入刚写出的词元，从缓存中查看之前的一切，给出下一个词元的概率。",
            "x_t：位置 t 的词元；p：模型给出的概率。",
        ),
        r"x_{t+1}\sim p(\,\cdot\mid x_0,\dots,x_t)",
        ("prefill", "kv_cache"),
    ),
    Term(
        "greedy",
        Wording(
            "greedy choice",
            "Always taking the likeliest next token. The same prompt then always gives the same text.",
            "p(v): probability of token v.",
        ),
        Wording("贪心选择", "总是取最可能的下一个词元。同样的提示词因此总是得到同样的文字。", "p(v)：词元 v 的概率。"),
        r"x_{t+1}=\mathrm{arg\,max}_v\,p(v\mid x_0,\dots,x_t)",
        ("temperature",),
    ),
    Term(
        "temperature",
        Wording(
            "temperature",
            "How boldly the next token is drawn when it is drawn at random: below 1 the likely ones get likelier, above 1 the "
            "unlikely ones get a chance.",
            "z_v: the model's score (logit) of token v; τ: the temperature.",
        ),
        Wording(
            "温度",
            "随机抽取下一个词元时有多大胆：小于 1 时可能的更可能，大于 1 时不太可能的也有机会。",
            "z_v：模型给词元 v 的分数（logit）；τ：温度。",
        ),
        r"p_\tau(v)=\frac{e^{z_v/\tau}}{\sum_u e^{z_u/\tau}}",
        ("greedy",),
    ),
    Term(
        "perplexity",
        Wording(
            "perplexity",
            "How surprised a model is by a text: as if it had to choose among this many equally likely words each time. 1 is "
            "no surprise at all; lower is better. Measured here token by token through the cache, as in writing.",
            "x_t: the text's tokens, T of them; p: the probability the model gave to what came.",
        ),
        Wording(
            "困惑度",
            "模型对一段文字有多意外：相当于每次要在这么多个同样可能的词中选择。1 表示毫不意外，越低越好。这里像写作时那样，通过缓存逐个词元测量。",
            "x_t：文字的词元，共 T 个；p：模型给实际出现的词元的概率。",
        ),
        r"\mathrm{PPL}=\exp\Bigl(-\frac{1}{T-1}\sum_{t=1}^{T-1}\ln p(x_t\mid x_0,\dots,x_{t-1})\Bigr)",
        ("decode",),
    ),
    Term(
        "bootstrap",
        Wording(
            "bootstrap interval",
            "How far another sample of such text might put a mean: the windows (or prompts) that were measured are drawn anew with "
            "replacement, as many as there are, thousands of times with a fixed seed; between the ends lie 95 % of the means so "
            "found. For few windows the ends are moved outwards, as Student's t says; under 6 there is none. Whole windows are "
            "drawn, for the tokens of one are not independent.",
            "W: windows; x_w, n_w: a window's summed values and how many; k_w: how often it was drawn; F: how the means m so found are "
            "spread; Φ: the normal distribution; t: Student's quantile.",
            also=("bootstrap",),
        ),
        Wording(
            "自助法区间",
            "换一份同类文本，平均值可能偏到哪里：把测过的窗口（或提示）有放回地重新抽取，抽取数与原数相同，用固定种子重复数千次；所得平均值的 95% 落在区间两端之间。"
            "窗口较少时按学生 t 分布把两端向外移；少于 6 个时不给出。抽取的是整个窗口，因为同一窗口的词元并不独立。",
            "W：窗口数；x_w、n_w：一个窗口的数值之和与个数；k_w：它被抽中的次数；F：如此得到的平均值 m 的分布；Φ：正态分布；t：学生 t 分位数。",
            also=("自助法",),
        ),
        r"m=\frac{\sum_w k_w x_w}{\sum_w k_w n_w},\qquad \left[F^{-1}(\alpha),\ F^{-1}(1-\alpha)\right],\qquad "
        r"\alpha=\Phi\left(-\sqrt{\frac{W}{W-1}}\;t_{0.975}\right)",
        ("perplexity",),
    ),
)
BY_KEY: dict[str, Term] = {term.key: term for term in GLOSSARY}
