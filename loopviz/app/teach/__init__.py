"""The Teach page: a LoRA with which a model loops, watched while it learns."""
