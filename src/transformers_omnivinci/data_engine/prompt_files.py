"""Prompts: files in Jinja's notation that users can edit, with the fields that a stage gives."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from .typed import nearest

DEFAULT_PROMPTS = Path(__file__).parent / "prompts"
_JINJA = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)


@dataclass(frozen=True)
class Prompt:
    """
    A prompt.

    Attributes:
        name (`str`): Of its file.
        text (`str`): Its template.
    """

    name: str
    text: str

    @property
    def label(self) -> str:
        """Its name and the first digits of its SHA-256, for the provenance of samples."""
        return f"{self.name}@{hashlib.sha256(self.text.encode()).hexdigest()[:12]}"

    @cached_property
    def _template(self):
        try:
            return _JINJA.from_string(self.text)
        except TemplateError as error:
            raise ValueError(f"The prompt {self.name} is not in Jinja's notation: {error}.") from error

    def check(self) -> None:
        """Raises a `ValueError` unless it is in Jinja's notation."""
        _ = self._template

    def render(self, **fields) -> str:
        """The prompt with its fields. A `ValueError` if it names a field that is not given."""
        try:
            return self._template.render(**fields).strip()
        except TemplateError as error:
            raise ValueError(
                f"The prompt {self.name} cannot be filled in: {error}. Its fields are {', '.join(fields) or 'none'}."
            ) from error


def find_prompt(name: str, folder: str | None = None) -> Prompt:
    """
    A prompt by the name of its file, in a folder or else in the package.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is not in Jinja's notation.
    """
    folders = [Path(folder)] if folder else []
    for one in (*folders, DEFAULT_PROMPTS):
        path = one / name
        if path.is_file():
            prompt = Prompt(name, path.read_text(encoding="utf-8"))
            prompt.check()
            return prompt
    known = sorted(path.name for path in DEFAULT_PROMPTS.glob("*.txt"))
    where = f"{folder} nor in the package" if folder else "the package"
    raise OSError(f"There is no prompt {name!r} in {where}: {nearest(name, known)}")
