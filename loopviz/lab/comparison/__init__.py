"""Configurations side by side (the task: :mod:`loopviz.lab.tasks.compare`): a result, the table, the curves."""
