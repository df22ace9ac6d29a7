"""Serving: a bundle, the engine that answers from it, and HTTP around the engine."""
