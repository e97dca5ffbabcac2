"""Chats as prompts with their media."""

import re

from transformers.utils.chat_template_utils import render_jinja_template

from .conversation import item_options, read_conversations, source_keys
from .options import hears_videos, option_names
from .tokenization import CUT, TokenizedPrompt, control_tokens, cut_control_tokens, mark_spans, tokenize_prompt
from .video_inputs import one_video


class AppliesChatTemplates:
    """Mixin of [`OmniVinciProcessor`], in front of `ProcessorMixin`."""

    def apply_chat_template(
        self,
        conversation,
        chat_template: str | None = None,
        tools: list | None = None,
        documents: list[dict] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
        load_audio_from_video: bool | None = None,
        processor_kwargs: dict | None = None,
        sanitize_control_tokens: bool = False,
        **kwargs,
    ):
        """
        As in transformers; options of the processor may stand among the keyword arguments:
        `apply_chat_template(conversation, tokenize=True, return_dict=True, add_generation_prompt=True,
        load_audio_from_video=True, num_frames=64, return_tensors="pt")`.

        Args:
            conversation: A list of messages, or a list of such lists.
            chat_template (`str`, *optional*): A template, or the name of one of the processor's.
            tools, documents, add_generation_prompt, continue_final_message: For the template.
            return_assistant_tokens_mask (`bool`, *optional*, defaults to `False`):
                Whether to return `assistant_masks` (batch, sequence), 1 for what the assistant says.
            tokenize (`bool`, *optional*, defaults to `False`): Whether to return tokens and media, and not the text.
            return_tensors (`str`, *optional*): `"pt"` for tensors.
            return_dict (`bool`, *optional*, defaults to `False`): Whether to return all inputs, and not the ids alone.
            load_audio_from_video (`bool`, *optional*): Whether videos take their track along.
            processor_kwargs (`dict`, *optional*): Options of the processor, which may also stand in `kwargs`.
            sanitize_control_tokens (`bool`, *optional*, defaults to `False`):
                Whether control tokens and placeholders in the words of the chat are read as text.
            kwargs: Options of the processor, and variables of the template.

        Returns:
            `str` or `list[str]`, or what calling the processor returns.
        """
        template = self._find_template(chat_template)
        names = option_names(self)
        # What is neither an option nor a word of the template goes to the processor, which says that it knows it not.
        variables = {name for name in kwargs.keys() - names if re.search(rf"\b{re.escape(name)}\b", template)}
        options = {name: value for name, value in kwargs.items() if name not in variables} | (processor_kwargs or {})
        if continue_final_message and add_generation_prompt:
            raise ValueError(
                "`continue_final_message` and `add_generation_prompt` exclude each other: the last message goes on, "
                "or a new one begins."
            )
        if continue_final_message and return_assistant_tokens_mask:
            raise ValueError("`continue_final_message` and `return_assistant_tokens_mask` exclude each other.")
        if sanitize_control_tokens and not tokenize:
            raise ValueError("`sanitize_control_tokens=True` needs `tokenize=True`: a text cannot tell such tokens.")
        conversations, is_batched = self._read_conversations(
            conversation, refuse_placeholders=tokenize and not sanitize_control_tokens
        )
        words = {"conversations": conversations, "tools": tools, "documents": documents}
        prompts, spans = self._write_prompts(
            template,
            words | {name: kwargs[name] for name in variables},
            sanitize_control_tokens,
            return_assistant_tokens_mask=return_assistant_tokens_mask,
            continue_final_message=continue_final_message,
            add_generation_prompt=add_generation_prompt,
        )
        if not tokenize:
            return prompts if is_batched else prompts[0]
        if load_audio_from_video is not None:
            options["load_audio_from_video"] = load_audio_from_video
        if return_tensors is not None:
            options["return_tensors"] = return_tensors
        if return_assistant_tokens_mask:
            options |= {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
        options |= self._special_tokens_options(prompts[0])
        images, videos, audio, links = self._media_of(conversations, hears_videos(self, dict(options))[0])
        more = options.pop("images", None)  # for templates that place them from other variables
        if more:
            images = more if is_batched else [more]
        inputs = self(
            text=prompts if is_batched else prompts[0],
            images=images if any(images) else None,
            videos=videos if any(videos) else None,
            audio=audio or None,
            audio_from_video_indices=links,
            **options,
        )
        if not return_dict:
            return inputs["input_ids"]
        if return_assistant_tokens_mask:
            offsets, replacements = inputs.pop("offset_mapping"), inputs.pop("text_replacement_offsets")
            inputs["assistant_masks"] = [
                mark_spans(
                    offsets[row].tolist() if hasattr(offsets, "tolist") else offsets[row],
                    replacements[row],
                    [[place - prompt.count(CUT, 0, place) for place in span] for span in spans[row]],
                )
                for row, prompt in enumerate(prompts)
            ]
            inputs.convert_to_tensors(tensor_type=return_tensors)
        return inputs

    def tokenize_chat(
        self, conversation, sanitize_control_tokens: bool = False, continue_final_message: bool = False
    ) -> TokenizedPrompt:
        """
        A chat as tokens, with one placeholder for each medium, none of which is read: items may lack theirs.

        Args:
            conversation: A list of messages, answered next; as of [`apply_chat_template`], with its errors.
            sanitize_control_tokens, continue_final_message (`bool`, *optional*, default to `False`):
                As of [`apply_chat_template`].
        """
        conversations, _ = self._read_conversations(conversation, refuse_placeholders=not sanitize_control_tokens)
        words = {"conversations": conversations, "tools": None, "documents": None}
        template = self._find_template(None)
        ends = {"continue_final_message": continue_final_message, "add_generation_prompt": not continue_final_message}
        [prompt], _ = self._write_prompts(template, words, sanitize_control_tokens, **ends)
        return tokenize_prompt(
            self.tokenizer, prompt, self._special_tokens_options(prompt).get("add_special_tokens", True)
        )

    def _write_prompts(self, template: str, words: dict, sanitize_control_tokens: bool, **options):
        """Prompts by a template, and where the assistant speaks in them; control tokens among the words may be cut."""
        if sanitize_control_tokens:
            words = words | {"conversations": _without_sources(words["conversations"])}
            words = cut_control_tokens(words, control_tokens(self.tokenizer, template))
        words = {**self.tokenizer.special_tokens_map, **words}
        return render_jinja_template(**words, chat_template=template, **options)

    def _special_tokens_options(self, prompt: str) -> dict:
        """Where the template has written special tokens, the tokenizer is not to add them again."""
        bos_token = self.tokenizer.bos_token
        return {"add_special_tokens": False} if bos_token is not None and prompt.startswith(bos_token) else {}

    def _find_template(self, chat_template: str | None) -> str:
        """A template as it is given, by its name, or the processor's own."""
        own = self.chat_template
        if isinstance(own, dict):
            found = own.get(chat_template or "default", chat_template)
        else:
            found = own if chat_template is None else chat_template
        if found is None:
            raise ValueError(f"No `chat_template` was given, and the processor has none but {sorted(own or {})}.")
        return found

    @staticmethod
    def _read_conversations(conversation, refuse_placeholders: bool) -> tuple[list[list[dict]], bool]:
        """Conversations as [`read_conversations`] reads them, and whether they were given as a batch."""
        conversation, is_batched = getattr(conversation, "messages", conversation), False
        if isinstance(conversation, (list, tuple)) and conversation:
            is_batched = isinstance(conversation[0], (list, tuple)) or hasattr(conversation[0], "messages")
        chats = [getattr(chat, "messages", chat) for chat in conversation] if is_batched else [conversation]
        return [read_conversations(chat, refuse_placeholders) for chat in chats], is_batched

    @staticmethod
    def _media_of(conversations, load_audio_from_video: bool) -> tuple[list, list, list, list]:
        """Images and videos of each conversation, audio in one list, and for each sound the video it is of, if any."""
        images, videos, audio, links = [], [], [], []
        for conversation in conversations:
            images.append([])
            videos.append([])
            for message in conversation:
                content = message.get("content")
                for item in content if isinstance(content, (list, tuple)) else ():
                    kind = item["type"]
                    if kind == "text":
                        continue
                    source = item.get(kind)
                    if source is None and kind == "image":
                        continue  # may come in `processor_kwargs`
                    if source is None:
                        raise ValueError(
                            f"A content item of type {kind!r} has no source: give one of {source_keys(kind)}."
                        )
                    if kind == "image":
                        images[-1].append(source)
                    elif kind == "video":
                        if load_audio_from_video:
                            links.append(sum(len(chat) for chat in videos))
                        videos[-1].append(one_video(source, item_options(item)))
                    else:
                        audio.append(source)
                        links.append(None)
        return images, videos, audio, links


def _without_sources(conversations: list[list[dict]]) -> list[list[dict]]:
    """Conversations as a template reads them: media may be large, and are no text."""

    def bare(content):
        if not isinstance(content, (list, tuple)):
            return content
        return [item if item["type"] == "text" else {**item, item["type"]: ""} for item in content]

    return [[{**message, "content": bare(message.get("content"))} for message in chat] for chat in conversations]
