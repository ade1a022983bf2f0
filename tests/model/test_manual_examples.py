"""Every code example of the user's manual, as it is written there but for its import lines.

They run in one namespace, in the manual's order, as a reader would type them. The models of the manual are large for a
test: they are built in bfloat16, and the 7-billion-parameter baseline without memory (`torch.device("meta")`).
"""

import contextlib
import io
import math

import pytest
import torch

from loopviz.model import LoopLlamaConfig, LoopLlamaForCausalLM

from .tiny import SHAPE

QUICK_START = """
# 创建配置
config = LoopLlamaConfig(
    vocab_size=32000,
    hidden_size=512,
    num_hidden_layers=12,
    num_attention_heads=8,
    loop_layers=(4, 7), # 第4-7层为循环层
    loop_strategy="fixed_count",
    loop_count=3,
    kv_cache_mode="virtual_layers"
)
# 初始化模型
model = LoopLlamaForCausalLM(config)
# 推理
input_ids = torch.tensor([[1, 2, 3, 4, 5]])
outputs = model(input_ids=input_ids)
logits = outputs.logits
"""

BASE_PARAMETERS = """
config = LoopLlamaConfig(
    vocab_size=32000, # 词汇表大小
    hidden_size=512, # 隐藏层维度
    intermediate_size=1024, # FFN中间层维度
    num_hidden_layers=12, # 总层数
    num_attention_heads=8, # 注意力头数
    max_position_embeddings=2048, # 最大位置编码长度
)
"""

LOOP_PARAMETERS = """
# 循环层范围
loop_layers=(4, 7), # 第4-7层为循环层,None表示无循环层
# 循环策略
loop_strategy="fixed_count", # "fixed_count" | "dynamic_stop"
loop_count=3, # 固定循环次数
max_loop_count=10, # 最大循环次数(防止无限循环)
# 动态停止参数
cosine_threshold=0.95, # 余弦相似度收敛阈值
kl_threshold=0.01, # KL散度收敛阈值
"""

CACHE_PARAMETERS = """
# 模式选择
kv_cache_mode="virtual_layers", # "virtual_layers" | "merge_strategy"
# 虚拟层模式参数
virtual_layer_count=5, # 每个物理层对应的虚拟层数
min_loop_count=5, # 最小循环次数
virtual_attention_mode="parallel", # "parallel" | "serial"
# 合并策略模式参数
merge_strategy="ema", # "ema" | "average" | "last"
merge_ema_alpha=0.7, # EMA衰减系数
"""

GENERATION = """
# 配置生成模型
config = LoopLlamaConfig(
    vocab_size=32000,
    hidden_size=512,
    num_hidden_layers=12,
    num_attention_heads=8,
    loop_layers=(4, 7),
    loop_strategy="dynamic_stop",
    cosine_threshold=0.95,
    kv_cache_mode="virtual_layers",
    virtual_attention_mode="parallel"
)
model = LoopLlamaForCausalLM(config)
# 生成文本
input_ids = torch.tensor([[1, 2, 3]]) # 起始token
generated = model.generate(
    input_ids=input_ids,
    max_length=50,
    do_sample=True,
    temperature=0.8
)
"""

PERPLEXITY = """
def calculate_perplexity(model, input_ids):
    model.eval()
    with torch.no_grad():
        outputs = model(input_ids=input_ids, labels=input_ids)
        loss = outputs.loss
        ppl = torch.exp(loss)
    return ppl.item()
# 评估模型
test_sequences = [
    torch.tensor([[1, 2, 3, 4, 5]]),
    torch.tensor([[10, 20, 30, 40]])
]
for seq in test_sequences:
    ppl = calculate_perplexity(model, seq)
    print(f"序列 {seq.squeeze().tolist()} 的PPL: {ppl:.4f}")
"""

BATCH = """
# 批量推理(推荐用于评估)
batch_input_ids = torch.tensor([
    [1, 2, 3, 4, 5, 0, 0], # padding到统一长度
    [10, 20, 30, 40, 50, 60, 70]
])
attention_mask = torch.tensor([
    [1, 1, 1, 1, 1, 0, 0], # 标记有效token
    [1, 1, 1, 1, 1, 1, 1]
])
outputs = model(
    input_ids=batch_input_ids,
    attention_mask=attention_mask,
    labels=batch_input_ids
)
batch_loss = outputs.loss
"""

DYNAMIC_STOP = """
# 动态停止策略
config = LoopLlamaConfig(
    loop_strategy="dynamic_stop",
    cosine_threshold=0.98, # 更严格的收敛条件
    max_loop_count=15, # 允许更多循环
    kv_cache_mode="merge_strategy",
    merge_strategy="ema",
    merge_ema_alpha=0.8
)
"""

ATTENTION_MODES = """
# 并行注意力:所有虚拟层的KV状态拼接
config_parallel = LoopLlamaConfig(
    kv_cache_mode="virtual_layers",
    virtual_attention_mode="parallel",
    virtual_layer_count=3
)
# 串行注意力:只使用当前虚拟层的KV状态
config_serial = LoopLlamaConfig(
    kv_cache_mode="virtual_layers",
    virtual_attention_mode="serial",
    virtual_layer_count=3
)
"""

LARGE_MODELS = """
# 对于大模型,使用合并策略减少内存占用
config = LoopLlamaConfig(
    kv_cache_mode="merge_strategy",
    merge_strategy="last", # 只保留最后一次循环结果
    loop_count=5
)
"""

MONITOR_STEPS = """
# 对于动态停止策略,可以监控实际循环次数
def monitor_loop_steps(model, input_ids):
    model.eval()
    with torch.no_grad():
        outputs = model(input_ids=input_ids, use_cache=True)
        if hasattr(outputs.past_key_values, 'current_forward_loop_step'):
            loop_steps = outputs.past_key_values.current_forward_loop_step
            print(f"实际循环次数: {loop_steps}")
    return outputs
"""

MONITOR_MEMORY = """
def monitor_memory():
    if torch.cuda.is_available():
        print(f"GPU内存使用: {torch.cuda.memory_allocated() / 1024**3:.2f} GB")
        print(f"GPU内存缓存: {torch.cuda.memory_reserved() / 1024**3:.2f} GB")
"""

COMPARISON = """
# 创建对照组:无循环层的基准模型
baseline_config = LoopLlamaConfig(loop_layers=None)
baseline_model = LoopLlamaForCausalLM(baseline_config)
# 实验组:不同循环配置
loop_configs = [
    {"loop_count": 3, "kv_cache_mode": "virtual_layers"},
    {"loop_count": 5, "kv_cache_mode": "merge_strategy"},
    {"loop_strategy": "dynamic_stop", "cosine_threshold": 0.95}
]
"""

TOKENS = torch.tensor([[1, 2, 3, 4, 5]])


def run(example, names=None):
    """Execute an example; returns its names and what it printed."""
    names = {"torch": torch, "LoopLlamaConfig": LoopLlamaConfig, "LoopLlamaForCausalLM": LoopLlamaForCausalLM} | (
        names or {}
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "<manual>", "exec"), names)
    return names, printed.getvalue()


@pytest.fixture(scope="module")
def manual():
    """The names a reader has after typing the quick start and the generation example, in bfloat16 to save memory."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        torch.manual_seed(0)
        quick, _ = run(QUICK_START)
        first = {name: quick[name] for name in ("config", "logits", "outputs")}
        del quick["model"]
        torch.manual_seed(0)
        names, _ = run(GENERATION)
    finally:
        torch.set_default_dtype(usual)
    return {"quick": first, "generation": names}


def test_quick_start(manual):
    config, logits = manual["quick"]["config"], manual["quick"]["logits"]
    assert logits.shape == (1, 5, 32000)
    assert torch.isfinite(logits).all()
    (block,) = config.loop_blocks()
    assert (block.a, block.b, block.max_steps, block.kv_mode) == (4, 7, 3, "virtual_layers")
    assert manual["quick"]["outputs"].past_key_values.current_forward_loop_step == 3


def test_parameter_tables():
    names, _ = run(BASE_PARAMETERS)
    assert names["config"].loop_blocks() == []
    fields = {**eval(f"dict({LOOP_PARAMETERS})"), **eval(f"dict({CACHE_PARAMETERS})")}
    assert len(fields) == 12
    defaults = LoopLlamaConfig()
    for name, value in fields.items():
        if name != "loop_layers":
            assert getattr(defaults, name) == value, f"the manual shows another default for {name}"
    config = LoopLlamaConfig(**{**SHAPE, "num_hidden_layers": 12}, **fields)
    out = LoopLlamaForCausalLM(config).eval()(TOKENS)
    assert out.past_key_values.current_forward_loop_step == 3


def test_generation(manual):
    generated = manual["generation"]["generated"]
    assert generated.shape[0] == 1
    assert 4 <= generated.shape[1] <= 50
    assert generated[0, :3].tolist() == [1, 2, 3]
    (steps,) = manual["generation"]["model"].last_pass.steps
    assert 5 <= int(steps) <= 10


def test_perplexity(manual):
    _, printed = run(PERPLEXITY, {"model": manual["generation"]["model"]})
    lines = printed.splitlines()
    assert [line.split(" 的PPL: ")[0] for line in lines] == ["序列 [1, 2, 3, 4, 5]", "序列 [10, 20, 30, 40]"]
    for line in lines:
        # An untrained model of 32,000 tokens is about as good as guessing.
        assert 3.2e3 < float(line.split(": ")[1]) < 3.2e5


def test_batch(manual):
    model = manual["generation"]["model"]
    with torch.no_grad():
        names, _ = run(BATCH, {"model": model})
        alone = model(TOKENS).logits.float()
    assert math.isfinite(float(names["batch_loss"]))
    together = names["outputs"].logits[0, :5].float()
    torch.testing.assert_close(together, alone[0], atol=0.05, rtol=0.05)  # bfloat16
    best = alone[0].topk(2)
    clear = best.values[:, 0] - best.values[:, 1] > 0.1  # nearer ones a processor's rounding may take for one another
    assert torch.equal(together.argmax(-1)[clear], best.indices[clear, 0])


def test_monitor_loop_steps(manual):
    model = manual["generation"]["model"]
    names, _ = run(MONITOR_STEPS)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        outputs = names["monitor_loop_steps"](model, TOKENS)
    assert printed.getvalue() == f"实际循环次数: {int(model.last_pass.steps[0])}\n"
    assert outputs.logits.shape == (1, 5, 32000)


def test_monitor_memory():
    names, _ = run(MONITOR_MEMORY)
    assert names["monitor_memory"]() is None


@pytest.mark.parametrize(
    ("example", "name", "steps"),
    [
        (DYNAMIC_STOP, "config", range(1, 16)),
        (ATTENTION_MODES, "config_parallel", [3]),
        (ATTENTION_MODES, "config_serial", [3]),
        (LARGE_MODELS, "config", [5]),
    ],
)
def test_configurations_without_a_shape(example, name, steps):
    """They construct as written (a plain 7B Llama: no block is named), and their loop runs on a small model."""
    names, _ = run(example)
    config = names[name]
    assert config.loop_blocks() == []
    with torch.device("meta"):
        model = LoopLlamaForCausalLM(config)
    assert model(torch.zeros(1, 5, dtype=torch.long, device="meta")).logits.shape == (1, 5, 32000)
    chosen = {k: v for k, v in config.to_dict().items() if k in LOOP_NAMES and k != "loop_layers"}
    small = LoopLlamaForCausalLM(LoopLlamaConfig(**SHAPE, **chosen, loop_layers=(1, 2))).eval()
    out = small(TOKENS)
    following = small(TOKENS[:, :1], past_key_values=out.past_key_values)
    assert torch.isfinite(following.logits).all()
    assert out.past_key_values.current_forward_loop_step in steps


LOOP_NAMES = set(LoopLlamaConfig().to_dict()) - set(LoopLlamaConfig.__mro__[1]().to_dict()) | {"min_loop_count"}


def test_comparison_group():
    with torch.device("meta"):
        names, _ = run(COMPARISON)
        assert sum(p.numel() for p in names["baseline_model"].parameters()) > 6e9
    expected = [[3], [5], range(5, 11)]
    for fields, steps in zip(names["loop_configs"], expected, strict=True):
        model = LoopLlamaForCausalLM(LoopLlamaConfig(**SHAPE, loop_layers=(1, 2), **fields)).eval()
        model.generate(TOKENS, max_new_tokens=3, do_sample=False)
        assert int(model.last_pass.steps[0]) in steps
