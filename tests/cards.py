"""What the snippets of the model card print."""

import shutil
from pathlib import Path

import soundfile
from transformers import pipeline

from . import media_samples
from .conftest import CLIP


def write_media_of_the_card(folder: Path) -> None:
    """Writes the files that the snippets name."""
    shutil.copy(CLIP, folder / "clip.mp4")
    media_samples.image().save(folder / "photo.jpg")
    soundfile.write(folder / "speech.wav", media_samples.sound(), 16_000)


def answers_of_the_card(model, processor, folder: Path) -> str:
    """What the snippets print with a model, beside the files that they name."""

    def ask(medium, question, **options):
        chat = [{"role": "user", "content": [medium, {"type": "text", "text": question}]}]
        options |= {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
        inputs = processor.apply_chat_template(chat, **options)
        output = model.generate(**inputs, max_new_tokens=128)
        return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    clip, photo, speech = (str(folder / name) for name in ("clip.mp4", "photo.jpg", "speech.wav"))
    pipe = pipeline("video-text-to-text", model=model, processor=processor, device="cpu")
    (said,) = pipe(clip, text="What is heard?", num_frames=64, max_new_tokens=128, return_full_text=False)
    answers = [
        ask({"type": "video", "path": clip}, "What happens?", load_audio_from_video=True, num_frames=64),
        ask({"type": "image", "path": photo}, "What is shown?"),
        ask({"type": "audio", "path": speech}, "Transcribe the speech."),
        [said],
    ]
    return "".join(f"{answer}\n" for answer in answers)
