"""Lessons: a question, a guess, a run, what was measured, why. One JSON file each; nothing in it is an answer.

schema        what stands in a file, the one statement of it
faults        what is wrong with one, all of it, by field
measurements  what can be asked of a run: the closed list
verdict       what the right answer is, by what was measured, and how near a guess came
sentences     a sentence with what was measured in it
play          a step's runs, made by an engine
bundled       those that come with LoopViz
"""
