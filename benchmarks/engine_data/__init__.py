"""What sound, and what the data engine writes, do for a model of nano's size. See docs/data-engine.md."""
