"""PRORec."""
