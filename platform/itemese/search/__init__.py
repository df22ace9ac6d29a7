"""Search: a space in YAML, Ray Tune with Optuna over it, and the winner as a bundle."""
