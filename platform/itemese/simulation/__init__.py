"""Simulation: users, items with text, and events whose next-item distribution is known."""
