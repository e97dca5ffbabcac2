"""Runs the command as a module, for launchers: `torchrun -m transformers_omnivinci.cli train`."""

from . import main

main()
