"""`npga prior`: train the open head prior on synthetic people.

data (people -> arrays) -> samples (one batch) -> terms (losses) -> train (loop) -> evaluate.
"""
