"""Stores of users' lifelong histories."""
