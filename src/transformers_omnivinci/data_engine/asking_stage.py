"""What stages that ask a model share: a back end, a prompt, seeds, and accounts of what was asked."""

from collections.abc import Callable, Mapping

from .backends.protocol import Backend, Medium, Request
from .backends.registry import make_backend
from .columns import Provenance
from .config import AskingConfig, EngineConfig, backend_options
from .prompt_files import Prompt, find_prompt
from .stage import Stage, account, seed_of
from .structured import Asked, ask


class Bench:
    """
    The back ends of a process, each made when it is first asked for.

    Args:
        config ([`EngineConfig`]): Names them.
        made (`Mapping[str, Backend]`, *optional*): Some that are there already.
    """

    def __init__(self, config: EngineConfig, made: Mapping[str, Backend] | None = None):
        self.config, self._made = config, dict(made or {})

    def __getitem__(self, name: str) -> Backend:
        if name not in self._made:
            self._made[name] = make_backend(backend_options(name, self.config.backends[name]))
        return self._made[name]

    def prices(self, name: str) -> tuple[float, float]:
        """Of a million prompt tokens and of a million completion tokens; 0 where the config names none."""
        options = backend_options(name, self.config.backends[name])
        return getattr(options, "prompt_price", 0.0), getattr(options, "completion_price", 0.0)


class AskingStage(Stage):
    """
    Base of the stages that ask a model.

    Args:
        config ([`AskingConfig`]): Of the stage.
        bench ([`Bench`]): Has the back ends.
    """

    def __init__(self, config: AskingConfig, bench: Bench):
        self.config, self.bench = config, bench
        self.backend, self.prompt = bench[config.backend], self.find_prompt(config.prompt)

    def find_prompt(self, name: str) -> Prompt:
        """A prompt of the run."""
        return find_prompt(name, self.bench.config.prompts)

    def request(
        self, unit: str, fields: dict, media: tuple[Medium, ...] = (), prompt: Prompt | None = None
    ) -> Request:
        """A request about `unit`, the name of a clip or segment, upon which its seed depends."""
        prompt = prompt or self.prompt
        return Request(
            task=self.name,
            text=prompt.render(**fields),
            media=media,
            fields=fields,
            seed=seed_of(self.bench.config.seed, prompt.name, unit),
            max_tokens=self.config.max_tokens,
            temperature=self.config.temperature,
        )

    def ask_all(
        self,
        requests: list[list[Request]],
        wanted: type | None = None,
        check: Callable | None = None,
        backend: str | None = None,
    ) -> list[list[Asked]]:
        """Asks the requests of several rows at a time: for each row, what became of its requests."""
        flat = [request for row in requests for request in row]
        name = backend or self.config.backend
        asked = iter(ask(self.bench[name], flat, wanted, check))
        return [[next(asked) for _ in row] for row in requests]

    def account(self, asked: list[Asked], backend: str | None = None, prompt: Prompt | None = None) -> Provenance:
        """What the questions of a row took."""
        name = backend or self.config.backend
        label = (prompt or self.prompt).label
        return account(self.name, name, self.bench[name].model, label, asked, self.bench.prices(name))
