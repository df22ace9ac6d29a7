"""The story: a typed experiment, its stages, its run, its result."""
