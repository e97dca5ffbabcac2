"""Checkpoints with smaller weights: recipes say which part gets what, llm-compressor calibrates and rounds."""
