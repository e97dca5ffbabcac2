"""
Speech by voices from elsewhere, and its transcription beside other recognisers (paper, appendices D.3 and D.4).

A voice takes a text that is still being written and gives its sentences as sound; [`make_voice`] finds one by name.
"""

from .files import check_target, write_spoken
from .finding import AUTO, find_programs, make_voice
from .reading_out import read_out
from .sentences import split_sentences
from .voice import SPEECH_RATE, Spoken, Voice, join_spoken, speak_all

__all__ = [
    "AUTO",
    "SPEECH_RATE",
    "Spoken",
    "Voice",
    "check_target",
    "find_programs",
    "join_spoken",
    "make_voice",
    "read_out",
    "speak_all",
    "split_sentences",
    "write_spoken",
]
