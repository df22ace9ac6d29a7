"""Texts of items and of users, written by a language model or a template; graphs of events."""
