"""Questions about the synthetic world: their answers are true of what is rendered, and equally frequent."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from transformers_omnivinci.synthetic import (
    ABSENT_FORMS,
    CLOSED_TYPES,
    COLOURS,
    FORMS,
    QUESTION_FORMS,
    QUESTION_TYPES,
    SOUNDS,
    SPLITS,
    CaptionCount,
    SyntheticDataset,
    WorldConfig,
    count_claims,
    split_words,
    vocabulary,
)
from transformers_omnivinci.synthetic.scenes import MOTIONS

from .synthetic_facts import answer, listen, look

WORLD = WorldConfig()


@pytest.fixture(scope="module")
def watched():
    """Six clips that begin with each type of question, each with all that it answers, with what is seen and heard."""
    dataset = SyntheticDataset("test", 48, seed=5, questions_per_clip=24)
    clips = ((sample, dataset.render(sample)) for sample in dataset)
    return [(sample, look(clip), listen(clip)) for sample, clip in clips]


def test_answers_are_true_of_what_is_rendered(watched):
    forms = Counter()
    for sample, seen, heard in watched:
        for question in sample.questions:
            if question.type in CLOSED_TYPES:
                assert answer(question, seen, heard) == question.answer, (sample.id, question)
                forms[question.form] += 1
    assert set(forms) == {form.name for form in QUESTION_FORMS if form.type in CLOSED_TYPES}
    assert min(forms.values()) >= 10


def test_captions_tell_all_events_in_their_order(watched):
    for sample, seen, heard in watched:
        (caption,) = (question.answer for question in sample.questions if question.type == "caption")
        events = sorted([*seen, *heard])
        told = re.findall(r"[^.]+(?:\.\d[^.]*)*\.", caption)
        assert len(told) == len(events)
        for sentence, event in zip(told, events):
            seconds = [float(number) for number in re.findall(r"\d+\.\d", sentence)]
            assert seconds == pytest.approx((event.start, event.end)[: len(seconds)], abs=0.26)
            named = (event.kind,) if hasattr(event, "kind") else (event.colour, event.form)
            assert all(name in sentence for name in named)
            assert len(seconds) == (1 if hasattr(event, "kind") else 2)
            if hasattr(event, "motion"):
                assert ("still" if event.motion == "nowhere" else f"moves {event.motion}") in sentence


def test_matching_answers_what_its_twin_asks_about_each_name(watched):
    forms, in_time = Counter(), 0
    for sample, seen, heard in watched:
        for question in sample.questions:
            if question.type != "matching":
                continue
            twin = question.form.removesuffix("_each")
            pairs = [split_name(pair) for pair in question.answer.split(", ")]
            asked = [replace(question, form=twin, text=name) for name, _ in pairs]
            assert [answer(question, seen, heard) for question in asked] == [given for _, given in pairs]
            assert len(pairs) == len(dict(pairs)) > 1
            if twin in ("shape_start", "sound_start"):
                events = seen if twin == "shape_start" else [event for event in heard if is_single(event, heard)]
                assert len(pairs) == len(events)
                seconds = [float(given.split()[0]) for _, given in pairs]
                in_time += seconds == sorted(seconds)
            forms[twin] += 1
    assert set(forms) == {
        form.name for form in QUESTION_FORMS if form.type in CLOSED_TYPES and "{" in form.wordings[0]
    }
    assert in_time < 0.7 * (forms["shape_start"] + forms["sound_start"])  # of two names, half are


def test_what_is_absent_is_not_there_and_often_shares_colour_or_form():
    shares, forms = [], Counter()
    dataset = SyntheticDataset("train", 150, types=("absent",), questions_per_clip=6)
    for sample in dataset:
        shapes = {(shape.colour, shape.form) for shape in sample.scene.shapes}
        colours, kinds_of_shapes = {colour for colour, _ in shapes}, {form for _, form in shapes}
        sounds = {sound.kind for sound in sample.scene.sounds}
        for question in sample.questions:
            name = re.fullmatch(r"There is no (.+)\.", question.answer)[1]
            colour, _, form = name.partition(" ")
            if name in SOUNDS:
                assert name not in sounds and name in question.text
            elif form == "shape":
                assert colour not in colours and colour in question.text
            elif not form:
                assert name not in kinds_of_shapes and name in question.text
            else:
                assert (colour, form) not in shapes and name in question.text
                shares.append(colour in colours or form in kinds_of_shapes)
            assert question.type == "absent" and question.num_candidates == 2
            forms[question.form] += 1
    assert set(forms) == {form.name for form in ABSENT_FORMS}
    assert 0.3 < sum(shares) / len(shares) < 0.7
    assert "absent" not in SyntheticDataset("train", 1).types


def test_claims_of_captions_are_counted_event_by_event():
    truth = (
        "From 0.0 to 1.5 seconds, the red star moves left. At 0.5 seconds, the noise is heard. "
        "From 2.0 to 4.0 seconds, the blue ring stands still. At 2.5 seconds, the noise is heard."
    )
    assert count_claims(truth, truth) == CaptionCount(events=4, claims=4, right=4, invented=0)
    # Another direction, end or second is wrong, but not invented; what is told too often, is.
    for wrong in (("moves left", "moves up"), ("to 4.0", "to 3.5"), ("At 0.5", "At 1.0")):
        assert count_claims(truth.replace(*wrong), truth) == CaptionCount(4, 4, 3, 0)
    assert count_claims(truth.replace("red star", "red ring"), truth) == CaptionCount(4, 4, 3, 1)
    assert count_claims(truth + " At 9.0 seconds, the noise is heard.", truth) == CaptionCount(4, 5, 4, 1)
    some = count_claims("The weather is fine.", truth)
    assert (some.precision, some.recall, some.invention) == (1, 0, 0)
    both = count_claims(truth, truth) + count_claims("At 1.0 seconds, the click is heard.", truth)
    assert (both.precision, both.recall, both.invention) == (0.8, 0.5, 0.2)


def split_name(pair):
    """What is named, and the answer that follows it."""
    colours, shapes, sounds = ("|".join(names) for names in (COLOURS, FORMS, SOUNDS))
    return re.fullmatch(rf"({sounds}|(?:{colours}) (?:{shapes})|{shapes}|{colours}) (.+)", pair).groups()


def is_single(event, heard):
    return [other.kind for other in heard].count(event.kind) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_answers_of_each_form_are_equally_frequent(split):
    for type in CLOSED_TYPES:
        block = sum(len(form.answers(WORLD)) for form in QUESTION_FORMS if form.type == type)
        table = {}
        for sample in SyntheticDataset(split, 2 * block, seed=7, types=(type,)):
            (question,) = sample.questions
            table.setdefault(question.form, Counter())[question.answer] += 1
        for form in QUESTION_FORMS:
            if form.type == type:
                assert table[form.name] == dict.fromkeys(form.answers(WORLD), 2)


def test_types_take_turns_and_wordings_vary():
    questions = [sample.questions[0] for sample in SyntheticDataset("train", 800)]
    assert Counter(question.type for question in questions) == dict.fromkeys(QUESTION_TYPES, 100)
    for form in QUESTION_FORMS:
        texts = {question.text for question in questions if question.form == form.name}
        patterns = [re.sub(r"\\{\w+\\}", "[a-z ]+", re.escape(wording)) for wording in form.wordings]
        assert len(patterns) > 1 and all(any(re.fullmatch(pattern, text) for text in texts) for pattern in patterns)


@pytest.mark.parametrize("questions_per_clip", [4, 13])
def test_further_questions_are_of_other_forms_and_of_all_types_in_turn(questions_per_clip):
    for sample in SyntheticDataset("train", 12, questions_per_clip=questions_per_clip):
        assert len({question.form for question in sample.questions}) == len(sample.questions) <= questions_per_clip
        first, second = (sample.questions[start : start + 5] for start in (0, 7))
        assert len({question.type for question in first}) == len(first) >= 4
        assert len({question.type for question in second}) >= len(second) - 2


def test_further_questions_are_asked_where_there_is_one_type_only():
    for sample in SyntheticDataset("train", 12, types=["visual"], questions_per_clip=7):
        assert {question.type for question in sample.questions} == {"visual"}
        assert len(sample.questions) == len({question.form for question in sample.questions}) >= 2


def test_single_forms_can_be_practised():
    world = WorldConfig(clip_seconds=(3, 4), slot_seconds=(2.5, 4), max_slots=1)  # too short for most questions
    samples = SyntheticDataset("train", 2 * len(MOTIONS), config=world, forms=["motion"])[:]
    answers = [question.answer for sample in samples for question in sample.questions]
    assert Counter(answers) == dict.fromkeys(MOTIONS, 2)
    both = SyntheticDataset(
        "train", 4, types=["time", "visual"], forms=["motion", "shape_start"], questions_per_clip=2
    )
    assert [sample.questions[0].form for sample in both] == ["shape_start", "motion"] * 2


def test_the_vocabulary_is_closed():
    words = set(vocabulary())
    assert len(words) < 130
    for split in SPLITS:
        for sample in SyntheticDataset(split, 300, questions_per_clip=3):
            for question in sample.questions:
                assert words >= {*split_words(question.text), *split_words(question.answer)}
