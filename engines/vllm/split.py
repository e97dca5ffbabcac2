"""
Answers a few questions about the demo clip in vLLM, with options of the engine, and writes the tokens as JSON:

    python -m engines.vllm.split '{"tensor_parallel_size": 2}'

It is a program because vLLM starts several processes for some options. `model` names another checkpoint than nano.
"""

import json
import sys

from vllm import LLM

from engines.vllm.asking import ask, messages_of
from engines.vllm.conftest import OPTIONS, greedy, tokens_of
from tests.conftest import CLIP
from transformers_omnivinci.nano import NANO

QUESTIONS = ("What is heard first?", "Which shape is shown first?", "What happens?")
CHATS = [ask(question, ("video", CLIP)) for question in QUESTIONS]
SOUND = {"load_audio_from_video": True}


def main(options: dict) -> None:
    """Prints the tokens of each answer, on the last line of what it writes."""
    engine = LLM(**{"model": str(NANO), "allowed_local_media_path": "/"} | OPTIONS | options)
    messages = [messages_of(chat) for chat in CHATS]
    outputs = engine.chat(messages, greedy(), mm_processor_kwargs=SOUND, use_tqdm=False)
    print(json.dumps(tokens_of(outputs)), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
