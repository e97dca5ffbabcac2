"""Time series as pictures (paper, table 16)."""
