"""Processes of a distributed test, forked from one that has imported what they all need."""

import multiprocessing
from collections.abc import Callable

import torch

PRELOADED = ["torch", "transformers", "transformers_omnivinci.modeling.modeling_omnivinci", "tests.conftest"]


def run_in_processes(function: Callable, *args, num_processes: int = 2) -> None:
    """
    Calls `function(rank, *args)` in so many processes, and raises what one of them raises. The process that they are
    forked from is started by the first call, with the environment variables of that time.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(function, args, num_processes, start_method="forkserver")
