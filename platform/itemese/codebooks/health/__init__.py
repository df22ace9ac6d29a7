"""Diagnostics of codes."""
