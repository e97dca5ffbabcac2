"""
Nano: OmniVinci with few enough parameters for a laptop, trained on the synthetic world and shipped with this package.

It answers questions about clips of that world, for trying the software. Of the real world it knows nothing.
"""

from pathlib import Path

NANO = str(Path(__file__).parent / "checkpoint")
"""The folder of the checkpoint, for `from_pretrained`."""
