"""The chat template of OmniVinci: ChatML, with one placeholder for every medium."""

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<vila/video>"
AUDIO_TOKEN = "<sound>"

MEDIA_BRACKETS = {
    "image": ("<|image_bos|>", "<|image_eos|>"),
    "video": ("<|video_bos|>", "<|video_eos|>"),
    "audio": ("<|sound_bos|>", "<|sound_eos|>"),
}

SYSTEM_PROMPT = "You are a helpful assistant"
"""What the release says to the model where a chat has no system message."""

_CONTENT = (
    "{% macro content(message) %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}"
    "{% elif item['type'] == 'image' %}{{ '" + IMAGE_TOKEN + "' }}"
    "{% elif item['type'] == 'video' %}{{ '" + VIDEO_TOKEN + "' }}"
    "{% elif item['type'] == 'audio' %}{{ '" + AUDIO_TOKEN + "' }}"
    "{% else %}{{ raise_exception('Unknown content type ' ~ item['type']) }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% endmacro %}"
)
_MESSAGES = (
    "{% for message in messages if message['content'] is not none %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ content(message) + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ content(message) + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_chat_template(system_prompt: str | None) -> str:
    """
    ChatML as a Jinja template.

    Args:
        system_prompt (`str`, *optional*): What is said where a chat has no system message. `None`: nothing.
    """
    if system_prompt is None:
        return _CONTENT + _MESSAGES
    quoted = system_prompt.replace("\\", "\\\\").replace("'", "\\'")
    return (
        _CONTENT + "{% if messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\n" + quoted + "<|im_end|>\n' }}"
        "{% endif %}" + _MESSAGES
    )


CHAT_TEMPLATE = build_chat_template(SYSTEM_PROMPT)
