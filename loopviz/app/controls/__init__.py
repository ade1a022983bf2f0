"""The controls of a run, on whatever page: their limits and values, presets, examples, and the link that holds them."""
