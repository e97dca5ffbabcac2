"""Chats to train on, and the files they are written to."""

import json

from .conftest import CLIP
from .media_samples import audio_item, image, image_item, render, video_item

CLIP_ITEM = {"type": "video", "path": CLIP}


def chat(answer="A square.", *content, question="What?", **more):
    content = [*content, {"type": "text", "text": question}]
    return {
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}],
        **more,
    }


def unlike_samples():
    two_turns = chat("It is red.")
    two_turns["messages"] += chat("Yes.", question="Sure?")["messages"]
    return [
        chat("A dog."),
        chat("An image.", image_item()),
        chat("A square sinks.", CLIP_ITEM),
        chat("Silent.", video_item(num_frames=3)),
        chat("A tone.", audio_item()),
        two_turns,
    ]


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def damaged_image(folder):
    path = folder / "damaged.jpg"
    image(height=600, width=800).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    return {"type": "image", "path": str(path)}


def damaged_video(folder):
    path = folder / "damaged.mp4"
    render(path, num_frames=40)
    content = path.read_bytes()
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    path.write_bytes(content[:start] + bytes(end - start) + content[end:])
    return {"type": "video", "path": str(path), "num_frames": 2}
