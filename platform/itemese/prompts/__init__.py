"""Histories and semantic IDs become what a language model reads."""
