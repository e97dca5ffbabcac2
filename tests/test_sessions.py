"""Sessions: media are encoded and read once, and answers are those of one `generate` for the whole chat."""

import threading

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO, Session

from .conftest import CASES, CLIP
from .media_samples import audio_item, image_item, user, video_item
from .parity import load_case, media_of

GREEDY = {"max_new_tokens": 8, "do_sample": False}
OPTIONS = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
FIXED = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "eos_token_id": None}


@pytest.fixture(scope="module")
def nano():
    """In float32, in which no two answers are so close that another order of sums exchanges them."""
    return AutoModel.from_pretrained(NANO, dtype=torch.float32), AutoProcessor.from_pretrained(NANO)


@pytest.fixture
def encoded(monkeypatch, model):
    """How many media were encoded, call by call; pictures and sounds apart where that is done piece by piece."""
    counts, encode = [], type(model.model).encode_media
    places = {name: getattr(type(model.model), name) for name in ("place_frames", "place_windows")}

    def counted(place):
        def count(self, media, seconds):
            counts.append(len(media))
            return place(self, media, seconds)

        return count

    def encode_media(self, **media):
        counts.append(sum(len(media.get(name, ())) for name in ("image_grid_hw", "video_timestamps")))
        counts[-1] += len(media.get("audio_timestamps", ()))
        return encode(self, **media)

    monkeypatch.setattr(type(model.model), "encode_media", encode_media)
    for name, place in places.items():
        monkeypatch.setattr(type(model.model), name, counted(place))
    return counts


def generate(model, processor, chat, **options):
    """The tokens of one `generate` for a whole chat."""
    inputs = processor.apply_chat_template(chat, **OPTIONS).to(model.device, model.dtype)
    return model.generate(**inputs, **GREEDY, **options)[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.compat
@pytest.mark.parametrize("name", [name for name in CASES if name != "text_only"])
def test_answers_about_the_parity_cases_are_those_of_the_release(load_checkpoint, name):
    entry, tensors = load_case(name)
    model, processor = load_checkpoint(entry["checkpoint"])
    media = media_of(entry, tensors)
    images, sounds = iter(media.get("images", ())), dict(zip(media.get("audio_from_video_indices", ()), range(99)))
    videos = iter(enumerate(zip(media.get("videos", ()), media.get("video_metadata", ()), strict=True)))
    clips = iter(
        [
            clip
            for clip, link in zip(media.get("audio", ()), media.get("audio_from_video_indices", [None] * 9))
            if link is None
        ]
    )
    with Session(model, processor) as session:
        for item in entry["content"]:
            if item["type"] == "image":
                session.watch(next(images), kind="image")
            elif item["type"] == "audio":
                session.watch(next(clips))
            elif item["type"] == "video":
                index, (frames, metadata) = next(videos)
                track = media["audio"][sounds[index]] if index in sounds else None
                session.watch((frames, metadata), kind="video", track=track, do_sample_frames=False)
        question = "".join(item.get("text", "") for item in entry["content"])
        for _ in range(2):
            answer = session.ask(question, **FIXED)
            assert answer.token_ids == tensors["expected.generated_ids"].flatten().tolist()
            assert answer.prompt_tokens == entry["sequence_length"] and answer.cached_tokens > 0


WATCHED = {
    "an image, tiled": [image_item()],
    "two images, which are not": [image_item(), image_item(seed=2)],
    "a video": [video_item(num_frames=3)],
    "all kinds": [audio_item(), image_item(), video_item(num_frames=2), audio_item(pitch=880)],
}


@pytest.mark.parametrize("items", WATCHED.values(), ids=WATCHED)
def test_questions_do_not_see_each_other_unless_they_are_kept(model, processor, encoded, items):
    session = Session(model, processor)
    for item in items:
        session.watch(item)
    del encoded[:]
    for question in ("What?", "What is it, then?", "What?"):
        answer = session.ask(question, **GREEDY)
        assert answer.token_ids == generate(model, processor, user(*items, question))
        assert answer == processor.decode(answer.token_ids, skip_special_tokens=True)
    assert sum(encoded) == 3 * len(items)  # by `generate` alone
    chat = []
    for question in ("Who?", "And then?", "Why?"):
        chat += user(*([] if chat else items), question)
        answer = session.ask(question, keep=True, **GREEDY)
        assert answer.token_ids == generate(model, processor, chat)
        chat.append({"role": "assistant", "content": str(answer)})
    assert session.ask("So?", **GREEDY).token_ids == generate(model, processor, [*chat, *user("So?")])


def test_media_are_watched_between_turns_and_tiled_anew_where_a_second_image_comes(model, processor):
    session = Session(model, processor, system="Be brief.")
    chat = [{"role": "system", "content": "Be brief."}]
    for items in ([image_item()], [audio_item()], [image_item(seed=5), video_item(num_frames=2)]):
        for item in items:
            session.watch(item)
        chat += user(*items, "What now?")
        answer = session.ask("What now?", keep=True, **GREEDY)
        assert answer.token_ids == generate(model, processor, chat)
        chat.append({"role": "assistant", "content": str(answer)})


@pytest.mark.compat
def test_answers_about_files_are_streamed_and_come_at_once(nano):
    model, processor = nano
    question = "When does the blue star appear?"
    chat = user({"type": "video", "path": CLIP}, question)
    with Session(model, processor) as session:
        session.watch(CLIP)
        whole = session.ask(question, **GREEDY)
        assert whole.token_ids == generate(model, processor, chat)
        assert whole.prompt_tokens - whole.cached_tokens < 20
        stream = session.ask(question, stream=True, **GREEDY)
        pieces = list(stream)
        assert len(pieces) > 1 and "".join(pieces) == whole == stream.answer
        # One that is not wanted to its end leaves the session free.
        for _ in session.ask(question, stream=True, keep=True, max_new_tokens=500, eos_token_id=None):
            break
        assert session.ask(question, **GREEDY) == whole
        for options in ({"num_beams": 2}, {"prompt_lookup_num_tokens": 2}, {"repetition_penalty": 1.5}):
            assert session.ask(question, **GREEDY, **options).token_ids == generate(model, processor, chat, **options)
        kept = session.ask(question, keep=True, num_beams=2, **GREEDY)
        chat += [{"role": "assistant", "content": str(kept)}, *user("And then?")]
        assert session.ask("And then?", **GREEDY).token_ids == generate(model, processor, chat)


def test_a_fork_goes_on_by_itself(model, processor):
    items = [video_item(num_frames=3)]
    session = Session(model, processor)
    session.watch(items[0])
    fork = session.fork()
    first = session.ask("Who?", keep=True, **GREEDY)
    fork.watch(image_item())
    second = fork.ask("What?", keep=True, **GREEDY)
    assert second.token_ids == generate(model, processor, user(*items, image_item(), "What?"))
    for one, answered, shown in ((session, first, [*items, "Who?"]), (fork, second, [*items, image_item(), "What?"])):
        chat = [*user(*shown), {"role": "assistant", "content": str(answered)}, *user("And?")]
        assert one.ask("And?", **GREEDY).token_ids == generate(model, processor, chat)


def test_a_session_is_refused_what_it_cannot_do_and_stays_usable(model, processor, tmp_path):
    session = Session(model, processor)
    with pytest.raises(ValueError, match="Nothing was watched yet"):
        session.ask("What?")
    for options in ({"policy": {"max_tokens": 5}}, {"system": 5}):
        with pytest.raises(TypeError, match=f"`{next(iter(options))}` of a session is a"):
            Session(model, processor, **options)
    session.watch(video_item(num_frames=2))
    expected = session.ask("What?", **GREEDY)
    (tmp_path / "text.mp4").write_text("no video")
    for error, message, call in (
        (ValueError, "cannot be read as a video, image or sound", lambda: session.watch(tmp_path / "text.mp4")),
        (ValueError, "give `kind`", lambda: session.watch(3)),
        (ValueError, "is not accepted: 'image', 'video' and 'audio'", lambda: session.watch(CLIP, kind="film")),
        (ValueError, "holds no medium", lambda: session.watch({"type": "video"})),
        (ValueError, "`track` is the sound of a video", lambda: session.watch(audio_item()["audio"], track=CLIP)),
        (TypeError, "not an option of the processor", lambda: session.watch(CLIP, num_fames=2)),
        (ValueError, "which stands for a medium", lambda: session.ask("<image>?")),
        (TypeError, "A question is a text", lambda: session.ask(None)),
        (TypeError, "gives `generate` its input_ids itself", lambda: session.ask("What?", input_ids=[1])),
        (ValueError, "nor with beams", lambda: session.ask("What?", stream=True, num_beams=2)),
        (ValueError, "model_kwargs", lambda: session.ask("What?", keep=True, no_option=3)),
        (ValueError, "model_kwargs", lambda: list(session.ask("What?", stream=True, no_option=3))),
    ):
        with pytest.raises(error, match=message):
            call()
        assert session.ask("What?", **GREEDY) == expected
    with session.ask("What?", stream=True, max_new_tokens=2000, eos_token_id=None) as stream:
        pieces = iter(stream)
        next(pieces)
        for call in (session.ask, session.watch):
            with pytest.raises(RuntimeError, match="in use"):
                call("What?")
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.ask("What?")


def test_two_threads_get_an_answer_or_a_clear_error(model, processor):
    session = Session(model, processor)
    session.watch(video_item(num_frames=2))
    expected, found = session.ask("What?", **GREEDY), []

    def ask():
        try:
            found.append(session.ask("What?", **GREEDY))
        except RuntimeError as error:
            found.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = [one for one in found if isinstance(one, str)]
    assert len(found) == 4 and answers and set(answers) == {expected}
    assert all("in use" in str(one) for one in found if not isinstance(one, str))
    assert session.ask("What?", **GREEDY) == expected
