"""The tools of the article take a LoopLlama as it is: peft, trl's SFTTrainer, and what prepares a model of few bits."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints import as_loop_llama
from tests.conftest import TEXT, make_llama, make_tokenizer

peft = pytest.importorskip("peft", reason="optional: pip install 'loopviz[teach]'")

LOOPS = {"loop_layers": (1, 2), "loop_count": 3, "virtual_attention_mode": "serial", "virtual_layer_count": 3}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def looped() -> LoopLlamaForCausalLM:
    return as_loop_llama(make_llama(), **LOOPS)


def article(**more) -> peft.LoraConfig:
    """As the article sets it."""
    values = {
        "r": 8,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "bias": "none",
        "task_type": "CAUSAL_LM",
        "target_modules": TARGETS,
    }
    return peft.LoraConfig(**{**values, **more})


def one_step(wrapped, lr=1e-2) -> tuple[float, float]:
    """Loss before and after an optimisation step on one batch."""
    torch.manual_seed(0)
    ids = torch.randint(5, 300, (2, 12))
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    losses = []
    for _ in range(2):
        logits = wrapped(input_ids=ids).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses[0], losses[1]


def test_peft_trains_the_block_alone_and_through_every_loop():
    model = looped()
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = peft.get_peft_model(model, article(lora_dropout=0.0, layers_to_transform=[1, 2], layers_pattern="layers"))
    before, after = one_step(wrapped)
    assert after < before
    assert model.last_pass.steps[0].tolist() == [3, 3]
    moved = [name for name, value in wrapped.get_base_model().named_parameters() if value.requires_grad]
    assert moved
    assert all("lora" in name and (".layers.1." in name or ".layers.2." in name) for name in moved)
    merged = wrapped.merge_and_unload().state_dict()
    same = {name for name, value in frozen.items() if torch.equal(value, merged[name])}
    changed = frozen.keys() - same
    assert changed == {f"model.layers.{i}.self_attn.{name}.weight" for i in (1, 2) for name in TARGETS}


@pytest.mark.parametrize("injection", ["none", "linear"])
def test_a_model_prepared_for_few_bits_trains_with_its_activations_made_again(injection):
    """`prepare_model_for_kbit_training` freezes, casts to float32 and turns gradient checkpointing on."""
    wild = as_loop_llama(make_llama(), **LOOPS, loop_injection=injection)
    plain = peft.get_peft_model(
        as_loop_llama(make_llama(), **LOOPS, loop_injection=injection), article(lora_dropout=0.0)
    )
    wild.is_loaded_in_8bit = True  # as bitsandbytes leaves it: else peft only freezes
    model = peft.prepare_model_for_kbit_training(wild, gradient_checkpointing_kwargs={"use_reentrant": False})
    del model.is_loaded_in_8bit
    assert model.model.gradient_checkpointing
    wrapped = peft.get_peft_model(model, article(lora_dropout=0.0))
    assert not [name for name, value in wrapped.named_parameters() if value.requires_grad and "lora" not in name]
    torch.manual_seed(3)
    for each in (wrapped, plain):
        each.train()
        torch.manual_seed(3)
        with torch.no_grad():
            for name, parameter in each.named_parameters():
                if "lora" in name:
                    parameter.copy_(0.1 * torch.randn_like(parameter))
    assert one_step(wrapped) == pytest.approx(one_step(plain), abs=1e-4), "the same numbers, with less memory"


def test_trl_trains_it(tmp_path):
    trl = pytest.importorskip("trl", reason="optional: pip install 'loopviz[teach]'")
    from datasets import Dataset

    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    how = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, report_to="none",
        use_cpu=True, max_length=24, save_strategy="no", logging_steps=1, disable_tqdm=True, bf16=False,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=looped(), args=how, train_dataset=Dataset.from_dict({"text": TEXT * 2}), processing_class=tokenizer,
        peft_config=article(layers_to_transform=[1, 2], layers_pattern="layers"),
    )  # fmt: skip
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if "lora_B" in name}
    trainer.train()
    assert before
    moved = [
        name
        for name, value in trainer.model.named_parameters()
        if name in before and not torch.equal(value, before[name])
    ]
    assert set(moved) == set(before)
    assert [entry for entry in trainer.state.log_history if entry.get("loss", 0) > 0]
    trainer.save_model(str(tmp_path / "adapter"))
    again = peft.PeftModel.from_pretrained(looped(), tmp_path / "adapter").eval()
    ids = torch.randint(5, 300, (1, 8))
    trainer.model.eval()
    torch.testing.assert_close(again(input_ids=ids).logits, trainer.model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
