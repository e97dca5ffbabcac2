"""Clips, pictures or sounds with questions: generated on access, or written to a folder as chats and media files."""

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from filelock import FileLock, Timeout

from ..new_file import new_file
from .clips import SUFFIXES, Clip, render, write_clip
from .config import WorldConfig
from .questions import MODALITIES, QUESTION_TYPES, Question, QuestionForm, ask
from .scenes import SPLITS, Scene, held_out, plan_scene
from .unrolled import ORDERS, unrolled_rows

# How many scenes are drawn to find one with the wanted answer; a few hundred suffice for the rarest answer.
_MAX_ATTEMPTS = 50_000


@dataclass(frozen=True)
class Sample:
    """
    A scene and the questions about it.

    Attributes:
        id (`str`): Unique across splits, modalities and seeds.
        scene ([`Scene`]): What the sample shows. Render it with [`SyntheticDataset.render`].
        questions (`tuple[Question, ...]`): Each of a different form. The answers of the first are exactly balanced.
        modality (`str`): A key of `MODALITIES`.
    """

    id: str
    scene: Scene
    questions: tuple[Question, ...]
    modality: str = "video"

    def rows(self, path: str) -> list[dict]:
        """
        A chat for each question, as it is written to the JSONL file.

        Args:
            path (`str`): Path of the clip, picture or sound to put into the chats.

        Returns:
            `list[dict]`: each with `id`, `messages`, `question_type`, `question_form`, `num_candidates` (see
            [`Question`]) and `is_held_out`, whether the question relates a held-out combination.
        """
        medium = {"type": self.modality, "path": path}
        return [
            {
                "id": f"{self.id}-{number}",
                "messages": [
                    {"role": "user", "content": [medium, {"type": "text", "text": question.text}]},
                    {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
                ],
                "question_type": question.type,
                "question_form": question.form,
                "num_candidates": question.num_candidates,
                "is_held_out": any(question.combination in held_out(split) for split in SPLITS),
            }
            for number, question in enumerate(self.questions)
        ]


class SyntheticDataset(Sequence[Sample]):
    """
    The samples of a split, generated on access. Sample `i` does not depend on `num_clips`.

    Question types alternate. Within a type, every pair of form and answer comes once, in random order, before any
    comes again.

    Args:
        split (`str`): One of `SPLITS`. Splits of the same seed have different clips.
        num_clips (`int`): Number of samples.
        seed (`int`, *optional*, defaults to 0): Seed of the clips and questions.
        config ([`WorldConfig`], *optional*): The world's config.
        types (`Sequence[str]`, *optional*): Types of questions. `None`: all that the modality has, but for `"absent"`.
        questions_per_clip (`int`, *optional*, defaults to 1):
            The maximum; short clips have fewer. Further questions have other forms, with types in turn. Their answers
            are as frequent as the clips make them: early times, for example, are more frequent than late ones.
        modality (`str`, *optional*, defaults to `"video"`):
            `"image"` gives pictures of one shape, with questions of types "visual" and "caption"; `"audio"` gives
            sounds, with questions of types "audio", "time", "counting" and "matching". See [`Modality`] for what
            is held out.
        forms (`Sequence[str]`, *optional*): Names of the only forms to ask. `None`: all of the types.
        unrolled (`bool`, *optional*, defaults to `False`):
            Whether its chats have contexts before each answer and ask for these, see [`unrolled_rows`]. There are none
            of pictures.

    Raises:
        ValueError: a split, type, form or modality is unknown, or a number is out of range.
        IndexError: on access, if there is no such sample.
    """

    def __init__(
        self,
        split: str,
        num_clips: int,
        seed: int = 0,
        config: WorldConfig | None = None,
        types: Sequence[str] | None = None,
        questions_per_clip: int = 1,
        modality: str = "video",
        forms: Sequence[str] | None = None,
        unrolled: bool = False,
    ):
        if split not in SPLITS:
            raise ValueError(f"Unknown split {split!r}: {', '.join(map(repr, SPLITS))} are accepted.")
        if num_clips < 1:
            raise ValueError(f"`num_clips={num_clips}`: a data set has at least one clip.")
        if modality not in MODALITIES:
            raise ValueError(f"Unknown modality {modality!r}: {', '.join(map(repr, MODALITIES))} are accepted.")
        if unrolled and modality not in ORDERS:
            raise ValueError(f"Chats about the modality {modality!r} have no contexts: {', '.join(ORDERS)} have some.")
        known = MODALITIES[modality].forms
        forms = _choose("Forms", forms, [form.name for form in known])
        known = [form for form in known if form.name in forms]
        possible = list(dict.fromkeys(form.type for form in known))
        if types is None:
            types = [type for type in possible if type in QUESTION_TYPES] or possible
        types = _choose("Types", types, possible)
        self.forms = tuple(form.name for form in known if form.type in types)
        if not 1 <= questions_per_clip <= len(self.forms):
            raise ValueError(
                f"`questions_per_clip={questions_per_clip}`: from 1 to {len(self.forms)}, the number of forms, are "
                "accepted."
            )
        self.split, self.num_clips, self.seed, self.config = split, num_clips, seed, config or WorldConfig()
        self.types, self.questions_per_clip, self.modality = types, questions_per_clip, modality
        self.unrolled = unrolled

    @property
    def name(self) -> str:
        """The name of its files: the split, with the modality if that is not video (`"train-image"`)."""
        return self.split if self.modality == "video" else f"{self.split}-{self.modality}"

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no sample {index} of {len(self)}.")
        index %= len(self)
        modality = MODALITIES[self.modality]
        rng = random.Random(f"{self.name}/{self.seed}/{index}")
        type = self.types[index % len(self.types)]
        strata = _strata(self._forms_of(type), self.config)
        block, place = divmod(index // len(self.types), len(strata))
        order = random.Random(f"{self.name}/{self.seed}/{type}/{block}").sample(range(len(strata)), len(strata))
        form, answer = strata[order[place]]
        for _ in range(_MAX_ATTEMPTS):
            scene = modality.take(plan_scene(self.config, self.split, rng), self.config, rng)
            question = ask(scene, form, answer, self.config, rng)
            if question is not None:
                break
        else:
            raise ValueError(f"In this world, hardly any clip has the answer {answer!r} to {form.wordings[0]!r}.")
        questions = (question, *self._ask_others(scene, question, rng))
        return Sample(f"{self.name}-{self.seed}-{index:06d}", scene, questions, self.modality)

    def _ask_others(self, scene: Scene, first: Question, rng: random.Random) -> Iterator[Question]:
        """Further questions in rounds of one for each type; no form comes twice."""
        asked = [first]
        for turn in count():
            num_before = len(asked)
            for type in rng.sample(self.types, len(self.types)):
                if turn == 0 and type == first.type:
                    continue
                done = {question.form for question in asked}
                forms = [form for form in self._forms_of(type) if form.name not in done]
                for form in rng.sample(forms, len(forms)):
                    question = len(asked) < self.questions_per_clip and ask(scene, form, None, self.config, rng)
                    if question:
                        asked.append(question)
                        yield question
                        break
            if turn and len(asked) == num_before:
                return

    def _forms_of(self, type: str) -> tuple[QuestionForm, ...]:
        return tuple(form for form in MODALITIES[self.modality].forms if form.type == type and form.name in self.forms)

    def render(self, sample: Sample) -> Clip:
        """Renders one of the samples."""
        return render(sample.scene, self.config, self.modality)


def _choose(kind: str, wanted: Sequence[str] | None, known: list[str]) -> tuple[str, ...]:
    """Checks a selection of known names. `None`: all."""
    chosen = tuple(known if wanted is None else wanted)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise ValueError(f"{kind} {list(chosen)}: some of {known} are accepted, each once.")
    return chosen


@lru_cache(maxsize=256)
def _strata(forms: tuple[QuestionForm, ...], config: WorldConfig) -> tuple[tuple[QuestionForm, str | None], ...]:
    """All pairs of form and answer."""
    return tuple((form, answer) for form in forms for answer in form.answers(config) or (None,))


def write_dataset(
    folder: str | Path, dataset: SyntheticDataset, num_workers: int = 1, on_clip: Callable[[], object] | None = None
) -> Path:
    """
    Writes `NAME.jsonl`, `NAME.json` (the settings) and `media/NAME/`, where `NAME` is [`SyntheticDataset.name`].

    Media of an interrupted run with the same settings are kept. The JSONL file is written last, once all its media
    exist.

    Args:
        folder (`str` or `Path`): Created if missing. It can hold several splits and modalities.
        dataset ([`SyntheticDataset`]): What to write.
        num_workers (`int`, *optional*, defaults to 1): Number of processes that render.
        on_clip (`Callable`, *optional*): Called without arguments after each sample.

    Returns:
        `Path`: the JSONL file.

    Raises:
        ValueError: `num_workers` is less than 1, or the folder holds a data set with other settings.
        OSError: the folder cannot be written, or another process is writing the same data set.
    """
    if num_workers < 1:
        raise ValueError(f"`num_workers={num_workers}`: at least one process is needed.")
    folder = Path(folder)
    lock = FileLock(folder / f".{dataset.name}.lock", blocking=False)
    try:
        (folder / _media_folder(dataset)).mkdir(parents=True, exist_ok=True)
        with lock:
            try:
                return _write_files(folder, dataset, num_workers, on_clip)
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout as error:
        raise OSError(f"Another process is writing {dataset.name!r} to {folder}.") from error
    except OSError as error:
        raise OSError(f"The data set cannot be written to {folder}: {error.strerror or error}.") from error


def _write_files(folder: Path, dataset: SyntheticDataset, num_workers: int, on_clip) -> Path:
    # Another process may be writing a data set whose name begins with this one's to the same folder.
    for parts in (f".{dataset.name}.*.incomplete.*", f"{_media_folder(dataset)}/.*.incomplete.*"):
        for abandoned in folder.glob(parts):
            abandoned.unlink()
    _claim(folder / f"{dataset.name}.json", _describe(dataset))
    write = partial(_write_sample, dataset, folder)
    result = folder / f"{dataset.name}.jsonl"
    with new_file(result) as part, open(part, "w", encoding="utf-8", newline="\n") as file:
        for rows in _map(write, range(len(dataset)), num_workers):
            file.writelines(json.dumps(row) + "\n" for row in rows)
            if on_clip is not None:
                on_clip()
    return result


def _media_folder(dataset: SyntheticDataset) -> Path:
    return Path("media") / dataset.name


def _describe(dataset: SyntheticDataset) -> dict:
    """The settings of a data set, as they are read from JSON."""
    names = ("split", "modality", "num_clips", "seed", "types", "forms", "questions_per_clip")
    settings = {name: getattr(dataset, name) for name in names}
    settings |= {"media": SUFFIXES[dataset.modality][1:], "world": asdict(dataset.config)}
    settings |= {"unrolled": True} if dataset.unrolled else {}  # which older data sets do not tell
    return json.loads(json.dumps(settings))


def _claim(path: Path, settings: dict) -> None:
    """Records the settings of a data set before any of it is written; refuses to mix it with another one."""
    if not path.exists():
        with new_file(path) as part:
            part.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    try:
        is_same = json.loads(path.read_text(encoding="utf-8")) == settings
    except ValueError:
        is_same = False
    if not is_same:
        raise ValueError(
            f"{path} belongs to a data set with other settings: give another folder, or the same settings to complete "
            "it."
        )


def _map(function: Callable, items: Sequence, num_workers: int) -> Iterator:
    if num_workers == 1:
        yield from map(function, items)
        return
    # Forked processes could inherit locks held by the threads of other libraries, such as torch.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as executor:
        try:
            yield from executor.map(function, items, chunksize=8)
        finally:
            executor.shutdown(cancel_futures=True)


def _write_sample(dataset: SyntheticDataset, folder: Path, index: int) -> list[dict]:
    sample = dataset[index]
    path, silent = (
        (_media_folder(dataset) / f"{sample.id}{ending}{SUFFIXES[dataset.modality]}").as_posix()
        for ending in ("", "-silent")
    )
    wanted = {path: True, silent: False} if dataset.unrolled and dataset.modality == "video" else {path: True}
    missing = [one for one in wanted if not os.path.exists(folder / one)]
    clip = dataset.render(sample) if missing else None
    for one in missing:
        write_clip(folder / one, clip, with_sound=wanted[one])
    return unrolled_rows(sample, path, silent) if dataset.unrolled else sample.rows(path)
