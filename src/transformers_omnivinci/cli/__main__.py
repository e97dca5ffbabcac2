"""The command for launchers that start modules: `torchrun -m transformers_omnivinci.cli train`."""

from . import main

main()
