"""The stages of a decoder layer, in the order in which they run, and those before the first and after the last layer, as data.

A :class:`Stage` knows which tensors of a :class:`loopviz.anatomy.probed.LayerRun` it made, the axes they have, its formula, and the line
of code that computes it. Here are a plain Llama's, of `llama.py`; what other models have instead, and more, is
:mod:`loopviz.anatomy.other_stages`, and which of all a layer has says :mod:`loopviz.anatomy.way`. Importing this needs no torch: a page lists them before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LLAMA = "loopviz.anatomy.llama:"


@dataclass(frozen=True)
class Stage:
    """One stage of a layer.

    Attributes:
        name: its own, and the key of its words.
        tensors: what it made, as a `LayerRun` calls it; the first is the one to draw.
        axes: of the first tensor, by letter: H state, N query heads, K key/value heads, D width of a head, S columns, F MLP.
        formula: in TeX.
        code: the function that computes it, `module:name`.
        reads: the stages whose results it takes; of several that follow one another, where a model has not all, the last it has.
        line: words of the line in that function where it is computed; "": all of it.
        drawn: the tensors of its picture, of a `LayerRun` or beside it (:mod:`loopviz.anatomy.picture`); (): it has one of its own.
        variant: which of several of this name it is; "": a plain Llama's.
        title, about: keys of its words where they are others than its name's.
    """

    name: str
    tensors: tuple[str, ...]
    axes: tuple[str, ...]
    formula: str
    code: str
    reads: tuple[str, ...]
    line: str = ""
    drawn: tuple[str, ...] = ()
    variant: str = ""
    title: str = ""
    about: str = ""

    @property
    def key(self) -> str:
        """By which a page finds it among all."""
        return f"{self.name}.{self.variant}" if self.variant else self.name


STAGES: tuple[Stage, ...] = (
    Stage(
        "state",
        ("state",),
        ("H",),
        r"x",
        _LLAMA + "LlamaDecoderLayer",
        ("embedding",),
        drawn=("state",),
    ),
    Stage(
        "norm",
        ("normed",),
        ("H",),
        r"\hat x = g \odot \frac{x}{\mathrm{rms}(x)},\quad \mathrm{rms}(x) = \sqrt{\tfrac1H \textstyle\sum_i x_i^2 + \epsilon}",
        _LLAMA + "LlamaRMSNorm.forward",
        ("state",),
        "return self.weight *",
        drawn=("state", "normed", "layer_norm", "gain"),
    ),
    Stage(
        "query",
        ("query",),
        ("N", "D"),
        r"q = W_q \hat x",
        _LLAMA + "LlamaAttention.forward",
        ("norm",),
        "q = self.q_proj(x)",
        drawn=("query",),
    ),
    Stage(
        "key",
        ("key",),
        ("K", "D"),
        r"k = W_k \hat x",
        _LLAMA + "LlamaAttention.forward",
        ("norm",),
        "k = self.k_proj(x)",
        drawn=("key",),
    ),
    Stage(
        "value",
        ("value",),
        ("K", "D"),
        r"v = W_v \hat x",
        _LLAMA + "LlamaAttention.forward",
        ("norm",),
        "v = self.v_proj(x)",
        drawn=("value",),
    ),
    Stage(
        "rope",
        ("turned",),
        ("N", "D"),
        r"(a, b)_i \mapsto (a \cos t\theta_i - b \sin t\theta_i,\; b \cos t\theta_i + a \sin t\theta_i),\quad \theta_i = \theta^{-2i/D}",
        _LLAMA + "rotate",
        ("query", "key"),
        "return x * cos",
        drawn=("query", "turned"),
    ),
    Stage(
        "keys",
        ("keys", "values"),
        ("K", "S", "D"),
        r"K = [k_0 \dots k_t],\; V = [v_0 \dots v_t]",
        _LLAMA + "KVCache.append",
        ("rope", "value"),
        "torch.cat(pair, 2)",
    ),
    Stage(
        "scores",
        ("scores", "visible"),
        ("N", "S"),
        r"e_{n,p} = \frac{q_n \cdot k_{\lfloor nK/N \rfloor, p}}{\sqrt D}",
        _LLAMA + "LlamaAttention.forward",
        ("rope", "keys"),
        "scores = q @ k",
        drawn=("scores",),
    ),
    Stage(
        "weights",
        ("weights",),
        ("N", "S"),
        r"a_{n,p} = \frac{\exp e_{n,p}}{\sum_{p' \le t} \exp e_{n,p'}}",
        _LLAMA + "LlamaAttention.forward",
        ("scores",),
        "weights = scores.softmax",
        drawn=("weights",),
    ),
    Stage(
        "mixed",
        ("mixed",),
        ("N", "D"),
        r"z_n = \sum_p a_{n,p}\, v_{\lfloor nK/N \rfloor, p}",
        _LLAMA + "LlamaAttention.forward",
        ("weights", "keys"),
        "mixed = weights.to",
        drawn=("mixed",),
    ),
    Stage(
        "attended",
        ("attended",),
        ("H",),
        r"W_o [z_1 \dots z_N]",
        _LLAMA + "LlamaAttention.forward",
        ("mixed",),
        "return self.o_proj(",
        drawn=("attended",),
    ),
    Stage(
        "between",
        ("between",),
        ("H",),
        r"x' = x + \mathrm{attention}(\hat x)",
        _LLAMA + "LlamaDecoderLayer.forward",
        ("state", "attended"),
        "x = x + self.self_attn(",
        drawn=("state", "attended", "between"),
    ),
    Stage(
        "norm_mlp",
        ("normed_between",),
        ("H",),
        r"\hat x' = g' \odot \frac{x'}{\mathrm{rms}(x')}",
        _LLAMA + "LlamaRMSNorm.forward",
        ("between",),
        "return self.weight *",
        drawn=("between", "normed_between", "layer_norm_mlp", "gain_mlp"),
    ),
    Stage(
        "gate",
        ("gate",),
        ("F",),
        r"u = W_{gate}\, \hat x'",
        _LLAMA + "LlamaMLP.forward",
        ("norm_mlp",),
        "self.gate_proj(x)",
        drawn=("gate",),
    ),
    Stage(
        "swish",
        ("swish", "gate"),
        ("F",),
        r"\mathrm{swish}_\beta(u) = u\,\sigma(\beta u),\quad \beta = 1",
        _LLAMA + "LlamaMLP.forward",
        ("gate",),
        "F.silu(",
    ),
    Stage(
        "up",
        ("up",),
        ("F",),
        r"w = W_{up}\, \hat x'",
        _LLAMA + "LlamaMLP.forward",
        ("norm_mlp",),
        "self.up_proj(x)",
        drawn=("up",),
    ),
    Stage(
        "product",
        ("product",),
        ("F",),
        r"\mathrm{swish}(u) \odot w",
        _LLAMA + "LlamaMLP.forward",
        ("swish", "up"),
        ") * self.up_proj(",
        drawn=("gate", "swish", "up", "product"),
    ),
    Stage(
        "down",
        ("down",),
        ("H",),
        r"W_{down}(\cdot)",
        _LLAMA + "LlamaMLP.forward",
        ("product",),
        "self.down_proj(",
        drawn=("down",),
    ),
    Stage(
        "result",
        ("result",),
        ("H",),
        r"y = x' + \mathrm{mlp}(\hat x')",
        _LLAMA + "LlamaDecoderLayer.forward",
        ("between", "down"),
        "return x + self.mlp(",
        drawn=("between", "down", "result"),
    ),
)
BY_NAME: Mapping[str, Stage] = {stage.name: stage for stage in STAGES}

# Around the layers: tensors of a :class:`loopviz.anatomy.probe.Probed`.
BEFORE: tuple[Stage, ...] = (
    Stage(
        "embedding",
        ("embedding",),
        ("H",),
        r"x = E[\mathrm{token}]",
        _LLAMA + "LlamaModel.forward",
        (),
        "x = self.embed_tokens(",
        drawn=("embedding",),
    ),
)
AFTER: tuple[Stage, ...] = (
    Stage(
        "final_norm",
        ("normed",),
        ("H",),
        r"\hat y = g \odot \frac{y}{\mathrm{rms}(y)}",
        _LLAMA + "LlamaModel.forward",
        ("result",),
        "return self.norm(x)",
        drawn=("final", "normed", "gain"),
    ),
    Stage(
        "head",
        ("logits",),
        ("V",),
        r"\ell = W_{head}\, \hat y",
        _LLAMA + "LlamaForCausalLM.forward",
        ("final_norm",),
        "logits = self.lm_head(",
    ),
    Stage(
        "sampling",
        ("logits",),
        ("V",),
        r"p_i = \frac{\exp(\ell_i / T)}{\sum_{j \in \mathrm{kept}} \exp(\ell_j / T)}",
        _LLAMA + "probabilities",
        ("head",),
        "beyond.scatter(",
    ),
)
ALL: tuple[Stage, ...] = (*BEFORE, *STAGES, *AFTER)
AROUND = frozenset(
    ("embedding", "scaled", "final_norm", "head", "sampling")
)  # of a token, in whatever model; the others are of a layer

BETAS = (0.1, 1.0, 10.0)  # of swish, as the article draws it: towards a line, as in a Llama, towards ReLU
