"""Which cache of transformers a session keeps its prefix in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from transformers import DynamicCache, QuantizedCache
from transformers.cache_utils import Cache

IMPLEMENTATIONS = (None, "offloaded", "quantized")


@dataclass(frozen=True)
class CacheKind:
    """
    A kind of cache, by the names that `generate` has for it.

    Attributes:
        implementation (`str`, *optional*): `None`, `"offloaded"` or `"quantized"`.
        config (`Mapping`): Of a quantized one: its `backend` and the options of [`~transformers.QuantizedCache`].
    """

    implementation: str | None = None
    config: Mapping = field(default_factory=dict)

    def __post_init__(self):
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"`cache_implementation={self.implementation!r}` is not accepted: `None`, 'offloaded' and 'quantized' "
                "are, whose tensors branches can share."
            )
        if not isinstance(self.config, Mapping):
            raise TypeError(f"`cache_config` is a dictionary, got {type(self.config).__name__} {self.config!r:.80}.")
        if self.config and self.implementation != "quantized":
            raise ValueError(
                "`cache_config` has options of a quantized cache: give `cache_implementation='quantized'`."
            )

    @property
    def can_be_cut(self) -> bool:
        """Whether it can be cut back to its first positions. What is quantized together cannot be taken apart."""
        return self.implementation != "quantized"

    def make(self, model) -> Cache:
        """
        An empty cache for a model.

        Raises:
            ValueError: there is nothing to offload from, the model has layers that cannot be quantized, or an option
                is not accepted.
            ImportError: the backend is not installed.
        """
        if self.implementation == "quantized":
            config = dict(self.config)
            try:
                return QuantizedCache(config.pop("backend", "quanto"), model.config, **config)
            except TypeError as error:
                raise ValueError(f"`cache_config={dict(self.config)}` is not accepted: {error}.") from error
        if self.implementation == "offloaded":
            if model.device.type == "cpu":
                raise ValueError(
                    "`cache_implementation='offloaded'` keeps the cache off the accelerator, but the model is on the "
                    "CPU: leave it out."
                )
            return DynamicCache(config=model.config, offloading=True)
        return DynamicCache(config=model.config)
