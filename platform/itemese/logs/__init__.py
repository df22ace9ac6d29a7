"""Stage 1: raw behaviour files of any source become one table of interactions (Ray Data)."""
