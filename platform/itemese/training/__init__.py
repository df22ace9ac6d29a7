"""The training loop, its checkpoints, and the Ray Train shell around it."""
