"""Ways to read a text for a measurement: windows, whole passes, through the cache; intervals, scores, kinds of words."""
