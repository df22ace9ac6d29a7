"""EAGER-LLM."""
