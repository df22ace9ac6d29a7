"""Typed features of users, items, events and requests, and the users of the histories."""
