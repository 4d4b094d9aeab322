"""Calls of other people's URLs by steps: what is sent, what becomes of the answer, what people may read."""
