"""A model is asked the questions of a file: each clip is encoded once, runs go on, and what is amiss is told first."""

import json
import random
import re
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.evaluation import Asker, check_questions, choice_letter, read_questions, wilson_interval
from transformers_omnivinci.synthetic import QUESTION_FORMS, SyntheticDataset, WorldConfig, write_dataset

from .conftest import PARITY
from .media_files import Sound, image_bytes, write_audio, write_video
from .media_samples import image

TINY = PARITY / "published-tiny"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with questions about six synthetic clips as multiple choice, in `rows.jsonl`, and these rows."""
    folder = tmp_path_factory.mktemp("world")
    dataset = SyntheticDataset("test", 6, types=("visual", "audio"), questions_per_clip=3)
    chats = [json.loads(line) for line in write_dataset(folder, dataset).read_text().splitlines()]
    answers = {form.name: form.answers(WorldConfig()) for form in QUESTION_FORMS}
    rows, rng = [], random.Random(0)
    for chat in chats:
        (clip, question), right = chat["messages"][0]["content"], chat["messages"][1]["content"][0]["text"]
        wrong = [answer for answer in answers[chat["question_form"]] if answer != right]
        options = rng.sample([right, *rng.sample(wrong, 3)], 4)
        row = {"video": clip["path"], "question": question["text"], "options": options, "answer": right}
        rows.append({**row, "task_type": chat["question_type"]})
    rng.shuffle(rows)  # those about one clip do not follow each other
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder, rows


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with a video with sound, one without, a sound and a picture."""
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "loud.mp4", 24, sound=Sound(1.0))
    write_video(folder / "silent.mp4", 24)
    write_audio(folder / "sound.wav", Sound(1.0, codec="pcm_s16le"))
    (folder / "picture.png").write_bytes(image_bytes(image()))
    return folder


def run(*arguments, data=None, rows=None, suite="multiple-choice", model=TINY):
    if rows is not None:
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["eval", "--suite", suite, "--model", model, "--data", data, *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def message(result):
    return " ".join(result.output.split())


def test_the_accuracy_is_that_of_the_answers(world, tmp_path):
    folder, rows = world
    kept, written = tmp_path / "answers.jsonl", tmp_path / "scores.json"
    options = ["--prompt", "{question}", "--by", "task_type", "--senses", "both", "--senses", "deaf"]
    result = run(*options, "--answers", kept, "--output", written, data=folder / "rows.jsonl", model=NANO)
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in kept.read_text().splitlines()[1:]]
    scores = {(one["senses"], one["category"]): one for one in json.loads(written.read_text())}
    assert len(answers) == 2 * len(rows) and len(scores) == 6
    for senses in ("both", "deaf"):
        texts = {int(one["question"].split(":")[1]): one["answer"] for one in answers if one["senses"] == senses}
        for category in ("all", "task_type = visual", "task_type = audio"):
            chosen = [
                (row, texts[line])
                for line, row in enumerate(rows, start=1)
                if category in ("all", f"task_type = {row['task_type']}")
            ]
            # Nano answers with the text of an option, or of none.
            right = sum(text == row["answer"] for row, text in chosen)
            found = scores[senses, category]
            assert (found["num_questions"], found["value"]) == (len(chosen), right / len(chosen))
            assert (found["low"], found["high"]) == wilson_interval(right, len(chosen))
            assert found["num_unclear"] == sum(text not in row["options"] for row, text in chosen)
            assert found["chance"] == 0.25
    assert scores["both", "all"]["value"] > 0.8 > scores["deaf", "task_type = audio"]["value"]
    all_right = f"{scores['both', 'all']['value']:.1%}"
    assert re.search(rf"all +{len(rows)} +25\.0% +{all_right} \(\d+\.\d–\d+\.\d\)", result.stdout)


def test_a_clip_is_encoded_once_for_all_its_questions(world, load_checkpoint, monkeypatch):
    folder, rows = world
    model, processor = load_checkpoint()
    questions = read_questions(folder / "rows.jsonl", "multiple-choice")
    chats = [[{"role": "user", "content": one.content}] for one in questions]
    same = [chat for chat in chats if chat[0]["content"][0] == chats[0][0]["content"][0]]
    other = next(chat for chat in chats if chat[0]["content"][0] != chats[0][0]["content"][0])
    assert len(same) == 3
    options = {"load_audio_from_video": True, "num_frames": 2}
    alone = [Asker(model, processor, 8, **options)([chat])[0] for chat in [*same, other]]
    encoded, encode = [], model.model.get_video_features

    def count(pixel_values_videos, *args, **kwargs):
        encoded.append(len(pixel_values_videos))
        return encode(pixel_values_videos, *args, **kwargs)

    monkeypatch.setattr(model.model, "get_video_features", count)
    ask = Asker(model, processor, 8, **options)
    assert ask([same[0], other, same[1]]) == [alone[0], alone[3], alone[1]]
    assert encoded == [4]  # two frames of each of the two clips
    assert ask([same[2]]) == [alone[2]] and encoded == [4]
    assert ask([other]) == [alone[3]] and encoded == [4, 2]
    # The next batch may be prepared before this one is answered.
    first, second = ask.prepare([same[0], other]), ask.prepare([same[1], same[2]])
    assert ask.answer(first) + ask.answer(second) == [alone[0], alone[3], alone[1], alone[2]]
    assert encoded == [4, 2, 2]


def test_further_questions_read_the_prompt_that_they_read_alone(media, load_checkpoint, monkeypatch):
    """Text of other lengths around pictures, videos with and without sound and sounds, each encoded for the first."""
    model, processor = load_checkpoint()
    items = [
        {"type": "image", "image": str(media / "picture.png")},
        {"type": "video", "video": str(media / "loud.mp4")},
        {"type": "video", "video": str(media / "silent.mp4")},
        {"type": "audio", "audio": str(media / "sound.wav")},
    ]
    texts = ["What?", "Which of all these things is to be heard, and when does it begin?", "Who?"]
    chats = [[{"role": "user", "content": [*items, {"type": "text", "text": text}]}] for text in texts]
    given, generate = [], model.generate
    monkeypatch.setattr(model, "generate", lambda **inputs: given.append(inputs) or generate(**inputs))
    options = {"load_audio_from_video": True, "num_frames": 2}
    together = Asker(model, processor, 4, **options)(chats)
    for index, chat in enumerate(chats):
        inputs = processor.apply_chat_template(
            chat, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt", **options
        )
        length = inputs["input_ids"].shape[1]
        assert torch.equal(given[0]["input_ids"][index, -length:], inputs["input_ids"][0])
        assert given[0]["attention_mask"][index].sum() == length
        assert Asker(model, processor, 4, **options)([chat]) == [together[index]]


def test_media_may_stand_anywhere_and_headers_may_be_wrong(media, load_checkpoint, monkeypatch):
    """Text between media, several messages, chats without media, and a track that a header announces in vain."""
    model, processor = load_checkpoint()
    video, picture = ({"type": "video", "video": str(media / "loud.mp4")}, {"type": "image", "image": image()})

    def chat(first, last):
        text = [{"type": "text", "text": text} for text in (first, last)]
        return [
            {"role": "system", "content": [{"type": "text", "text": first}]},
            {"role": "user", "content": [video, text[0], picture, text[1]]},
            {"role": "assistant", "content": [{"type": "text", "text": last}]},
            {"role": "user", "content": [text[1]]},
        ]

    chats = [chat("This is first,", "and this last."), chat("Which of them", "is it?"), [chat("Who?", "You?")[3]]]
    calls = {"apply_chat_template": [], "encode_media": [], "generate": []}

    def note(owner, name):
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls[name].append(kwargs) or method(*args, **kwargs))

    note(processor, "apply_chat_template")
    note(model, "encode_media")
    note(model, "generate")
    options, load = {"load_audio_from_video": True, "num_frames": 2}, processor.video_processor.load_videos

    def load_without_sound(*args, **kwargs):
        return [replace(video, waveform=None) for video in load(*args, **kwargs)]

    for is_mute in (False, True):
        if is_mute:
            monkeypatch.setattr(processor.video_processor, "load_videos", load_without_sound)
        for noted in calls.values():
            noted.clear()
        Asker(model, processor, 4, **options)(chats)
        # The chat without media is read like one with new media; what headers do not tell is decoded anew.
        assert [len(noted) for noted in calls.values()] == [2 + is_mute, 1, 1]
        (given,) = calls["generate"]
        for index, one in enumerate(chats):
            inputs = processor.apply_chat_template(
                one, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt", **options
            )
            length = inputs["input_ids"].shape[1]
            assert torch.equal(given["input_ids"][index, -length:], inputs["input_ids"][0])
            assert given["attention_mask"][index].sum() == length


@pytest.mark.slow
def test_an_interrupted_run_goes_on(world, tmp_path, monkeypatch):
    kept, data = tmp_path / "answers.jsonl", world[0] / "rows.jsonl"
    options = ["--num-frames", 2, "--max-new-tokens", 2, "--batch-size", 2, "--limit", 4]
    options += ["--senses", "both", "--senses", "blind"]
    whole = run(*options, "--output", tmp_path / "whole.json", data=data)
    assert whole.exit_code == 0, whole.output
    asked, answer = [], Asker.answer

    def answer_some(self, prompts):
        if len(asked) == 3:
            raise RuntimeError("out of memory")
        asked.append(len(prompts))
        return answer(self, prompts)

    monkeypatch.setattr(Asker, "answer", answer_some)
    stopped = run(*options, "--answers", kept, data=data)
    assert stopped.exit_code == 1 and "error: out of memory" in stopped.output
    assert len(kept.read_text().splitlines()) == 1 + 6
    monkeypatch.setattr(Asker, "answer", lambda self, given: asked.append(len(given)) or answer(self, given))
    asked.clear()
    again = run(*options, "--answers", kept, "--output", tmp_path / "again.json", data=data)
    assert again.exit_code == 0, again.output
    assert sum(asked) == 2 * 4 - 6
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads((tmp_path / "whole.json").read_text())
    # What is known is scored anew without a model, also by other categories.
    asked.clear()
    monkeypatch.setattr("transformers_omnivinci.cli.eval.load_model", None)
    known = run(*options, "--answers", kept, "--by", "task_type", data=data)
    assert known.exit_code == 0 and "task_type = " in known.stdout and not asked
    other = run(*options, "--answers", kept, "--fps", 1, data=data)
    assert other.exit_code == 1 and "holds answers of a run with fps = None, not 1.0" in message(other)


def test_the_synthetic_suite_goes_on_too(tmp_path):
    arguments = [
        "eval",
        "--model",
        TINY,
        "--clips-per-type",
        2,
        "--folder",
        tmp_path,
        "--answers",
        tmp_path / "a.jsonl",
    ]
    arguments = [*map(str, arguments), "--type", "audio", "--senses", "both", "--num-frames", "2"]
    first = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "1.json")])
    assert first.exit_code == 0, first.output
    content = (tmp_path / "a.jsonl").read_bytes()
    second = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "2.json")])
    assert second.exit_code == 0 and (tmp_path / "a.jsonl").read_bytes() == content
    assert (tmp_path / "1.json").read_text() == (tmp_path / "2.json").read_text()
    third = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert third.exit_code == 1 and "seed = 0, not 1" in message(third)


def test_transcripts_and_short_answers_are_asked_for(media, tmp_path):
    rows = [
        {"audio": str(media / "sound.wav"), "text": "a tone", "set": "clean"},
        {"video": str(media / "loud.mp4"), "text": "two more tones", "set": "other"},
    ]
    options = [
        "--by",
        "set",
        "--max-new-tokens",
        4,
        "--output",
        tmp_path / "s.json",
        "--answers",
        tmp_path / "a.jsonl",
    ]
    result = run(*options, data=tmp_path / "rows.jsonl", rows=rows, suite="transcription")
    assert result.exit_code == 0, result.output
    assert "Word error rate, with its 95% interval." in result.stdout
    total, clean, other = json.loads((tmp_path / "s.json").read_text())
    errors = [json.loads(line)["score"] for line in (tmp_path / "a.jsonl").read_text().splitlines()[1:]]
    assert total["metric"] == "wer" and total["value"] == sum(errors) / 5
    assert (clean["value"], other["value"]) == (errors[0] / 2, errors[1] / 3)
    row = {"image": str(media / "picture.png"), "question": "What?", "answer": "noise"}
    options = ["--metric", "anls", "--max-new-tokens", 4, "--senses", "both", "--senses", "text only"]
    result = run(*options, data=tmp_path / "rows.jsonl", rows=[row], suite="short-answer")
    assert result.exit_code == 0 and re.search(r"all +1 +\d+\.\d% \(.*\) +\d+\.\d% \(.*\)", result.stdout), (
        result.output
    )


def test_media_that_are_embedded_in_parquet_are_answered_as_those_in_files(media, tmp_path):
    from pyarrow import Table
    from pyarrow.parquet import write_table

    row = {"question": "What?", "options": ["a dog", "a cat"], "answer": "a cat"}
    files = {"image": "picture.png", "audio": "sound.wav"}
    embedded = {kind: {"bytes": (media / name).read_bytes(), "path": name} for kind, name in files.items()}
    write_table(Table.from_pylist([row | embedded]), tmp_path / "rows.parquet")
    paths = {f"{kind}_path": str(media / name) for kind, name in files.items()}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | paths))
    kept = []
    for suffix in ("parquet", "jsonl"):
        options = ["--max-new-tokens", 4, "--answers", tmp_path / f"{suffix}-answers.jsonl"]
        result = run(*options, data=tmp_path / f"rows.{suffix}")
        assert result.exit_code == 0, result.output
        kept.append(json.loads((tmp_path / f"{suffix}-answers.jsonl").read_text().splitlines()[1]))
    names = [answer.pop("question") for answer in kept]
    assert names == ["rows.parquet, row 1", "rows.jsonl:1"] and kept[0] == kept[1] and kept[0]["right"] == "B"


def test_videos_without_sound_are_asked_about_unless_all_must_have_it(media, tmp_path):
    row = {"question": "What?", "options": ["a dog", "a cat"], "answer": "A"}
    rows = [{**row, "video": str(media / name)} for name in ("loud.mp4", "silent.mp4")]
    options = [
        "--num-frames",
        2,
        "--max-new-tokens",
        2,
        *("--senses", "both", "--senses", "blind", "--senses", "deaf"),
    ]
    data = tmp_path / "rows.jsonl"
    assert run(*options, data=data, rows=rows).exit_code == 0
    assert run(*options, "--no-audio", data=data).exit_code == 0
    result = run(*options, "--audio", data=data)
    assert result.exit_code == 1
    assert re.search(
        r"error: rows\.jsonl:2: the video '.*silent\.mp4' has no sound, which is asked for", message(result)
    )
    assert run(*options, "--audio", "--limit", 1, data=data).exit_code == 0


def test_only_videos_without_wanted_sound_are_silent(media, tmp_path, load_checkpoint):
    _, processor = load_checkpoint()
    row = {"question": "What?", "options": ["a dog", "a cat"], "answer": "A"}
    rows = [{**row, "videos": [str(media / "loud.mp4"), str(media / "silent.mp4")]}]
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]))
    questions = read_questions(tmp_path / "rows.jsonl", "multiple-choice")
    assert check_questions(processor, questions, 4, 10_000) == {str(media / "silent.mp4")}
    assert check_questions(processor, questions, 4, 10_000, load_audio_from_video=False) == set(rows[0]["videos"])
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: the prompt has \d+ tokens and the answer up to 4, but"):
        check_questions(processor, questions, 4, 40)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"video": "nowhere.mp4"}, r"error: rows\.jsonl:2: .*nowhere\.mp4"),
        ({"video": "rows.jsonl"}, r"error: rows\.jsonl:2: .*rows\.jsonl.*"),
        ({"answer": "C"}, r"error: rows\.jsonl:2: the answer 'C' is none of its options"),
        ({"question": "What is in <image>?"}, r"error: rows\.jsonl:2: A text item contains '<image>'"),
    ],
)
def test_what_cannot_be_asked_is_told_before_a_model_is_loaded(change, reason, media, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers_omnivinci.cli.eval.load_model", None)
    row = {"video": str(media / "loud.mp4"), "question": "What?", "options": ["a dog", "a cat"], "answer": "A"}
    rows = [row, {**row, "video": str(media / "silent.mp4"), **change}]
    result = run("--answers", tmp_path / "answers.jsonl", data=tmp_path / "rows.jsonl", rows=rows)
    assert result.exit_code == 1 and re.search(reason, message(result))
    assert not (tmp_path / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--suite", "multiple-choice"], "asks the questions of a file: name it with `--data FILE`"),
        (["--suite", "quiz"], "Invalid value for '--suite'"),
        (
            ["--suite", "multiple-choice", "--data", "x.jsonl", "--metric", "anls"],
            "`--metric` is no option of the suite",
        ),
        (["--suite", "multiple-choice", "--data", "x.jsonl", "--type", "time"], "`--type` is no option of the suite"),
        (["--data", "x.jsonl"], "`--data` is no option of the suite synthetic"),
        (["--suite", "transcription", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--suite", "transcription", "--data", "x.jsonl", "--media", "x.mp4"], "KIND=PATH is accepted"),
        (["--suite", "transcription", "--data", "x.jsonl", "--senses", "smell"], "Unknown senses ['smell']"),
        (["--output", "nowhere/s.json"], "there is no folder nowhere"),
        (["--answers", "nowhere/a.jsonl"], "there is no folder nowhere"),
    ],
)
def test_the_command_refuses(arguments, reason):
    result = CliRunner().invoke(app, ["eval", "--model", str(TINY), *arguments])
    assert result.exit_code != 0 and reason in " ".join(result.output.replace("│", " ").split())


def test_letters_are_found_in_what_the_command_keeps(world):
    """The options of the rows are told apart, so that an accuracy means something."""
    for row in world[1]:
        assert "ABCD"[row["options"].index(row["answer"])] == choice_letter(row["answer"], row["options"])
