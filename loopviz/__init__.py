"""LoopViz: see how a looped language model thinks, live in the browser.

Kept free of heavy imports: the page's first paint must not wait for torch.
"""

__version__ = "0.1.0"
