"""Item text to item vectors, on Ray Data."""
