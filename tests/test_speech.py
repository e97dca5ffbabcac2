"""Voices: sentences of a text that is being written, what is said for numbers, programs and servers that speak."""

import base64
import shutil
import stat
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.data_engine.backends.protocol import Request
from transformers_omnivinci.data_engine.backends.voices import Voices, VoicesOptions
from transformers_omnivinci.inference.speech import (
    SPEECH_RATE,
    check_target,
    make_voice,
    read_out,
    reading_out,
    speak_all,
    split_sentences,
    write_spoken,
)
from transformers_omnivinci.inference.speech.programs import PROGRAMS, ProgramVoice
from transformers_omnivinci.inference.speech.prompts import POSITIONS, add_noise, place_question, spoken_question
from transformers_omnivinci.inference.speech.recognisers import make_recogniser
from transformers_omnivinci.media import SOUND_FORMATS, SoundEncoder, encode_sound, load_audio
from transformers_omnivinci.web.aloud import Aloud

from .speech_server import SpeechServer, tone

# Sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Lee saw 3.5 dogs, e.g. Rex. He left.", ["Dr. Lee saw 3.5 dogs, e.g. Rex.", "He left."]),
        ("It was 2020. Then J. R. Smith came.", ["It was 2020.", "Then J. R. Smith came."]),
        ("1. First\n2. Second", ["1. First", "2. Second"]),
        ("He said “No.” She left…  Then", ["He said “No.”", "She left…", "Then"]),
        ("他来了。她走了！好", ["他来了。", "她走了！", "好"]),
        ("  \n ", []),
    ],
)
def test_texts_become_sentences_however_they_are_cut(text, sentences):
    for size in (1, 3, len(text)):
        assert list(split_sentences(text[i : i + size] for i in range(0, len(text), size))) == sentences


@given(st.lists(st.text(alphabet="ab .!?,\n1D。", max_size=12)), st.integers(9, 40))
def test_sentences_are_the_text(pieces, longest):
    sentences = list(split_sentences(pieces, longest))
    assert "".join("".join(sentences).split()) == "".join("".join(pieces).split())
    assert all(0 < len(one) <= longest or one == sentences[-1] for one in sentences)


def test_a_sentence_comes_before_the_text_is_complete():
    seen = []

    def write():
        for word in ["A", "dog", "barks.", "A", "cat", "sleeps.", "End"]:
            seen.append(word)
            yield f"{word} "

    assert next(split_sentences(write())) == "A dog barks." and seen[-1] == "A"


# Reading out


class Numbers:
    """Stands in for num2words: so much of it as the tests below read."""

    WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]

    def __call__(self, number, to="cardinal", currency=None):
        if to == "ordinal":
            return {4: "fourth"}[number]
        if to == "currency":
            whole, cents = divmod(int(number * 100), 100)
            return f"{whole} of {currency}, {cents} cents"
        if to == "year":
            return {1999: "nineteen ninety-nine"}[number]
        if number == int(number) and number < len(self.WORDS):
            return self.WORDS[int(number)]
        return f"{number:,}".replace("0.5", "zero point five")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is 5 km at 2.50 m/s.", "It is five kilometers at two point five zero meters per second."),
        ("1 s, 10 kHz and -3°C", "one second, ten kilohertz and minus three degrees Celsius"),
        ("e.g. at 3:45 pm, or 3:00", "for example at three 45 P M, or three o'clock"),
        ("$3.50 or €4", "three of USD, 50 cents or four of EUR"),
        ("the 4th of 3-4", "the fourth of three to four"),
        ("in 1999, with 50%", "in nineteen ninety-nine, with 50 percent"),
        ("H100, v2.0, 555-123-4567, 1/2/2020", "H100, v2.0, 555-123-4567, 1/2/2020"),
        ("007 and 1,234", "zero zero seven and 1,234"),
        ("**Bold** `code`, [a link](http://a.b), snake_case", "Bold code, a link, snake_case"),
        ("# Head\n- item", "Head\nitem"),
        ("Dr. Lee, No. 5, St. John", "doctor Lee, number five, saint John"),
        ("No. It is on Main St.", "No. It is on Main St."),
        ("Dogs, cats, etc.", "Dogs, cats, et cetera."),
    ],
)
def test_numbers_units_and_abbreviations_are_read_out(monkeypatch, text, said):
    monkeypatch.setattr(reading_out, "_numbers", lambda language: Numbers())
    assert read_out(text) == said


def test_without_a_library_numbers_stay_digits(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    reading_out._numbers.cache_clear()
    assert read_out("Dr. Lee has 5 km.") == "doctor Lee has 5 km."
    reading_out._numbers.cache_clear()


# Voices


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a script in the place of a program that speaks; it writes down how it was called."""

    def make(name, body='cp "$FOLDER/tone.wav" "$last"'):
        (tmp_path / "tone.wav").write_bytes(tone())
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        script = f'#!/bin/sh\nFOLDER={tmp_path}\necho "$@" >> "$FOLDER/calls"\nfor last; do :; done\n'
        script += 'prev=""; for word; do [ "$prev" = "-w" ] && last="$word"; [ "$prev" = "-o" ] && last="$word"; '
        path.write_text(script + f'prev="$word"; done\n{body}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
        return tmp_path / "calls"

    return make


@pytest.mark.parametrize(
    ("kind", "voice", "words"),
    [
        ("espeak-ng", "", "-v en-us -s 350 -w"),
        ("flite", "", "-voice slt --setf duration_stretch=0.5"),
        ("festival", "", "-eval (Parameter.set 'Duration_Stretch 0.5) -o"),
        ("piper", "joe.onnx", "--length-scale 0.5 --input-file"),
    ],
)
def test_programs_are_called_with_their_own_options(program, tmp_path, kind, voice, words):
    calls = program(PROGRAMS[kind].program)
    (tmp_path / "joe.onnx").touch()
    made = make_voice(f"{kind}:{tmp_path / voice}" if voice else kind, speed=2)
    first, second = made.synthesize(["A dog ", "barks. ", "… ", "A cat"])
    assert (first.text, second.text) == ("A dog barks.", "A cat")
    assert len(first.samples) == pytest.approx(SPEECH_RATE / 2, abs=2) and np.abs(first.samples).max() > 0.2
    assert words in calls.read_text() and len(calls.read_text().splitlines()) >= 2


@pytest.mark.parametrize(
    ("body", "told"), [('echo "no memory" >&2; exit 3', "espeak-ng says: no memory"), ("exit 0", "exit code 0")]
)
def test_a_program_that_fails_is_an_error(program, body, told):
    program("espeak-ng", body)
    with pytest.raises(OSError, match=told):
        speak_all(ProgramVoice("espeak-ng"), "Hello.")


def test_without_a_voice_the_command_that_installs_one_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OSError, match="apt install espeak-ng"):
        make_voice()
    with pytest.raises(OSError, match="apt install flite"):
        make_voice("flite")
    with pytest.raises(ValueError, match="piper, espeak-ng, festival, flite"):
        make_voice("parrot")
    with pytest.raises(ValueError, match=r"from 0\.25 to 4"):
        make_voice("flite", speed=9)


@pytest.mark.parametrize("kind", [name for name, one in PROGRAMS.items() if name != "piper"])
def test_installed_programs_speak(kind):
    """Those that are installed; the others tell how they are installed."""
    if shutil.which(PROGRAMS[kind].program) is None:
        with pytest.raises(OSError, match=f"apt install {kind}"):
            make_voice(kind)
        return
    (one,) = make_voice(kind).synthesize(["A dog barks."])
    assert 0.5 < one.seconds < 3 and np.abs(one.samples).max() > 0.1
    voices = PROGRAMS[kind].voices()
    assert voices
    with pytest.raises(OSError, match="has no voice 'nobody'"):
        make_voice(f"{kind}:nobody")


def test_a_server_speaks_sentence_by_sentence(tmp_path):
    with SpeechServer() as server:
        voice = make_voice(f"{server.url}?model=kokoro&voice=sky", speed=1.5)
        spoken = voice.synthesize(iter(["A dog barks. A cat ", "sleeps.", " End."]))
        first = next(spoken)
        assert first.text == "A dog barks." and len(server.asked) == 1
        rest = list(spoken)
        assert [one["input"] for one in server.asked] == ["A dog barks.", "A cat sleeps.", "End."]
        body = {"model": "kokoro", "voice": "sky", "response_format": "wav", "speed": 1.5, "input": "End."}
        assert server.asked[-1] == body
        seconds = write_spoken([first, *rest], tmp_path / "out.wav")
    assert seconds == pytest.approx(0.35, abs=0.01)
    assert len(load_audio(tmp_path / "out.wav")) == pytest.approx(0.35 * 16_000, abs=200)


@pytest.mark.parametrize(("refuses", "told"), [(None, "cannot be asked"), (503, "answers 503: .*out of breath")])
def test_a_server_that_fails_between_sentences_leaves_no_file(tmp_path, refuses, told):
    with SpeechServer(breaks_at=2, refuses=refuses) as server:
        voice = make_voice(server.url)
        with pytest.raises(OSError, match=told):
            write_spoken(voice.synthesize(["A dog barks. A cat sleeps."]), tmp_path / "out.wav")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="cannot be asked"):
        speak_all(make_voice(server.url), "Hello.")


def test_urls_of_servers_are_checked(monkeypatch):
    monkeypatch.delenv("SPEECH_KEY", raising=False)
    for url, told in [("?modle=a", "unknown options: modle"), ("?timeout=soon", "number of seconds")]:
        with pytest.raises(ValueError, match=told):
            make_voice(f"http://127.0.0.1:9/v1{url}")
    with pytest.raises(OSError, match="SPEECH_KEY.*not set"):
        make_voice("http://127.0.0.1:9/v1?api_key_env=SPEECH_KEY")


def test_what_has_no_words_is_no_speech(tmp_path):
    with SpeechServer() as server:
        voice = make_voice(server.url)
        for text in ("", " \n", "… !"):
            with pytest.raises(ValueError, match="nothing to say"):
                speak_all(voice, text)
        assert not server.asked
    for path, told in [("out.txt", "format"), ("no/out.wav", "no folder")]:
        with pytest.raises((ValueError, OSError), match=told):
            check_target(tmp_path / path)


def test_the_data_engine_has_all_voices():
    with SpeechServer() as server:
        voices = Voices(VoicesOptions([server.url], [1.0, 1.25]))
        voices.check()
        replies = voices.complete([Request("speech_prompts", "Which sound?", seed=seed) for seed in range(6)])
        assert all(len(load_audio(reply.sound)) == pytest.approx(1600, abs=50) for reply in replies)
        assert {body.get("speed", 1.0) for body in server.asked} == {1.0, 1.25}
        assert "nothing to say" in voices.complete([Request("speech_prompts", "…")])[0].error
    assert "cannot be asked" in voices.complete([Request("speech_prompts", "Which sound?")])[0].error
    with pytest.raises(ValueError, match="must not be empty"):
        VoicesOptions([])


# Files


@pytest.mark.parametrize("format", SOUND_FORMATS)
def test_sound_is_written_whole_and_in_pieces(format):
    samples = (0.5 * np.sin(np.arange(2 * SPEECH_RATE) / 10)).astype(np.float32)
    encoder = SoundEncoder(format, SPEECH_RATE)
    pieces = [encoder.add(samples[start : start + 12_000]) for start in range(0, len(samples), 12_000)]
    assert len([piece for piece in pieces if piece]) > 2 or format == "opus"
    for content in (encode_sound(samples, SPEECH_RATE, format), b"".join(pieces) + encoder.finish()):
        if format == "pcm":
            decoded = np.frombuffer(content, "<i2") / 32_768
        else:
            decoded = load_audio(content, sampling_rate=SPEECH_RATE)
        assert len(decoded) == pytest.approx(len(samples), rel=0.05)
        assert np.abs(decoded).max() == pytest.approx(0.5, abs=0.1)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="wav, mp3, flac, opus, aac, pcm"):
        encode_sound(np.zeros(10), 16_000, "midi")


# Questions as speech


def test_questions_stand_where_they_are_wanted():
    media, question = [{"type": kind} for kind in "abcdef"], {"type": "audio"}
    places = {position: place_question(media, question, position).index(question) for position in POSITIONS}
    assert places == {"prefix": 0, "mid": 2, "suffix": 6}
    assert [one for one in place_question(media, question, "mid") if one != question] == media
    assert place_question([], question) == [question]
    for shown, position, told in [(media, "front", "no position"), (media[:1], "mid", "no middle")]:
        with pytest.raises(ValueError, match=told):
            place_question(shown, question, position)


def test_a_spoken_question_is_native_a_transcript_or_spoken_anew():
    samples = np.full(8000, 0.1, np.float32)
    assert spoken_question(samples)["audio"] is samples
    with SpeechServer(heard="which sound") as server:
        recogniser, voice = make_recogniser(server.url), make_voice(server.url)
        assert spoken_question(samples, "transcript", recogniser) == {"type": "text", "text": "which sound"}
        sound, rate = spoken_question(samples, "rendered", recogniser, voice)["audio"]
        assert (rate, len(sound)) == (SPEECH_RATE, pytest.approx(0.1 * SPEECH_RATE, abs=5))
    with SpeechServer(heard="") as server, pytest.raises(ValueError, match="no words in the question of 0.5 s"):
        spoken_question(samples, "transcript", make_recogniser(server.url))
    for regime, told in [("sung", "native, transcript, rendered"), ("transcript", "needs a recogniser")]:
        with pytest.raises(ValueError, match=told):
            spoken_question(samples, regime)


def test_noise_is_so_many_decibels_below():
    samples = (0.1 * np.sin(np.arange(16_000) / 3)).astype(np.float32)
    for decibels in (0.0, 20.0):
        noise = add_noise(samples, decibels) - samples
        assert 20 * np.log10(samples.std() / noise.std()) == pytest.approx(decibels, abs=0.3)
    assert np.array_equal(add_noise(samples, np.inf), samples)


# The page


def test_the_page_plays_an_answer():
    with SpeechServer() as server:
        aloud = Aloud(server.url)
        html = aloud.show("A dog barks.")
        sound = base64.b64decode(html.partition("base64,")[2].partition('"')[0])
        assert html.startswith("<audio") and len(load_audio(sound)) > 1000
        assert aloud.show(" … ") == ""
    assert "cannot be spoken" in aloud.show("A dog barks.") and "<audio" not in aloud.show("A dog barks.")
