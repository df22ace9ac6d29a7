"""Constrained decoding over the prefix trie of semantic IDs."""
