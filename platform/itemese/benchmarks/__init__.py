"""Benchmarks, one file each; `names` lists them."""
