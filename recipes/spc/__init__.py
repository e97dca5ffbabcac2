"""Charts of statistical process control (paper, appendix B.5.2)."""
