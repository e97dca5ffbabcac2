"""Wafer maps (paper, appendix B.5.1): which pattern the failing dies of a wafer form, and where."""
