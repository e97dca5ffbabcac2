"""The models of a server: a single one, or those that requests name."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from ..checkpoint_formats import MODEL_TYPE, is_registered, model_type_of
from ..endpoint import EndpointHandler
from ..hub_options import may_be_repository
from ..nano import NANO

NAMED = {"nano": NANO}  # models with short names


class ModelError(ValueError):
    """A model that the server does not have or cannot load."""


class Models:
    """
    Loads models when they are first used, and unloads those that were not used for a while.

    Args:
        load (`Callable`): Returns the [`EndpointHandler`] of a checkpoint, given its path and its name in answers.
        only (`str`, *optional*): The model that answers all requests. `None`: each request names one.
        timeout (`float`): Seconds without use after which a model is unloaded, if requests name them.
    """

    def __init__(self, load: Callable[[str, str], EndpointHandler], only: str | None = None, timeout: float = 300.0):
        self.load, self.only, self.timeout = load, only, timeout
        self._loaded: dict[str, EndpointHandler] = {}
        self._users: dict[str, int] = {}
        self._last_used: dict[str, float] = {}
        self._changing, self._loading = threading.Lock(), threading.Lock()

    @contextmanager
    def use(self, name) -> Iterator[EndpointHandler]:
        """
        The handler of a model, which stays loaded within the `with` block. Raises a `ModelError` if no model is named,
        or it cannot be loaded.
        """
        name = self._resolve(name)
        with self._changing:
            self._users[name] = self._users.get(name, 0) + 1
        try:
            with self._loading:
                if name not in self._loaded:
                    self._loaded[name] = self._load(name)
            yield self._loaded[name]
        finally:
            with self._changing:
                self._users[name] -= 1
                self._last_used[name] = time.monotonic()
            if self.only is None:
                timer = threading.Timer(self.timeout, self._forget)
                timer.daemon = True
                timer.start()

    def is_loaded(self, name) -> bool:
        """Whether a model is loaded. Raises a `ModelError` if none is named."""
        return self._resolve(name) in self._loaded

    def cache_usage(self) -> dict[str, dict[str, int]]:
        """What each model that is loaded remembers, see [`Memory.usage`]."""
        return {name: handler.pipeline.memory.usage() for name, handler in list(self._loaded.items())}

    def names(self) -> list[str]:
        """The only model; or else those that are loaded, in the cache of the Hub, or part of this package."""
        if self.only is not None:
            return [self.only]
        return list(dict.fromkeys([*self._loaded, *_cached_repositories(), *NAMED]))

    def _resolve(self, name) -> str:
        """The model that answers a request which names this one."""
        if self.only is not None:
            return self.only
        if not isinstance(name, str) or not name:
            raise ModelError(f"`model` names the model that answers, such as 'nvidia/omnivinci', got {name!r:.80}.")
        return name

    def _load(self, name: str) -> EndpointHandler:
        """Loads a model, after checking that it is an OmniVinci."""
        path = NAMED.get(name, name)
        if not os.path.isdir(path) and not may_be_repository(path):
            raise ModelError(f"There is no model {name!r:.200}: a folder, or a repository such as owner/name, is one.")
        from transformers import AutoConfig

        try:
            model_type = AutoConfig.from_pretrained(path).model_type
            if model_type != MODEL_TYPE:
                raise ValueError(f"it is of type {model_type!r}, where a checkpoint of OmniVinci is accepted.")
            return self.load(path, name)
        except (ImportError, OSError, ValueError) as error:
            raise ModelError(f"The model {name!r:.200} cannot be loaded: {' '.join(str(error).split())}") from error

    def _forget(self) -> None:
        """Unloads models that were not used for the timeout."""
        with self._loading, self._changing:
            used_after = time.monotonic() - self.timeout
            idle = [name for name in self._loaded if not self._users[name] and self._last_used[name] <= used_after]
            for name in idle:
                del self._loaded[name]
        if idle:
            gc.collect()
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _cached_repositories() -> list[str]:
    """Repositories in the cache of the Hub that hold a checkpoint of OmniVinci."""
    try:
        models = [one for one in scan_cache_dir().repos if one.repo_type == "model"]
    except (CacheNotFound, OSError, ValueError):
        return []
    return sorted(one.repo_id for one in models if any(_is_omnivinci(each.snapshot_path) for each in one.revisions))


def _is_omnivinci(folder: Path) -> bool:
    try:
        return model_type_of(folder) == MODEL_TYPE or is_registered(folder)
    except (OSError, ValueError):
        return False
