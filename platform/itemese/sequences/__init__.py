"""Interactions in; filtered, ordered, split histories and a catalogue out."""
