"""How the Hub is asked, and what is said when a transfer breaks off."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
"""The options of a `from_pretrained` that say how the Hub is asked."""
LOADER_OPTIONS = {*HUB_OPTIONS, "subfolder", "trust_remote_code", "_from_auto"}
"""Those that say where something is loaded from, and nothing about what it is like."""


def hub_options(options: dict) -> dict:
    """What of the options of a `from_pretrained` says how the Hub is asked."""
    return {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}


def may_be_repository(name: str) -> bool:
    """Whether a name is written as that of a repository of the Hub is: `owner/name`."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None


@contextmanager
def plain_transfer_errors(what: str, kept: str) -> Iterator[None]:
    """
    Turns errors of the libraries that transfer into an `OSError`: those of HTTP, and the `RuntimeError` of Xet. Its
    message names `what` broke off, such as "The download of 'owner/name'", and ends with the sentence `kept`.
    """
    from huggingface_hub.errors import HTTPError  # of whichever HTTP library this version speaks through

    try:
        yield
    except OSError:  # HfHubHTTPError, an answer of the Hub, is both
        raise
    except (HTTPError, RuntimeError) as error:
        raise OSError(f"{what} broke off: {error or type(error).__name__}. {kept}") from error


def download(repo_id, patterns: list[str], **options) -> Path:
    """The folder of a repository's snapshot, with the files that match. If it breaks off, what arrived is kept."""
    from huggingface_hub import snapshot_download

    kept = "Another call does not fetch again the files that have arrived."
    with plain_transfer_errors(f"The download of {repo_id!r}", kept):
        return Path(snapshot_download(str(repo_id), allow_patterns=patterns, **options))
