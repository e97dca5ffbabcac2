"""Questions of files in the formats of published data sets, marks and scores of answers, and answers on disk."""

import json
import math
import sys

import pytest

from transformers_omnivinci.evaluation import (
    SENSES,
    AnswerFile,
    Mark,
    Question,
    make_marker,
    read_questions,
    score,
    wilson_interval,
)
from transformers_omnivinci.evaluation.asking import perceived

ROW = {"video": "clip.mp4", "question": "What is seen?", "options": ["a dog", "a cat"], "answer": "B"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(folder, *rows, suite="multiple-choice", **options):
    return read_questions(write(folder / "rows.jsonl", rows), suite, **options)


WORLDSENSE = {
    "video": "abc",
    "video_path": "videos/abc.mp4",
    "question": "How often does it bark?",
    "candidates": ["A. Once.", "B. Twice.", "C. Never."],
    "answer": "B",
    "task_type": "Audio Counting",
}
OMNIBENCH = {
    "audio_path": "audio/1.mp3",
    "image_path": "image/1.png",
    "question": "Who is speaking?",
    "options": ["The man.", "The woman.", "The child.", "Nobody."],
    "answer": "The woman.",
}
DAILYOMNI = {
    "video_id": "x1",
    "Question": "What comes first?",
    "Choice": ["A. the bell", "B. the train", "C. the rain", "D. the song"],
    "Answer": "D",
}
MMAU = {"audio_id": "./test-mini-audios/7.wav", "question": "Which?", "choices": '["a", "the b"]', "answer": "the b"}
VIDEO_MME = {"videoID": "fFj", "question": "When?", "options": ["A. Now.", "B. Then."], "answer": "A"}
LONG_VIDEO_BENCH = {"video_path": "q.mp4", "question": "Who?", "candidates": ["2", "1", "0"], "correct_choice": 2}
MVBENCH = {"video": "v.webm", "question": "Where?", "candidates": ["left", "right"], "answer": "right"}
AI2D = {"image": "d.png", "question": "Which?", "options": ["seed", "leaf", "root"], "answer": "1"}


@pytest.mark.parametrize(
    ("row", "media", "files", "options", "letter"),
    [
        (WORLDSENSE, None, ["video videos/abc.mp4"], ["Once.", "Twice.", "Never."], "B"),
        (OMNIBENCH, None, ["image image/1.png", "audio audio/1.mp3"], OMNIBENCH["options"], "B"),
        (
            DAILYOMNI,
            {"audio": "{video_id}.wav", "video": "Videos/{video_id}/{video_id}.mp4"},
            ["video Videos/x1/x1.mp4", "audio x1.wav"],
            ["the bell", "the train", "the rain", "the song"],
            "D",
        ),
        (MMAU, {"audio": "{audio_id}"}, ["audio ./test-mini-audios/7.wav"], ["a", "the b"], "B"),
        (VIDEO_MME, {"video": "data/{videoID}.mp4"}, ["video data/fFj.mp4"], ["Now.", "Then."], "A"),
        (LONG_VIDEO_BENCH, None, ["video q.mp4"], ["2", "1", "0"], "C"),
        (MVBENCH, None, ["video v.webm"], ["left", "right"], "B"),
        (AI2D, None, ["image d.png"], ["seed", "leaf", "root"], "B"),
    ],
)
def test_rows_of_data_sets_are_read_as_they_are_published(tmp_path, row, media, files, options, letter):
    (question,) = read(tmp_path, row, media=media)
    *items, text = question.content
    sources = [(item["type"], item[item["type"]]) for item in items]
    assert sources == [(kind, str(tmp_path / path)) for kind, path in map(str.split, files)]
    assert (question.options, question.references) == (options, [letter])
    lines = text["text"].splitlines()
    assert lines[0] == row.get("question", row.get("Question"))
    assert lines[1:-1] == [f"{name}. {option}" for name, option in zip("ABCD", options)]
    assert lines[-1] == "Answer with the option's letter from the given choices directly."
    assert question.name == "rows.jsonl:1" and question.row == row


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["x", "y"], "(B)", "B"),
        (["x", "y"], "B.", "B"),
        (["x", "y"], "B. y", "B"),
        (["x", "y"], 0, "A"),
        (["0", "1", "2"], "1", "B"),  # its text and its place
        (["4", "5", "6"], "5", "B"),
        (["1", "2", "0"], "A. 1", "A"),
        (["x.", "B"], "A.", "A"),
        (["A. x", "B. y"], "y", "B"),
    ],
)
def test_right_answers_are_letters_texts_or_places(tmp_path, options, answer, letter):
    (question,) = read(tmp_path, {**ROW, "options": options, "answer": answer})
    assert question.references == [letter]


def test_several_media_urls_and_absolute_paths(tmp_path):
    row = {**ROW, "videos": ["a.mp4", "/b.mp4", "https://c.org/c.mp4", "file:///d.mp4"]}
    del row["video"]
    (question,) = read(tmp_path, row)
    sources = [item["video"] for item in question.content[:-1]]
    assert sources == [str(tmp_path / "a.mp4"), "/b.mp4", "https://c.org/c.mp4", "file:///d.mp4"]


def test_prompts_are_filled_in_once(tmp_path):
    row = {**ROW, "question": "Is {options} here?"}
    (question,) = read(tmp_path, row, prompt="Look! {question}\n{options}\n{else}")
    assert question.content[-1]["text"] == "Look! Is {options} here?\nA. a dog\nB. a cat\n{else}"


def test_lists_and_parquet_are_read_like_lines(tmp_path):
    from pyarrow import Table
    from pyarrow.parquet import write_table

    rows = [{**ROW, "kind": name} for name in "abc"]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    embedded = [{**row, "video": {"bytes": row["kind"].encode(), "path": None}, "video_path": "a.mp4"} for row in rows]
    write_table(Table.from_pylist(embedded), tmp_path / "rows.parquet")
    lines, array = read(tmp_path, *rows), read_questions(tmp_path / "rows.json", "multiple-choice")
    table = read_questions(tmp_path / "rows.parquet", "multiple-choice")
    assert [one.content for one in lines] == [one.content for one in array]
    assert [one.content[0]["video"] for one in table] == [b"a", b"b", b"c"]
    assert [one.content[1] for one in table] == [one.content[1] for one in lines]
    assert [one.name for one in table] == ["rows.parquet, row 1", "rows.parquet, row 2", "rows.parquet, row 3"]
    assert [one.row["kind"] for one in table] == ["a", "b", "c"]
    (tmp_path / "rows.parquet").write_bytes(b"PAR0")
    with pytest.raises(ValueError, match=r"rows\.parquet cannot be read as parquet"):
        read_questions(tmp_path / "rows.parquet", "multiple-choice")


def test_parquet_without_pyarrow_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match="needs pyarrow: pip install pyarrow"):
        read_questions(tmp_path / "rows.parquet", "multiple-choice")


@pytest.mark.parametrize(
    ("row", "references"),
    [
        ({"audio": "a.flac", "text": "HELLO THERE"}, ["HELLO THERE"]),
        ({"audio": "a.flac", "gt": "hello"}, ["hello"]),
        ({"video": "a.mp4", "transcript": ""}, [""]),
    ],
)
def test_transcripts(tmp_path, row, references):
    (question,) = read(tmp_path, row, suite="transcription")
    assert question.references == references
    assert question.content[-1]["text"].startswith("Please recognize the speech")


def test_a_transcript_is_one_text(tmp_path):
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: the transcript is \['a', 'b'\], but one text is accepted"):
        read(tmp_path, {"audio": "a.wav", "text": ["a", "b"]}, suite="transcription")


@pytest.mark.parametrize(
    ("row", "references"),
    [
        ({"answer": "blue"}, ["blue"]),
        ({"answer": 7}, ["7"]),
        ({"answers": ["UCSF", "ucsf.edu"], "answer": None}, ["UCSF", "ucsf.edu"]),
        ({"answers": [{"answer": "two", "answer_id": 1}, {"answer": "2", "answer_id": 2}]}, ["two", "2"]),
    ],
)
def test_short_answers(tmp_path, row, references):
    (question,) = read(tmp_path, {"image": "i.png", "question": "Which?", **row}, suite="short-answer")
    assert question.references == references


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "C"}, r"rows\.jsonl:2: the answer 'C' is none of its options: a letter from A to B"),
        ({"answer": "a horse"}, r"rows\.jsonl:2: the answer 'a horse' is none"),
        ({"answer": 2}, r"rows\.jsonl:2: the answer 2 is none"),
        ({"answer": "B. a dog"}, "is none of its options"),
        (
            {"options": ["B", "A"]},
            r"rows\.jsonl:2: the answer 'B' may mean the options A, B: write the letter with its",
        ),
        ({"options": ["1", "2", "0"], "answer": 1}, "the answer 1 may mean the options A, B"),
        ({"answer": ["A", "B"]}, r"the answer \['A', 'B'\] is none"),
        ({"answer": None}, r"rows\.jsonl:2 has no field `answer` or `correct_choice`"),
        ({"answer": {}}, "a text, a number or a list of them is accepted"),
        ({"answer": True}, "a text, a number or a list of them is accepted"),
        ({"options": None}, "has no field `options` or `choices`"),
        ({"options": ["a dog"]}, "no list of 2 to 26 texts"),
        ({"options": "a dog, a cat"}, "no list of 2 to 26 texts"),
        ({"question": None}, "has no field `question`"),
        ({"video": None}, r"rows\.jsonl:2 has no media: one of the fields `image_path`"),
        ({"video": 3}, "a medium is int, but a path or URL is accepted"),
        ({"video": ""}, "a path or URL is accepted"),
    ],
)
def test_rows_that_cannot_be_asked_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, ROW, {**ROW, **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "quiz"}, "Unknown suite 'quiz': 'multiple-choice', 'short-answer', 'transcription' are accepted"),
        ({"prompt": "What is it?"}, "has no place for the question: write {question} there"),
        ({"media": {"film": "x.mp4"}}, "Media of type 'film' are unknown"),
        ({"media": {"video": "{id}.mp4"}}, r"rows\.jsonl:1 has no field 'id', which its media are named by"),
        ({"by": ["kind"]}, r"rows\.jsonl:1 has no field 'kind'"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, ROW, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "a,b", "ends in '.csv': '.jsonl', '.json' and '.parquet' are accepted"),
        ("rows.jsonl", "\n\n", "has no questions"),
        ("rows.jsonl", "\n{", r"rows\.jsonl:2 is not JSON"),
        ("rows.jsonl", "[]", r"rows\.jsonl:1: a row is list, but an object is accepted"),
        ("rows.json", "{}", "holds dict, but a list of rows is accepted"),
        ("rows.json", "{", "is not JSON"),
    ],
)
def test_files_that_are_no_questions_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_questions(tmp_path / name, "multiple-choice")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        read_questions(tmp_path / name, "multiple-choice")


def test_a_limit_leaves_the_rest_unread(tmp_path):
    assert len(read(tmp_path, ROW, ROW, {**ROW, "answer": "Z"}, limit=2)) == 2


def test_each_of_the_senses_is_left_its_items():
    items = [{"type": kind, kind: f"{kind}.x"} for kind in ("image", "video", "audio", "text")]
    image, video, audio, text = items
    track = {"type": "audio", "audio": "video.x"}
    assert {name: perceived(items, name) for name in SENSES} == {
        "both": items,
        "deaf": [image, video, text],
        "blind": [track, audio, text],
        "text only": [text],
    }
    assert perceived(items, "blind", lambda source: source == "video.x") == [audio, text]


# ------------------------------------------------------------------------------------------------------ marks, scores


def question(references, options=(), **row):
    return Question("q", [], references, list(options), row)


def test_letters_are_marked():
    mark, cats = make_marker("letter"), question(["B"], ["a dog", "a cat"])
    answers = ["B", "The answer is A.", "a cat", "I do not know."]
    marks = [mark(cats, answer) for answer in answers]
    assert marks == [Mark(1, letter="B"), Mark(0, letter="A"), Mark(1, letter="B"), Mark(0)]
    (total,) = score([cats] * 4, marks, "letter")
    assert (total.category, total.num_questions, total.value, total.num_unclear, total.chance) == (
        "all",
        4,
        0.5,
        1,
        0.5,
    )
    assert (total.low, total.high) == wilson_interval(2, 4)


def test_words_are_counted_over_all_transcripts():
    mark = make_marker("wer")
    questions = [question(["Hello there, Mr. Fox"]), question(["no"]), question(["uh"])]
    marks = [mark(one, answer) for one, answer in zip(questions, ["hello their mister fox", "yes", "a b"])]
    assert marks == [Mark(1, 4), Mark(1, 1), Mark(2, 0)]
    (total,) = score(questions, marks, "wer")
    assert total.value == 4 / 5 and total.low <= total.value <= total.high
    (nothing,) = score(questions[2:], marks[2:], "wer")
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)
    spelt = make_marker("wer", {"colour": "color"})
    assert spelt(question(["the colour"]), "the color") == Mark(0, 2)


@pytest.mark.parametrize(
    ("metric", "references", "answer", "value"),
    [
        ("exact", ["blue"], "Blue.", 1),
        ("relaxed", ["100"], "103", 1),
        ("anls", ["paris"], "pariss", 5 / 6),
        ("vqa", ["2"] * 3 + ["3"] * 7, "two", 0.9),
    ],
)
def test_short_answers_are_marked(metric, references, answer, value):
    mark = make_marker(metric)(question(references), answer)
    assert (mark.value, mark.weight) == (pytest.approx(value), 1)
    (total,) = score([question(references)], [mark], metric)
    assert total.value == pytest.approx(value) and total.num_unclear is None and not math.isnan(total.low)


def test_scores_of_categories():
    rows = [
        question(["A"], "xy", kind="far", sounds=["bell", "dog"]),
        question(["A"], "xy", kind="near", sounds=["dog", "dog"]),
        question(["A"], "xyz", kind="far", sounds=[]),
    ]
    marks = [Mark(1, letter="A"), Mark(0, letter="B"), Mark(0)]
    scores = score(rows, marks, "letter", "deaf", by=["kind", "sounds"])
    assert [(one.category, one.num_questions, one.value) for one in scores] == [
        ("all", 3, 1 / 3),
        ("kind = far", 2, 0.5),
        ("kind = near", 1, 0),
        ("sounds = bell", 1, 1),
        ("sounds = dog", 2, 0.5),
    ]
    assert {one.senses for one in scores} == {"deaf"} and scores[0].chance == pytest.approx(
        (1 / 2 + 1 / 2 + 1 / 3) / 3
    )


# ------------------------------------------------------------------------------------------------- answers on disk


def rows_of(*answers, senses="both"):
    return [
        {"question": f"q{index}", "senses": senses, "answer": answer} for index, answer in enumerate(answers, start=1)
    ]


def test_answers_are_read_again(tmp_path):
    path, settings = tmp_path / "a.jsonl", {"model": "m", "fps": None, "types": ("x",)}
    first = AnswerFile(path, settings)
    assert first.known == {} and not path.exists()
    first.add(rows_of("ja", "né\n"))
    first.add(rows_of("no", senses="deaf"))
    again = AnswerFile(path, settings)
    assert again.known == {("both", "q1"): "ja", ("both", "q2"): "né\n", ("deaf", "q1"): "no"}
    again.add(rows_of("x", senses="blind"))
    assert len(AnswerFile(path, settings).known) == 4


def test_a_line_that_was_cut_off_is_asked_again(tmp_path):
    path = tmp_path / "a.jsonl"
    AnswerFile(path, {}).add(rows_of("one", "two"))
    content = path.read_bytes()
    for end in range(content.find(b"\n"), len(content)):
        path.write_bytes(content[:end])
        found = AnswerFile(path, {})
        assert len(found.known) == max(0, content[:end].count(b"\n") - 1)
        found.add(rows_of("three", senses="deaf"))
        assert ("deaf", "q1") in AnswerFile(path, {}).known


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON\n", "line 1 is no JSON object"),
        ("something else", "does not begin with the settings of a run"),
        ('{"a": 1}\n', "does not begin with the settings of a run"),
        ('{"settings": {"model": "m"}}\n{"x": 1}\n', "line 2 is no answer"),
        ('{"settings": {"model": "m"}}\n[]\n', "line 2 is no JSON object"),
        ('{"settings": {"model": "other"}}\n', "holds answers of a run with model = 'other', not 'm'"),
        ('{"settings": {"model": "m", "fps": 2}}\n', "holds answers of a run with fps = 2, not None"),
        ('{"settings": {}}\n', "holds answers of a run with model = None, not 'm'"),
    ],
)
def test_other_files_are_left_alone(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        AnswerFile(path, {"model": "m"})
    assert path.read_text() == content


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match=r"there is no folder .*nowhere"):
        AnswerFile(tmp_path / "nowhere" / "a.jsonl", {})
