"""Answers as sound in the page: made after an answer is complete, and played at once."""

import base64
from html import escape

from ..inference.speech import SPEECH_RATE, make_voice, speak_all
from ..media import encode_sound
from .transcript import show_notice


class Aloud:
    """
    The voice of the page.

    Args:
        voice (`str`): As [`~transformers_omnivinci.inference.speech.make_voice`] takes it.

    Raises:
        ValueError, OSError: it cannot speak.
    """

    def __init__(self, voice: str):
        self.voice = make_voice(voice)

    def show(self, text: str) -> str:
        """The HTML that plays a text; a notice if it cannot be spoken, and nothing if there is nothing to say."""
        if not any(letter.isalnum() for letter in text):
            return ""
        try:
            sound = encode_sound(speak_all(self.voice, text), SPEECH_RATE, "mp3")
        except (OSError, ValueError) as error:
            return show_notice(f"The answer cannot be spoken: {error}", is_error=True)
        data = base64.b64encode(sound).decode()
        label = escape(f"The answer, spoken by {self.voice.name}", quote=True)
        return f'<audio controls autoplay aria-label="{label}" src="data:audio/mpeg;base64,{data}"></audio>'
