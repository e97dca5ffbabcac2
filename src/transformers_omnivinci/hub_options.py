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
    Turns errors of the libraries that transfer, which are huggingface_hub's own affair, into an `OSError`: those of
    HTTP, and the `RuntimeError` of Xet. Other errors are no matter of the connection, and stay as they are.

    Args:
        what (`str`): What breaks off, such as "The download of 'owner/name'".
        kept (`str`): What another call finds done.
    """
    from huggingface_hub.errors import HTTPError  # of whichever HTTP library this version speaks through

    try:
        yield
    except OSError:  # HfHubHTTPError, an answer of the Hub, is both
        raise
    except (HTTPError, RuntimeError) as error:
        raise OSError(f"{what} broke off: {error or type(error).__name__}. {kept}") from error
