"""From a model's loop events to the numbers of a Frame: the recorder, and one file for each extra it may record."""
