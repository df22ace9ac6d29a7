"""Item vectors to semantic IDs: quantizers, collision handling, health, prefix trie."""
