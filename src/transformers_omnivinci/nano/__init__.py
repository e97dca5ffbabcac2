"""
Nano: an OmniVinci small enough for a laptop, trained on the synthetic world and shipped with this package.

It answers questions about clips of that world, to try out the software. It knows nothing of the real world.
"""

from pathlib import Path

NANO = str(Path(__file__).parent / "checkpoint")
"""The folder of its checkpoint, for `from_pretrained`."""
