"""How the Hub is asked, where transformers does not pass it on."""

from contextvars import ContextVar

of_auto_config: ContextVar[dict | None] = ContextVar("of_auto_config", default=None)
"""The arguments of the `AutoConfig.from_pretrained` that is running, which config classes do not get to see."""
