"""Training and measuring looped models and TTT models: `python -m loopviz train` and `python -m loopviz evaluate`.

Kept free of heavy imports, so that the command line's help stays quick: import the modules.

    recipe     what is trained, as data; recipes/*.json are the ones that come along
    loops      how many loop steps an optimisation step runs
    text       a text file as BPE tokens, mapped from disk, and random windows of it
    instructions  records of prompt and answer as tokens; the answer's are learned
    arrows     the generated task "follow the arrows"
    tasks      what the trainer asks of either: batches, held-out results, a tokenizer
    optim      AdamW, Muon, schedules
    state      checkpoints and logs that survive being killed
    trainer    the loop
    teach_*    a LoRA with which a stock Llama loops: its recipe, data, trainer and card (`python -m loopviz teach`)
    evaluate   loss, agreement and accuracy by loops
    card       the model card
    glassbox   a model built, not trained, whose loop is known exactly
    commands   the command line
"""
