"""Questions of the data engine: written, filtered, spoken, and turned into chats."""

import json
import random
import shutil
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from transformers_omnivinci.data_engine.answerability import Answerability, is_right
from transformers_omnivinci.data_engine.asking_stage import Bench
from transformers_omnivinci.data_engine.assembly import build_stage, build_stages
from transformers_omnivinci.data_engine.backends.espeak import EspeakOptions, EspeakVoice
from transformers_omnivinci.data_engine.backends.protocol import Reply, Request
from transformers_omnivinci.data_engine.chat_rows import chats_of, written_answer, written_question
from transformers_omnivinci.data_engine.clip_media import wav
from transformers_omnivinci.data_engine.columns import OmniCaption, QuestionAnswer, Questions
from transformers_omnivinci.data_engine.config import WriteConfig
from transformers_omnivinci.data_engine.engine import CHATS, HereRunner, apply, curate
from transformers_omnivinci.data_engine.question_answering import WrittenQuestion, balance
from transformers_omnivinci.data_engine.split import Split
from transformers_omnivinci.data_engine.typed import plain, read
from transformers_omnivinci.data_engine.world_claims import cut_to
from transformers_omnivinci.data_engine.world_questions import answer
from transformers_omnivinci.synthetic import read_events
from transformers_omnivinci.training.data import JsonLines

from .test_curation import configured, films  # noqa: F401
from .test_curation_servers import Scripted

BACKENDS = {
    "captioner": {"type": "test-captioner"},
    "reasoner": {"type": "test-reasoner"},
    "answerer": {"type": "test-answerer"},
}
STAGES = {
    "visual_caption": {"backend": "captioner"},
    "audio_caption": {"backend": "captioner"},
    "cross_modal_correction": {"backend": "reasoner"},
    "questions": {"backend": "reasoner", "multiple_choice": 4, "open": 4},
    "filter": {"backend": "answerer", "support": "reasoner", "rounds": 4},
}


@pytest.fixture(scope="module")
def rows(films):  # noqa: F811
    config = configured(backends=BACKENDS, stages=STAGES)
    return apply(build_stages(config), Split(config.split)([{"source": film} for film in films]))


def questions_of(rows) -> list[tuple[dict, QuestionAnswer]]:
    return [(row, read(QuestionAnswer, one, "a question")) for row in rows for one in row["questions"]]


def test_questions_rest_on_captions_and_have_reasons(rows):
    found = questions_of(rows)
    assert len({question.category for _, question in found}) >= 4
    for row, question in found:
        truth = cut_to(read_events(row["source"]), row["start"], row["end"])
        assert answer(question.question, truth) == question.answer
        assert not question.options or question.answer in question.options
        assert question.answer in question.reasoning and "unsupported" not in question.marks


def test_what_a_sense_alone_answers_is_marked(rows):
    for row, question in questions_of(rows):
        truth = cut_to(read_events(row["source"]), row["start"], row["end"])
        for mark, sense in (("deaf", "visual"), ("blind", "audio")):
            told = answer(question.question, [event for event in truth if event.sense == sense])
            if told == question.answer:
                assert mark in question.marks
            elif not question.options:
                assert mark not in question.marks
        if not question.options:
            assert "text only" not in question.marks
    # Guesses: a multiple choice is right in all orders of its options by chance alone.
    guessed = [question for _, question in questions_of(rows) if "text only" in question.marks]
    assert len(guessed) <= 0.15 * len(questions_of(rows))


def test_answers_that_the_caption_does_not_support_and_duplicates_are_marked(rows):
    row = {name: value for name, value in rows[0].items() if name != "questions"}
    right = replace(questions_of(rows)[0][1], options=[], marks=[])
    wrong = replace(right, answer="purple noise")
    row |= plain(Questions([right, wrong, right]))
    config = configured(backends=BACKENDS, stages=STAGES)
    (row,) = build_stage("filter", config, Bench(config))([row])
    marks = [one["marks"] for one in row["questions"]]
    assert "unsupported" not in marks[0] and "duplicate" not in marks[0]
    assert "unsupported" in marks[1] and "duplicate" in marks[2]


class Guesser:
    """Always says the same letter."""

    model = "guesser"

    def complete(self, requests):
        return [Reply("A") for _ in requests]


def test_a_letter_that_is_always_said_answers_nothing(rows):
    config = configured(backends=BACKENDS, stages={**STAGES, "filter": {"backend": "answerer", "rounds": 2}})
    stage = Answerability(config.stages.filter, Bench(config, {"answerer": Guesser()}))
    choices = [replace(one, marks=[]) for _, one in questions_of(rows) if len(one.options) > 1][:3]
    row = {name: value for name, value in rows[0].items() if name != "questions"} | plain(Questions(choices))
    (row,) = stage([row])
    assert all(set(one["marks"]) <= {"duplicate"} for one in row["questions"])


@pytest.mark.parametrize(
    ("text", "right", "options", "expected"),
    [
        ("The answer is B.", "chord", ["noise", "chord"], True),
        ("A", "chord", ["noise", "chord"], False),
        ("It is the low tone, I think.", "Low tone", [], True),
        ("the lower tone", "low tone", [], False),
        ("15", "5", [], False),
    ],
)
def test_answers_are_compared_by_letter_or_words(text, right, options, expected):
    assert is_right(text, right, options) is expected


def test_each_letter_is_right_equally_often():
    written = [WrittenQuestion("order", f"Question {number}?", "right", ["b", "c", "d"], "") for number in range(40)]
    balanced = balance(written, random.Random(0))
    assert set(Counter(one.options.index("right") for one in balanced).values()) == {10}
    assert all(sorted(one.options) == ["b", "c", "d", "right"] for one in balanced)
    assert balance([WrittenQuestion("order", "Open?", "yes", [], "")], random.Random(0))[0].options == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"wrong_options": ["Chord"]}, "are not different ones"),
        ({"wrong_options": ["a", "a"]}, "are not different ones"),
        ({"wrong_options": ["a", " "]}, "are not different ones"),
        ({"wrong_options": [*"abcdefghij"]}, "11 options"),
        ({"category": "cause"}, "which was not asked for"),
        ({"category": "smell"}, "'smell'"),
        ({"question": " "}, "has no text"),
    ],
)
def test_questions_that_are_not_sound_are_asked_again_and_rejected(rows, change, told):
    good = {
        "category": "order",
        "question": "Which?",
        "answer": "chord",
        "wrong_options": ["noise"],
        "reasoning": "",
    }

    class Writer:
        model = "writer"

        def complete(self, requests):
            self.texts = [request.text for request in requests]
            return [Reply(json.dumps({"questions": [{**good, **change}]})) for _ in requests]

    config = configured(
        backends=BACKENDS, stages={**STAGES, "questions": {"backend": "reasoner", "categories": ["order"]}}
    )
    writer = Writer()
    stage = build_stage("questions", config, Bench(config, {"reasoner": writer}))
    row = {name: value for name, value in rows[0].items() if name != "questions"}
    (row,) = stage([row])
    assert told in row["rejected"]["reason"] and told in writer.texts[0]
    assert row["provenance"][-1]["repairs"] == 1


def test_questions_that_are_not_sound_are_listed_beside_the_others(rows):
    good = {"category": "order", "question": "Which?", "answer": "chord", "wrong_options": ["noise"], "reasoning": ""}
    written = json.dumps({"questions": [good, {**good, "answer": ""}, {**good, "wrong_options": ["chord"]}]})
    config = configured(backends=BACKENDS, stages={**STAGES, "questions": {"backend": "reasoner", "open": 7}})
    writer = Scripted(written)
    row = {name: value for name, value in rows[0].items() if name != "questions"}
    (row,) = build_stage("questions", config, Bench(config, {"reasoner": writer}))([row])
    assert [one["answer"] for one in row["questions"]] == ["chord"]
    assert [one["reason"].partition(":")[0] for one in row["unusable_questions"]] == [
        "It has no text, or no answer.",
        "Its options are not different ones",
    ]
    (request,) = writer.requests
    questions = request.schema["properties"]["questions"]
    assert questions["maxItems"] == 10 and questions["items"]["properties"]["wrong_options"]["maxItems"] == 3


def test_chats_have_questions_with_letters_and_answers_with_reasons(rows, tmp_path):
    config = WriteConfig()
    chats = {chat["id"]: chat for chat in chats_of(rows[0], config, tmp_path)}
    kept = [one for _, one in questions_of(rows[:1]) if set(one.marks).isdisjoint(config.drop)]
    assert len(chats) == len(kept) + 1
    for number, (_, question) in enumerate(questions_of(rows[:1])):
        chat = chats.get(f"{rows[0]['id']}-{number}")
        if chat is None:
            assert "text only" in question.marks or "duplicate" in question.marks
            continue
        user, assistant = chat["messages"]
        assert user["content"][1]["text"] == written_question(question)
        text = assistant["content"][0]["text"]
        expected = "ABCD"[question.options.index(question.answer)] if question.options else question.answer
        assert text == f"{question.reasoning}\n\nAnswer: {expected}"
        assert written_answer(question, False) == expected
    everything = WriteConfig(drop=[], captions=False)
    assert len(list(chats_of(rows[0], everything, tmp_path))) == len(questions_of(rows[:1]))


# Speech


def test_spoken_questions_take_the_place_of_written_ones(films, tmp_path):  # noqa: F811
    class Voice:
        model = "voice"

        def complete(self, requests):
            sound = wav(np.sin(np.arange(8000) / 10).astype(np.float32))
            return [Reply(request.text, sound=sound) for request in requests]

    backends = {**BACKENDS, "voice": {"type": "espeak"}}
    stages = {**STAGES, "speech_prompts": {"voice": "voice", "share": 0.5}}
    config = configured(backends=backends, stages=stages, write={"drop": []})
    curate(config, films[:1], tmp_path / "out", HereRunner({"voice": Voice()}), check=False)
    rows = JsonLines(tmp_path / "out" / CHATS)
    spoken = [rows.sample(place) for place in range(len(rows))]
    spoken = [one for one in spoken if one.messages[0]["content"][1]["type"] == "audio"]
    assert 0.2 < len(spoken) / (len(rows) - 2) < 0.8
    paths = {Path(one.messages[0]["content"][1]["audio"]) for one in spoken}
    assert len(paths) == len(spoken) and paths == set((tmp_path / "out" / "speech").iterdir())
    assert all(path.read_bytes().startswith(b"RIFF") for path in paths)
    assert '"sounds": {' not in (tmp_path / "out" / "segments.jsonl").read_text()


def test_a_voice_is_a_program_with_espeaks_options(tmp_path):
    """A script that takes the options of espeak-ng: the program itself need not be installed."""
    program = tmp_path / "speak"
    program.write_text(
        '#!/bin/sh\n[ "$2" = "mute" ] && { echo "no such voice" >&2; exit 1; }\n{ echo "$@"; cat; } > "$6"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    voice = EspeakVoice(EspeakOptions(voices=["en-gb"], words_per_minute=150, program=str(program)))
    voice.check()
    (reply,) = voice.complete([Request("speech_prompts", "Which sound?")])
    words = reply.sound.decode().splitlines()
    assert words[0].startswith("-v en-gb -s 150 -w ") and words[1] == "Which sound?"
    mute = EspeakVoice(replace(voice.options, voices=["mute"]))
    assert "no such voice" in mute.complete([Request("speech_prompts", "Which?")])[0].error
    with pytest.raises(OSError, match="There is no program nothing-of-the-sort"):
        EspeakVoice(EspeakOptions(program="nothing-of-the-sort")).check()
    assert shutil.which("nothing-of-the-sort") is None


def test_a_caption_that_tells_nothing_gives_no_questions(rows):
    config = configured(backends=BACKENDS, stages=STAGES)
    row = {name: value for name, value in rows[0].items() if name != "questions"}
    row |= plain(OmniCaption("Nothing is seen or heard.", []))
    (row,) = build_stage("questions", config, Bench(config))([row])
    assert row["questions"] == [] and "rejected" not in row
    (row,) = build_stage("filter", config, Bench(config))([row])
    assert row["questions"] == [] and len(list(chats_of(row, config.write, Path("/")))) == 1
