"""Narrated readings (paper, appendix B.4): a scroll through a volume, findings that are marked, and what is said."""
