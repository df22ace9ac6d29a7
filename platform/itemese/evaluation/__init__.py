"""Honest evaluation: full-catalogue ranking, intervals, paired tests, leakage checks, reports."""
