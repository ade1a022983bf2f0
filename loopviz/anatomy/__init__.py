"""What is inside one step of a Llama, from LLaMA 1 to Llama 3.

Kept free of heavy imports, so that the command line's help stays quick: import the modules.

    llama      a Llama from scratch: one file of plain torch, read top to bottom
    rope       rotary positions in both forms, the permutation between them; sinusoidal positions beside
    families   the published sizes, and what they cost: parameters, KV bytes, FLOPs, logits, LoRA
    probe      every tensor of every layer and loop step, for one token of a pass
    reread     a run's tokens read again as the run read them, for the probe
    parity     llama.py against transformers, logit by logit
"""
