"""RSLLM."""
