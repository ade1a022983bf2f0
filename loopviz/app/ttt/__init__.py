"""The TTT page: a model whose memory learns while it reads, watched word by word."""
