"""The Learn page: lessons of a few minutes, each a question, a guess, a run, and what was measured."""
