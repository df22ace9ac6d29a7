"""Tasks: what is asked of a model, how its answers are judged, and with which metrics."""
