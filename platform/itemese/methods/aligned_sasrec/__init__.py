"""Aligned SASRec."""
