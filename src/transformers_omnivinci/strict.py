"""Types checked by huggingface_hub, whose errors become the `TypeError` or `ValueError` that caused them."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError


@contextmanager
def plain_validation_errors(prefix: str = "") -> Iterator[None]:
    """Raises the `TypeError` or `ValueError` that caused what `@strict` found wrong, with a prefix."""
    try:
        yield
    except StrictDataclassError as error:
        cause = error.__cause__ or ValueError(str(error))
        raise type(cause)(f"{prefix}{cause}") from error


def check_options(names: type, options: dict) -> None:
    """Checks options against a `TypedDict`. Raises a `TypeError` or `ValueError` for a value that is not accepted."""
    with plain_validation_errors():
        validate_typed_dict(names, options)
