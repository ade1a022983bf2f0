"""What every figure here is made with: edits of its JSON, the look, labels, Plotly itself. Of LoopViz it imports nothing."""
