"""Questions as speech (paper, figure 14): a voice reads them, and the chat has the sound instead."""

import base64
import random
from dataclasses import replace

from .asking_stage import Bench
from .audio_caption import NO_PROMPT
from .backends.protocol import Request
from .chat_rows import written_question
from .columns import Questions, Segment, Sounds
from .config import SpeechConfig
from .stage import Failed, Stage, account, seed_of
from .structured import Asked

FOLDER = "speech"


class SpeechPrompts(Stage):
    """
    Has a share of the questions spoken. The sounds are a column of their own, in base64, which whoever writes the
    output turns into files.

    Args:
        config ([`SpeechConfig`]): Which voice, and which share.
        bench ([`Bench`]): Has the voice.
    """

    name = "speech_prompts"
    takes, gives = (Segment, Questions), (Questions, Sounds)

    def __init__(self, config: SpeechConfig, bench: Bench):
        self.config, self.bench, self.voice = config, bench, bench[config.voice]

    def process(self, rows):
        results = []
        for segment, questions in rows:
            rng = random.Random(seed_of(self.bench.config.seed, self.name, segment.label))
            chosen = [n for n in range(len(questions.questions)) if rng.random() < self.config.share]
            requests = [
                Request(
                    self.name,
                    written_question(questions.questions[number]),
                    seed=seed_of(self.bench.config.seed, "voice", segment.label, number),
                )
                for number in chosen
            ]
            replies = self.voice.complete(requests)
            asked = [Asked(reply.sound or None, reply.error, [reply]) for reply in replies]
            told = account(self.name, self.config.voice, self.voice.model, NO_PROMPT.label, asked)
            error = next((one.error or "The voice gave no sound." for one in asked if one.value is None), "")
            if error:
                results.append(Failed(error, told))
                continue
            spoken, sounds = list(questions.questions), {}
            for number, one in zip(chosen, asked):
                path = f"{FOLDER}/{segment.id}-{number}.wav"
                sounds[path] = base64.b64encode(one.value).decode()
                spoken[number] = replace(spoken[number], speech=path)
            results.append((Questions(spoken), Sounds(sounds), told))
        return results
