"""The decoder without autograd: packed weights, shared prefill, prompt cache."""
