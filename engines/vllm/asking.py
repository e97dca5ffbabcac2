"""The same questions to vLLM and to transformers."""

import torch

URLS = {"image": "image_url", "video": "video_url", "audio": "audio_url"}


def messages_of(chat: list[dict]) -> list[dict]:
    """A chat with paths as vLLM takes it: with URLs of files."""

    def part(item: dict) -> dict:
        if item["type"] == "text":
            return item
        kind = URLS[item["type"]]
        return {"type": kind, kind: {"url": f"file://{item[item['type']]}"}}

    return [{**message, "content": [part(item) for item in message["content"]]} for message in chat]


def ask(question: str, *media: tuple[str, object]) -> list[dict]:
    """A chat of one turn, with media as (modality, path)."""
    content = [{"type": modality, modality: str(path)} for modality, path in media]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


@torch.no_grad()
def answer(model, processor, chats: list[list[dict]], max_new_tokens: int = 12, **options) -> list[list[int]]:
    """Tokens that transformers generates greedily for each chat, up to the end of the text and with it."""
    inputs = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt", **options
    )
    generated = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    end, answers = model.generation_config.eos_token_id, []
    for row in generated[:, inputs["input_ids"].shape[1] :].tolist():
        answers.append(row[: row.index(end) + 1] if end in row else row)
    return answers
