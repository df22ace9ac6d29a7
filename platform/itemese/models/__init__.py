"""Network parts and decoding: torch and transformers, no losses, no training, no Ray."""
