"""A package that is no part of itemese: an artifact and a method that reads it."""
