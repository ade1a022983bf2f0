"""What panels are built with: the reader's focus, following a token, sums over a growing trace, pieces of figures."""
