"""How the Hub is asked, where transformers does not pass it on, and what is said when it breaks off."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

of_auto_config: ContextVar[dict | None] = ContextVar("of_auto_config", default=None)
"""The arguments of the `AutoConfig.from_pretrained` that is running, which config classes do not get to see."""


def may_be_repository(name: str) -> bool:
    """Whether a name is written as that of a repository of the Hub is: `owner/name`."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None


@contextmanager
def plain_transfer_errors(what: str, kept: str) -> Iterator[None]:
    """
    Turns errors of the HTTP library, which is huggingface_hub's own affair, into an `OSError`.

    Args:
        what (`str`): What breaks off, such as "The download of 'owner/name'".
        kept (`str`): What another call finds done.
    """
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{what} broke off: {error or type(error).__name__}. {kept}") from error
