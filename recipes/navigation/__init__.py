"""Navigation by speech (paper, appendix B.1), in small: rooms with coloured pillars instead of R2R-CE's houses."""
