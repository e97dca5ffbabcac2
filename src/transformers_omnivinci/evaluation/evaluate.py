"""Puts questions to a model: what cannot be asked is told before the first answer, and answers are kept on disk."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from .answers import AnswerFile
from .asking import Asker, batches, media_key, perceived
from .scoring import Mark
from .suites import Question


def check_questions(
    processor,
    questions: Sequence[Question],
    max_new_tokens: int,
    max_length: int,
    load_audio_from_video: bool | None = None,
    on_clip: Callable[[int, int], object] | None = None,
    **options,
) -> set:
    """
    Reads the headers of all media, once for each clip, and plans a prompt about it.

    Args:
        processor ([`OmniVinciProcessor`]): That of the model which will be asked.
        questions (`Sequence[Question]`): The questions.
        max_new_tokens (`int`): Maximum length of an answer in tokens.
        max_length (`int`): How many positions the model has.
        load_audio_from_video (`bool`, *optional*):
            Whether videos are heard. `None`: where they have sound. `True`: each of them must have it.
        on_clip (`Callable`, *optional*): Called with the number of clips that are done, and that of all.
        options: Of the processor, such as `num_frames` and `fps`.

    Returns:
        `set`: the sources of the videos that have no sound, or whose sound is not wanted.

    Raises:
        ValueError: a medium cannot be read, a video is to be heard and has no sound, or a prompt with its answer is
            longer than the model can read. The message has file and line.
        OSError: a medium is missing.
    """
    hears = load_audio_from_video is not False
    firsts: dict[tuple | str, Question] = {}
    for question in questions:
        firsts.setdefault(media_key(_chat(question.content)) or question.name, question)
    silent = set()
    for number, question in enumerate(firsts.values(), start=1):
        try:
            plan = processor.plan(_chat(question.content), load_audio_from_video=hears, **options)
        except OSError as error:
            raise OSError(f"{question.name}: {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{question.name}: {error}") from error
        if plan.length + max_new_tokens > max_length:
            raise ValueError(
                f"{question.name}: the prompt has {plan.length} tokens and the answer up to {max_new_tokens}, but the "
                f"model reads {max_length}: ask with fewer frames."
            )
        media = [item for item in question.content if item["type"] != "text"]
        for item, medium in zip(media, plan.media, strict=True):
            if item["type"] == "video" and medium.windows is None:
                if load_audio_from_video:
                    raise ValueError(
                        f"{question.name}: the video {item['video']!r:.200} has no sound, which is asked for."
                    )
                silent.add(item["video"])
        if on_clip is not None:
            on_clip(number, len(firsts))
    return silent


def answer_questions(
    model,
    processor,
    questions: Sequence[Question],
    mark: Callable[[Question, str], Mark],
    senses: str = "both",
    *,
    batch_size: int = 16,
    max_new_tokens: int = 32,
    load_audio_from_video: bool | None = None,
    silent: set | None = None,
    answers: AnswerFile | None = None,
    on_answers: Callable[[int], object] | None = None,
    **options,
) -> list[str]:
    """
    Answers questions. Those about the same media are asked one after another, so that each clip is encoded once.

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The model; it may be `None` where all answers are known.
        processor, questions, max_new_tokens, load_audio_from_video, options: As of [`check_questions`].
        mark (`Callable`): See [`make_marker`]; marks are written beside the answers.
        senses (`str`, *optional*, defaults to `"both"`): A key of `SENSES`.
        batch_size (`int`, *optional*, defaults to 16): Number of questions in a batch.
        silent (`set`, *optional*): What [`check_questions`] returned. Default: all videos have sound.
        answers ([`AnswerFile`], *optional*): Has answers of an earlier run, and takes the further ones.
        on_answers (`Callable`, *optional*): Called with the number of questions that are answered.

    Returns:
        `list[str]`: an answer for each question.
    """
    known = {} if answers is None else answers.known
    given = {question.name: known.get((senses, question.name)) for question in questions}
    left = [question for question in questions if given[question.name] is None]
    if on_answers is not None:
        on_answers(len(questions) - len(left))
    hears = senses != "deaf" and load_audio_from_video is not False
    ask = Asker(model, processor, max_new_tokens, load_audio_from_video=hears, **options)
    is_silent = (silent or set()).__contains__
    chats = [[*_chat(perceived(question.content, senses, is_silent)), *question.turns] for question in left]
    for batch, texts in _answer_batches(ask, chats, batches(chats, batch_size)):
        rows = []
        for index, text in zip(batch, texts, strict=True):
            question = left[index]
            given[question.name], marked = text, mark(question, text)
            rows.append({"question": question.name, "senses": senses, "answer": text, "score": marked.value})
            if question.options:
                rows[-1] |= {"letter": marked.letter, "right": question.references[0]}
        if answers is not None:
            answers.add(rows)
        if on_answers is not None:
            on_answers(len(batch))
    return [given[question.name] for question in questions]


def _chat(content: list[dict]) -> list[dict]:
    return [{"role": "user", "content": content}]


def _answer_batches(ask: Asker, chats: list[list[dict]], places: Iterable[list[int]]) -> Iterator[tuple]:
    """Batches of places with their answers. While the model answers one, the media of the next are decoded."""
    with ThreadPoolExecutor(max_workers=1) as decoder:
        waiting = None
        for batch in places:
            prepared = decoder.submit(ask.prepare, [chats[place] for place in batch])
            if waiting is not None:
                yield waiting[0], ask.answer(waiting[1].result())
            waiting = batch, prepared
        if waiting is not None:
            yield waiting[0], ask.answer(waiting[1].result())
