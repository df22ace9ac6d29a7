"""Builders of the request table: one file each, found by name or dotted path."""
