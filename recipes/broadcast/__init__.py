"""Points of tennis as a broadcast shows them, with questions about each (paper, appendix B.2)."""
