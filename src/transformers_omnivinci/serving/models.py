"""The models of a server: one that it was given, or those that are asked for."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from ..conversion.published_layout import read_json
from ..hub_options import may_be_repository
from ..model_types import MODEL_TYPE, PUBLISHED_MODEL_TYPE
from ..nano import NANO
from ..publishing.handler import EndpointHandler

NAMED = {"nano": NANO}
"""Models that have a name of their own."""


class ModelError(ValueError):
    """A model that the server cannot give: which one, and why."""


class Models:
    """
    Loads models, and forgets those that were not asked for long.

    Args:
        load (`Callable`): Gives an [`EndpointHandler`] for a checkpoint and the name it has in answers.
        only (`str`, *optional*): The model that answers all requests. `None`: each request names one.
        timeout (`float`): Seconds after which a model is forgotten, where requests name them.
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
        The handler of a model, which stays loaded meanwhile.

        Raises:
            ModelError: it is not named, or cannot be loaded.
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
            self._forget_later()

    def is_loaded(self, name) -> bool:
        return self._resolve(name) in self._loaded

    def names(self) -> list[str]:
        """Of the model that answers; or of all that are loaded, in the cache of the Hub, or part of this package."""
        if self.only is not None:
            return [self.only]
        return list(dict.fromkeys([*self._loaded, *_cached_repositories(), *NAMED]))

    def _resolve(self, name) -> str:
        if self.only is not None:
            return self.only
        if not isinstance(name, str) or not name:
            raise ModelError(f"`model` names the model that answers, such as 'nvidia/omnivinci', got {name!r:.80}.")
        return name

    def _load(self, name: str) -> EndpointHandler:
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

    def _forget_later(self) -> None:
        if self.only is None:
            timer = threading.Timer(self.timeout, self._forget)
            timer.daemon = True
            timer.start()

    def _forget(self) -> None:
        with self._loading, self._changing:
            now = time.monotonic()
            idle = [
                name
                for name in self._loaded
                if not self._users.get(name) and now - self._last_used.get(name, now) >= self.timeout
            ]
            for name in idle:
                del self._loaded[name]
        if idle:
            gc.collect()
            import torch

            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _cached_repositories() -> list[str]:
    """Repositories with checkpoints of OmniVinci in the cache of the Hub."""
    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return []
    found = []
    for repository in repositories:
        if repository.repo_type == "model" and any(_is_omnivinci(one.snapshot_path) for one in repository.revisions):
            found.append(repository.repo_id)
    return sorted(found)


def _is_omnivinci(folder: Path) -> bool:
    try:
        return read_json(folder / "config.json").get("model_type") in (MODEL_TYPE, PUBLISHED_MODEL_TYPE)
    except (OSError, ValueError):
        return False
