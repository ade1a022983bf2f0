"""The Anatomy page: everything that a decoder layer computed for one token of a run, in each loop step."""
