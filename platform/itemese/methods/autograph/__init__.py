"""AutoGraph."""
