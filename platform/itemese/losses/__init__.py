"""Formulas over tensors; each takes plain tensors and returns a scalar in nats."""
