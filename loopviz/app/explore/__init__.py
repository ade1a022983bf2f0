"""The Explore page: a prompt, a looped model, and every loop of every token drawn as it is made."""
