"""Sessions that were saved: they go on as they would have, and what does not belong together is refused."""

import copy
import json

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoProcessor

from transformers_omnivinci import NANO, Session
from transformers_omnivinci.sessions import Policy

from .conftest import CLIP
from .media_samples import audio_item, image_item, user, video_item
from .test_sessions import GREEDY, generate
from .test_sessions_live import RATE, as_video, expected, nano, scene

__all__ = ["nano"]


@pytest.fixture
def no_encoding(monkeypatch, model):
    """Ends what encodes media, once it is called."""

    def end():
        def refuse(*args, **kwargs):
            raise AssertionError("a medium is encoded again")

        for name in ("get_image_features", "get_video_features", "get_audio_features"):
            monkeypatch.setattr(type(model.model), name, refuse)

    return end


@pytest.mark.compat
@pytest.mark.parametrize("cache", [True, False])
def test_a_conversation_goes_on_where_it_was_saved(model, processor, tmp_path, no_encoding, cache):
    items = [image_item(), video_item(num_frames=3), audio_item()]
    session = Session(model, processor, system="Be brief.", policy=Policy(max_tokens=100_000))
    for item in items:
        session.watch(item)
    kept = session.ask("Who?", keep=True, **GREEDY)
    session.watch(image_item(seed=4))
    chat = [{"role": "system", "content": "Be brief."}, *user(*items, "Who?")]
    chat += [{"role": "assistant", "content": str(kept)}, *user(image_item(seed=4), "And?")]
    answer, told = generate(model, processor, chat), session.timeline()
    session.save(tmp_path / "session", cache=cache)
    no_encoding()
    loaded = Session.load(tmp_path / "session", model, processor)
    for one in (loaded, session):
        found = one.ask("And?", **GREEDY)
        assert found.token_ids == answer and found.prompt_tokens - found.cached_tokens < 40
    assert loaded.timeline() == told and loaded.policy == session.policy


def test_an_image_that_was_saved_alone_is_read_otherwise_beside_another(model, processor, tmp_path):
    session = Session(model, processor)
    session.watch(image_item(height=60, width=240))
    session.save(tmp_path / "session")
    loaded = Session.load(tmp_path / "session", model, processor)
    loaded.watch(image_item())
    chat = user(image_item(height=60, width=240), image_item(), "What?")
    assert loaded.ask("What?", **GREEDY).token_ids == generate(model, processor, chat)


@pytest.mark.parametrize("limit", [None, Policy(max_tokens=120, recent_seconds=4.0, older_every=3.0)])
def test_a_live_clip_goes_on_where_it_was_saved(nano, tmp_path, limit):
    model, processor = nano
    frames, timestamps, samples = scene(16.0, loud_at=14.0)
    session = Session(model, processor, policy=limit)
    session.feed(frames[:20], timestamps[:20], samples[: 10 * RATE])
    session.ask("What?", **GREEDY)
    session.save(tmp_path / "session")
    loaded = Session.load(tmp_path / "session", model, processor)
    assert loaded.ask("What?", **GREEDY).cached_tokens == session.ask("What?", **GREEDY).cached_tokens
    for one in (session, loaded):
        one.feed(frames[20:], timestamps[20:], samples[10 * RATE :])
    answers = [one.ask("What?", **GREEDY) for one in (session, loaded)]
    assert answers[0].token_ids == answers[1].token_ids and session.timeline() == loaded.timeline()
    if limit is None:
        chat = user(as_video(frames, timestamps, samples), "What?")
        assert answers[0].token_ids == expected(model, processor, chat)


def test_what_does_not_belong_together_is_refused(nano, tmp_path):
    model, processor = nano
    session, folder = Session(model, processor), tmp_path / "session"
    session.watch(CLIP)
    session.save(folder)
    with pytest.raises(OSError, match=r"is there already: a new folder is accepted\.$"):
        session.save(folder)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    with pytest.raises(ValueError, match="a session of another model"):
        Session.load(folder, other, processor)
    with pytest.raises(ValueError, match="a session of another model"):
        Session.load(folder, AutoModel.from_pretrained(NANO, dtype=torch.bfloat16), processor)
    with pytest.raises(ValueError, match="other settings of the processor"):
        Session.load(folder, model, AutoProcessor.from_pretrained(NANO))
    with pytest.raises(OSError, match="holds no session"):
        Session.load(tmp_path / "nowhere", model, processor)
    assert session.ask("What?", **GREEDY) == Session.load(folder, model, processor).ask("What?", **GREEDY)


DAMAGE = {
    "a value": ("session.json", lambda text: text.replace(b'"video"', b'"audio"')),
    "cut settings": ("session.json", lambda text: text[: len(text) // 2]),
    "no object": ("session.json", lambda text: b"[]"),
    "a bit of a tensor": ("session.safetensors", lambda text: text[:-9] + bytes([text[-9] ^ 1]) + text[-8:]),
    "cut tensors": ("session.safetensors", lambda text: text[: len(text) // 2]),
    "no tensors": ("session.safetensors", None),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_refused(model, processor, tmp_path, kind):
    session, folder = Session(model, processor), tmp_path / "session"
    session.watch(video_item(num_frames=2))
    session.save(folder)
    name, damage = DAMAGE[kind]
    if damage is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(OSError, match=name):
        Session.load(folder, model, processor)


def test_a_newer_format_is_refused(model, processor, tmp_path):
    from transformers_omnivinci.sessions.saving import _checksum

    session, folder = Session(model, processor), tmp_path / "session"
    session.watch(video_item(num_frames=2))
    session.save(folder)
    read = json.loads((folder / "session.json").read_text())
    read["content"]["format"] = 2
    read["checksum"] = _checksum(read["content"])
    (folder / "session.json").write_text(json.dumps(read))
    with pytest.raises(ValueError, match="in format 2, and this version reads format 1"):
        Session.load(folder, model, processor)


def test_nothing_is_left_where_a_session_cannot_be_written(model, processor, tmp_path, monkeypatch):
    session = Session(model, processor)
    session.watch(video_item(num_frames=2))
    answer = session.ask("What?", **GREEDY)

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers_omnivinci.sessions.saving.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        session.save(tmp_path / "session")
    assert not list(tmp_path.iterdir())
    assert session.ask("What?", **GREEDY) == answer

    def fail_as_safetensors_does(*args):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers_omnivinci.sessions.saving.save_file", fail_as_safetensors_does)
    with pytest.raises(OSError, match="session cannot be written: .*No space left"):
        session.save(tmp_path / "session")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="is there already"):
        session.save(tmp_path / "file")
    with pytest.raises(OSError, match="cannot be made"):
        session.save(tmp_path / "file" / "session")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert session.ask("What?", **GREEDY) == answer
