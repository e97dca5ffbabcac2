"""Unrolled contexts: each is written from what is shown of the media, and the answer is read behind all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, TextStreamer, pipeline
from typer.testing import CliRunner

from benchmarks.unroll import AGREEMENT, DIRECT, FULL, ask, ways
from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.evaluation.asking import perceived
from transformers_omnivinci.evaluation.synthetic import answer
from transformers_omnivinci.reasoning.contexts import PROMPTS, UnrollOptions, ask_with
from transformers_omnivinci.reasoning.unrolling import Unroller, unroll
from transformers_omnivinci.reasoning.views import ReadChat
from transformers_omnivinci.synthetic import SyntheticDataset, contexts_of, write_clip

QUESTION = "Which shape is shown first?"
CONTEXTS = ("see", "hear", "timeline")


@pytest.fixture(scope="module")
def nano():
    """In float32, in which no two answers are so close that another order of sums exchanges them."""
    return AutoModel.from_pretrained(NANO, dtype=torch.float32).eval(), AutoProcessor.from_pretrained(NANO)


@pytest.fixture(scope="module")
def sample():
    return SyntheticDataset("test", 1, seed=4)[0]


@pytest.fixture(scope="module")
def clips(tmp_path_factory, sample):
    """A clip, the same with another sound and with another picture, and without sound."""
    folder, clip = tmp_path_factory.mktemp("clips"), SyntheticDataset("test", 1, seed=4).render(sample)
    other = {
        "clip": clip,
        "unlike_sound": replace(clip, waveform=np.roll(clip.waveform, 40_000)),
        "unlike_picture": replace(clip, frames=clip.frames[::-1].copy()),
    }
    for name, one in other.items():
        write_clip(folder / f"{name}.mp4", one)
    write_clip(folder / "silent.mp4", clip, with_sound=False)
    return {path.stem: str(path) for path in folder.glob("*.mp4")}


def chat_about(path, text=QUESTION, kind="video"):
    return [{"role": "user", "content": [{"type": kind, "path": path}, {"type": "text", "text": text}]}]


def unroller_of(nano, path, options=None, **generation):
    read = ReadChat.of(nano[1], chat_about(path))
    return Unroller(*nano, read, options or UnrollOptions(context_tokens=20), **{"max_new_tokens": 16, **generation})


@pytest.fixture(scope="module")
def unrolled(nano, clips):
    return unroll(*nano, chat_about(clips["clip"]), context_tokens=20, max_new_tokens=16)


@pytest.mark.compat
def test_contexts_and_the_answer_are_what_the_model_says_without_the_other_sense_and_to_both(nano, clips, unrolled):
    assert tuple(unrolled.contexts) == CONTEXTS and unrolled.rounds == 3 and unrolled.skipped == {}
    told = {}
    for name, senses in zip(CONTEXTS, ("deaf", "blind", "both")):
        text = ask_with(told if name == "timeline" else {}, PROMPTS[name])
        items = perceived([{"type": "video", "video": clips["clip"]}, {"type": "text", "text": text}], senses)
        [expected] = answer(*nano, [[{"role": "user", "content": items}]], 20, senses != "deaf")
        assert unrolled.contexts[name] == expected
        told[name] = expected
    assert answer(*nano, [chat_about(clips["clip"], ask_with(told, QUESTION))]) == [unrolled.answer]


def test_what_is_hidden_changes_nothing(nano, clips, unrolled):
    for name, hidden, shown in (("see", "unlike_sound", "unlike_picture"), ("hear", "unlike_picture", "unlike_sound")):
        assert unroller_of(nano, clips[hidden]).context(name).text == unrolled.contexts[name]
        assert unroller_of(nano, clips[shown]).context(name).text != unrolled.contexts[name]
    shown = UnrollOptions(views={"see": "both"}, context_tokens=20)
    texts = {unroller_of(nano, clips[name], shown).context("see").text for name in ("clip", "unlike_sound")}
    assert len(texts) == 2


def test_media_are_encoded_once_and_tokens_are_counted(nano, clips):
    model, seen = nano[0], []
    towers = (model.model.vision_tower, model.model.audio_tower)
    hooks = [one.register_forward_hook(lambda module, args, out: seen.append(type(module).__name__)) for one in towers]
    unroller = unroller_of(nano, clips["clip"], UnrollOptions("auto", threshold=1.0, context_tokens=20))
    answered = unroller.answer()
    again = unroller.answer()
    for hook in hooks:
        hook.remove()
    assert len(seen) == 2 and len(set(seen)) == 2
    assert (again.answer, again.contexts) == (answered.answer, answered.contexts) and len(answered.readings) == 4
    contexts = [unroller.context(name) for name in CONTEXTS]
    assert answered.prompt_tokens == sum(one.prompt_tokens for one in (*contexts, *answered.readings))
    assert answered.generated_tokens == sum(one.generated_tokens for one in (*contexts, *answered.readings))


def test_the_confidence_is_the_probability_of_the_answer(nano, clips):
    model, processor = nano
    direct = unroll(*nano, chat_about(clips["clip"]), "auto", threshold=0)
    assert direct.rounds == 0 and direct.contexts == {} and len(direct.readings) == 1
    inputs = processor.apply_chat_template(
        chat_about(clips["clip"]), tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    said = torch.tensor([direct.readings[0].token_ids])
    length = inputs["input_ids"].shape[1]
    for name, more in (("input_ids", said), ("attention_mask", torch.ones_like(said))):
        inputs[name] = torch.cat([inputs[name], more], 1)
    with torch.no_grad():
        logits = model(**inputs).logits[0, length - 1 : -1]
    expected = logits.log_softmax(-1).gather(1, said.T).sum().exp()
    assert direct.confidence == pytest.approx(float(expected), abs=1e-5)
    assert direct.answer == processor.decode(said[0], skip_special_tokens=True)


def test_rounds_are_bounded(nano, clips, unrolled):
    max_rounds = 2
    options = {"max_rounds": max_rounds, "context_tokens": 20, "max_new_tokens": 16}
    full = unroll(*nano, chat_about(clips["clip"]), **options)
    auto = unroll(*nano, chat_about(clips["clip"]), "auto", threshold=1, **options)
    for answered in (full, auto):
        assert answered.contexts == {name: unrolled.contexts[name] for name in CONTEXTS[:max_rounds]}
        assert answered.answer == full.answer and answered.rounds == max_rounds
    assert (len(full.readings), len(auto.readings)) == (1, max_rounds + 1)


def test_it_stops_where_the_benchmark_says(nano, clips, sample):
    row = sample.rows(clips["clip"])[0]
    row["messages"][0]["content"][1]["text"] = QUESTION
    asked, told = ask(*nano, row, Path(), contexts_of(sample.scene))
    assert [one[1] for one in told.values()] == [3, 3, 6]  # events that there are
    for name in (DIRECT, "auto, 0.99", AGREEMENT, FULL):
        outcome_of = ways()[name]
        threshold = name.removeprefix("auto, ")
        options = {"confidence": "agreement"} if name == AGREEMENT else {}
        options |= {"threshold": float(threshold)} if threshold[0].isdigit() else {}
        if name == DIRECT:
            options["threshold"] = 0.0
        mode = "full" if name == FULL else "auto"
        answered = unroll(*nano, chat_about(clips["clip"]), mode, max_new_tokens=16, **options)
        outcome = outcome_of(asked)
        assert (answered.rounds, answered.generated_tokens) == (outcome.contexts, outcome.tokens), name
        assert (answered.answer == asked.right) == outcome.is_right


@pytest.mark.parametrize(
    ("kind", "name", "skipped"),
    [("video", "silent", ["hear", "timeline"]), ("audio", "clip", ["see", "timeline"])],
)
def test_a_missing_sense_is_skipped_and_told(nano, clips, kind, name, skipped):
    answered = unroll(*nano, chat_about(clips[name], kind=kind), context_tokens=8, max_new_tokens=4)
    assert list(answered.skipped) == skipped and answered.rounds == len(answered.contexts) == 1
    assert answered.skipped[skipped[0]].endswith({"hear": "no sound.", "see": "no picture."}[skipped[0]])


def test_pictures_are_seen_and_a_context_that_is_cut_is_told(nano, clips):
    image = np.zeros((64, 64, 3), np.uint8)
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, *chat_about("")[0]["content"][1:]]}]
    answered = unroll(*nano, chat, context_tokens=1, max_new_tokens=4)
    assert list(answered.contexts) == ["see"] and answered.cut == ("see",)
    assert answered.to_dict()["cut"] == ["see"]


def test_pieces_of_contexts_and_of_the_answer_are_handed_on(nano, clips, unrolled):
    for mode, options in (("full", {}), ("auto", {"threshold": 1.0}), ("auto", {"threshold": 0.0})):
        pieces = []
        options |= {"on_text": lambda *piece, pieces=pieces: pieces.append(piece)}
        answered = unroll(*nano, chat_about(clips["clip"]), mode, context_tokens=20, max_new_tokens=16, **options)
        joined = {name: "".join(text for of, text in pieces if of == name).strip() for name, _ in pieces}
        assert joined == {**answered.contexts, "answer": answered.answer}
        assert list(joined) == [*answered.contexts, "answer"]


def test_earlier_turns_stay_and_contexts_stand_before_the_last_question(nano, clips):
    clip = chat_about(clips["clip"])[0]["content"][0]
    chat = [
        {"role": "system", "content": "What is heard?"},
        {"role": "user", "content": [clip, {"type": "text", "text": "How many shapes are shown?"}]},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": QUESTION},
    ]
    answered = unroll(*nano, chat, context_tokens=8, max_new_tokens=8)
    asked = [{"type": "text", "text": PROMPTS["see"]}]
    system = {"role": "system", "content": [{"type": "text", "text": "What is heard?"}]}
    assert answer(*nano, [[system, {"role": "user", "content": [clip, *asked]}]], 8, False) == [
        answered.contexts["see"]
    ]
    said = {"role": "assistant", "content": [{"type": "text", "text": "2"}]}
    last = {"role": "user", "content": [{"type": "text", "text": ask_with(answered.contexts, QUESTION)}]}
    assert answer(*nano, [[system, chat[1], said, last]], 8) == [answered.answer]


def test_contexts_hold_no_more_than_text(nano, clips, monkeypatch):
    unroller = unroller_of(nano, clips["clip"])
    monkeypatch.setattr(unroller, "_decode", lambda said: "a <image>star<|im_end|> <vila/video>")
    assert unroller.context("see").text == "a star "
    assert unroller.read(("see",)).prompt_tokens


# ----------------------------------------------------------------------------------------------- pipeline and command


@pytest.mark.compat
def test_the_pipeline_unrolls_single_samples_batches_and_streams(nano, clips, unrolled, capsys):
    pipe = pipeline("video-text-to-text", model=nano[0], processor=nano[1], device="cpu")
    options = {"unroll": {"context_tokens": 20}, "max_new_tokens": 16, "return_full_text": False}
    streamer = TextStreamer(nano[1].tokenizer, skip_prompt=True, skip_special_tokens=True)
    [record] = pipe(clips["clip"], text=QUESTION, return_evidence=True, streamer=streamer, **options)
    assert record["generated_text"].strip() == unrolled.answer and record["unrolled"] == unrolled.to_dict()
    assert sum(record["evidence"]["tokens"].values()) == unrolled.readings[-1].prompt_tokens
    assert capsys.readouterr().out.strip() == unrolled.answer.strip()
    chats = [chat_about(clips[name]) for name in ("clip", "silent", "clip")]
    records = pipe(chats, batch_size=2, **options)
    assert [one["generated_text"].strip() for [one] in (records[0], records[2])] == [unrolled.answer] * 2
    assert records[0][0]["unrolled"] == unrolled.to_dict() and "hear" in records[1][0]["unrolled"]["skipped"]
    [direct] = pipe(clips["clip"], text=QUESTION, max_new_tokens=16, return_full_text=False, unroll=False)
    [auto] = pipe(clips["clip"], text=QUESTION, unroll={"mode": "auto", "threshold": 0}, max_new_tokens=16)
    assert auto["generated_text"] == QUESTION + direct["generated_text"] and "unrolled" not in direct


def test_the_command_writes_contexts_apart_from_the_answer(clips, unrolled):
    arguments = ["ask", clips["clip"], QUESTION, "--unroll", "--dtype", "float32"]
    result = CliRunner().invoke(app, [*arguments, "--threshold", "1", "--max-rounds", "1", "--no-audio", "--evidence"])
    assert result.exit_code == 0, result.output
    assert f"see: {unrolled.contexts['see']}" in result.stderr and "hear: not written. The media" in result.stderr
    assert "see:" not in result.stdout and "heard" not in result.stdout.splitlines()[0]
    assert "frames" in result.stdout and "Contexts: 1. Confidence: 1.000" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CLIP", QUESTION, "--threshold", "0.9"], "give --unroll"),
        (["CLIP", QUESTION, "--unroll", "--threshold", "1.5"], "`threshold=1.5` is not accepted"),
        (["CLIP", QUESTION, "--unroll", "--max-rounds", "0"], "`max_rounds=0` is not accepted"),
        ([QUESTION, "--unroll"], "no video, image or sound is given"),
    ],
)
def test_the_command_refuses_before_it_loads(clips, arguments, message):
    arguments = [clips["clip"] if one == "CLIP" else one for one in arguments]
    result = CliRunner().invoke(app, ["ask", *arguments])
    assert result.exit_code == 1 and message in result.stderr


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("some", "`mode='some'` is not accepted: 'full' and 'auto' are"),
        ({"mode": "auto", "threshold": 1.5}, "`threshold=1.5` is not accepted: a number from 0 to 1"),
        ({"threshold": float("nan")}, "`threshold=nan` is not accepted"),
        ({"threshold": True}, "`threshold=True`"),
        ({"max_rounds": 0}, "`max_rounds=0` is not accepted: a whole number from 1"),
        ({"max_rounds": 1.5}, "`max_rounds=1.5`"),
        ({"context_tokens": 0}, "`context_tokens=0`"),
        ({"confidence": "hope"}, "'probability' and 'agreement'"),
        ({"prompts": {"smell": "?"}}, "some of see, hear, timeline are its keys"),
        ({"prompts": {"see": " "}}, "`prompts\\['see'\\]=' '` is not accepted: a text is"),
        ({"views": {"see": "sky"}}, "'picture' and 'sound' and 'both'"),
        ({"rounds": 2}, "unknown options 'rounds'"),
        (3, "a mode or a mapping"),
    ],
)
def test_options_that_cannot_be(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        UnrollOptions.of(given)


def test_chats_that_cannot_be(nano, clips):
    text = {"type": "text", "text": QUESTION}
    for chat, message in (
        ([{"role": "user", "content": [text]}], "has no media"),
        ([*chat_about(clips["clip"]), {"role": "assistant", "content": "star"}], "the last message .* a user's"),
        ([], "a list of messages"),
    ):
        with pytest.raises(ValueError, match=message):
            unroll(*nano, chat)
    with pytest.raises(TypeError, match="num_return_sequences itself"):
        unroll(*nano, chat_about(clips["clip"]), num_return_sequences=2)
