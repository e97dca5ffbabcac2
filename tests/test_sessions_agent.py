"""Agents: frames in, actions out, by a session that stays as it was."""

import numpy as np
import pytest
import torch

from transformers_omnivinci import NANO, Session
from transformers_omnivinci.sessions import Agent, NoAction

from .media_samples import user

OPTIONS = {"max_new_tokens": 4, "do_sample": False}
FRAMES = [np.full((64, 64, 3), 25 * number, dtype=np.uint8) for number in range(9)]
SOUND = np.sin(np.arange(8_000, dtype=np.float32) / 20)


@pytest.fixture(scope="module")
def session():
    """One that has heard something."""
    from transformers import AutoModel, AutoProcessor

    session = Session(AutoModel.from_pretrained(NANO, dtype=torch.float32), AutoProcessor.from_pretrained(NANO))
    session.watch(SOUND)
    return session


def an_agent(session, actions=(), **options):
    """An agent whose answers mean these actions, one after another; `None` is no action."""
    left = list(actions)

    def parse(answer):
        action = left.pop(0)
        if action is None:
            raise ValueError("'ahead' and 'stop' are accepted.")
        return action

    return Agent(session, parse, **{"stop": "stop", "question": "Which way?", **OPTIONS, **options})


class World:
    """Shows one frame after another, and notes what was done."""

    def __init__(self, end=None):
        self.actions, self.end = [], end

    def act(self, action):
        self.actions.append(action)
        return None if len(self.actions) == self.end else FRAMES[len(self.actions)]


def test_an_answer_is_that_to_a_video_of_the_last_frames_behind_what_the_session_knows(session):
    step = an_agent(session, ["ahead"], history=3, fps=2.0).choose(FRAMES[:5])
    known = {"fps": 2.0, "total_num_frames": 3, "duration": 1.5, "frames_indices": [0, 1, 2]}
    video = {"type": "video", "video": (np.stack(FRAMES[2:5]), known)}
    chat = user({"type": "audio", "audio": SOUND}, video, {"type": "text", "text": "Which way?"})
    inputs = session.processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    assert inputs["video_timestamps"].tolist() == [[0.0, 0.5, 1.0]]
    expected = session.model.generate(**inputs, **OPTIONS)[0, inputs["input_ids"].shape[1] :].tolist()
    assert (step.answer.token_ids, step.num_frames, step.action) == (expected, 3, "ahead")
    assert step.answer.cached_tokens > 100  # the sound was read once
    assert [watched.kind for watched in session.timeline()] == ["audio"] and session.messages() == []


def test_it_acts_until_it_stops_and_keeps_the_last_frames(session):
    world = World()
    run = an_agent(session, ["ahead", "left", "ahead", "stop"], history=2).run(FRAMES[0], world.act, 9)
    assert (run.ended_by, run.actions) == ("stop", ["ahead", "left", "ahead", "stop"])
    assert world.actions == ["ahead", "left", "ahead"]  # a stop is not performed
    assert [step.num_frames for step in run.steps] == [1, 2, 2, 2]


@pytest.mark.parametrize(("end", "max_steps", "ended_by", "count"), [(2, 9, "world", 2), (None, 3, "bound", 3)])
def test_it_ends_with_the_world_and_at_its_bound(session, end, max_steps, ended_by, count):
    world = World(end)
    run = an_agent(session, ["ahead"] * 9).run(FRAMES[0], world.act, max_steps)
    assert (run.ended_by, run.actions, len(world.actions)) == (ended_by, ["ahead"] * count, count)


def test_an_answer_that_is_no_action_is_refused_or_a_stop(session):
    world = World()
    with pytest.raises(
        NoAction, match="^The answer '.+' in step 1 is no action: 'ahead' and 'stop' are accepted.$"
    ) as it:
        an_agent(session, ["ahead", None]).run(FRAMES[0], world.act, 9)
    assert (it.value.step, world.actions) == (1, ["ahead"]) and it.value.answer
    run = an_agent(session, ["ahead", None], unreadable="stop").run(FRAMES[0], World().act, 9)
    assert (run.ended_by, run.actions) == ("unreadable", ["ahead", "stop"])
    assert [step.is_action for step in run.steps] == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": 0}, "`history=0` is not accepted: a number of frames from 1 on is."),
        ({"fps": -1}, "`fps=-1` is not accepted"),
        ({"unreadable": "ask"}, "`unreadable='ask'` is not accepted: refuse and stop are."),
    ],
)
def test_bad_settings_are_told(session, options, message):
    with pytest.raises(ValueError) as error:
        an_agent(session, **options)
    assert str(error.value).startswith(message)


def test_bad_calls_are_told(session):
    with pytest.raises(TypeError, match="^An agent acts by a Session, got str 'nano'.$"):
        an_agent("nano")
    with pytest.raises(TypeError, match="^`parse` is called with an answer, but str 'left' is no function.$"):
        Agent(session, "left", stop="stop", question="Which way?")
    with pytest.raises(ValueError, match="^An action is chosen by what is seen, but no frame was given.$"):
        an_agent(session).choose([])
    with pytest.raises(ValueError, match="^`max_steps=0` is not accepted"):
        an_agent(session).run(FRAMES[0], World().act, 0)
    sizes = [FRAMES[0], FRAMES[0][:32]]
    with pytest.raises(ValueError, match=r"^Frames of one size are accepted, got \(64, 64, 3\) and \(32, 64, 3\).$"):
        an_agent(session).choose(sizes)
