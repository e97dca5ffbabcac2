"""The pipeline `video-text-to-text`: answers to questions about videos and their sound."""

from collections.abc import Mapping, Sequence
from types import GeneratorType

from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers.generation import GenerationConfig
from transformers.pipelines.image_text_to_text import ImageTextToTextPipeline, ReturnType
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from transformers.utils.chat_template_utils import Chat, is_valid_message

from ..processing.batch import join
from ..processing.video_inputs import OneVideo, flatten_videos
from .remembering import RemembersMedia
from .telling import TellsEvidence
from .unrolling_contexts import UnrollsContexts

GENERATION_PARAMETERS = {name for name in vars(GenerationConfig()) if not name.startswith("_")} | {"generation_config"}


class VideoTextToTextPipeline(UnrollsContexts, TellsEvidence, RemembersMedia, ImageTextToTextPipeline):
    """
    Answers questions about videos, with their sound, and about any other media in a chat.

    Unlike in other pipelines, samples of a batch may be unlike each other: in what they show, how long it lasts, and
    whether it sounds. Unless the checkpoint's `generation_config.json` says more, up to 256 new tokens are generated.

    What is asked one by one is remembered: a later question about the same media decodes, encodes and reads nothing of
    them again. `pipeline(..., cache_gb=2.0)` bounds what that takes on the devices of the model; 0 turns it off.

    Example:

    ```python
    >>> import transformers_omnivinci
    >>> from transformers import pipeline

    >>> pipe = pipeline("video-text-to-text", model="nvidia/omnivinci")
    >>> pipe("clip.mp4", text="What happens?", num_frames=64, return_full_text=False)
    [{'input_text': 'What happens?', 'generated_text': 'A dog barks at a passing train.'}]

    >>> chat = [
    ...     {
    ...         "role": "user",
    ...         "content": [{"type": "video", "path": "clip.mp4"}, {"type": "text", "text": "What is heard?"}],
    ...     }
    ... ]
    >>> answers = pipe([chat, chat], batch_size=2, max_new_tokens=64)
    ```"""

    def __call__(self, videos=None, text=None, **kwargs):
        """
        Args:
            videos:
                - One video, with its `text`: a path, URL, bytes, file object, list of frames, an array or tensor of
                  shape (num_frames, height, width, 3) or (num_frames, 3, height, width), or (frames, metadata).
                - A list, dataset or generator of videos, with one `text` for all; or a list with a list of texts. An
                  item of a list may be a list of several videos of one question.
                - A chat, or a list, dataset or generator of chats. A chat is a list of messages, whose content has
                  items of the types text, image, video and audio.
                - `{"video": ..., "text": ...}`, or a list, dataset or generator of such samples.
            text (`str` or `list[str]`, *optional*):
                What is asked about the videos. It becomes a turn of the user, after the videos, in the chat template.
                Chats may be given as `text` too.
            num_frames (`int`, *optional*): Frames to sample uniformly from each video. Default: as in the checkpoint.
            fps (`float`, *optional*): Frames per second to sample, instead of `num_frames`.
            max_frames (`int`, *optional*): The most frames that `fps` gives.
            video_start (`float`, *optional*), video_end (`float`, *optional*):
                Seconds between which videos are looked at.
            load_audio_from_video (`bool`, *optional*): Whether videos are heard, too. Default: as in the checkpoint.
            processor_kwargs (`dict`, *optional*): Other options of a call of the processor.
            continue_final_message (`bool`, *optional*):
                Whether the last message of a chat is continued. Default: if it is one of the assistant.
            max_new_tokens (`int`, *optional*), generate_kwargs (`dict`, *optional*):
                For `generate`, whose other parameters may stand here too.
            stop_sequence (`str` or `list[str]`, *optional*): What ends an answer.
            streamer ([`~generation.BaseStreamer`], *optional*):
                Gets the answer token by token, of one sample at a time.
            return_full_text (`bool`, *optional*, defaults to `True`):
                Whether `generated_text` is the input with the answer, or the answer alone.
            return_tensors (`bool`, *optional*): Returns token ids, of prompt and answer, instead of text.
            return_evidence (`bool`, *optional*):
                Whether to say what of the media each answer rests on, and what was left out.
            unroll (`str` or `dict`, *optional*):
                `"full"` has the model write what it sees, what it hears and both in their order before it answers;
                `"auto"` does so until its answer is sure. A dictionary has `mode` and other fields of
                [`~transformers_omnivinci.reasoning.contexts.UnrollOptions`]. A `streamer` gets the answer alone.
                Samples of a batch are answered one by one then, and nothing is remembered for later calls.
            batch_size (`int`, *optional*, defaults to 1): Samples that are answered together.
            remember (`bool`, *optional*):
                Whether media and prompts are remembered for later calls, within the `cache_gb` of the pipeline.
                Default: if samples are answered one by one, in this process.

        Returns:
            `list[dict]` for one sample, with one entry for each of `num_return_sequences`; a list of these for a list,
            and an iterator over these for a dataset or generator. Entries hold

            - `input_text` (`str` or `list[dict]`): The text, or the messages of the chat.
            - `generated_text` (`str` or `list[dict]`): The answer; with `return_full_text` after the text, or as the
              last message of the chat.
            - `generated_token_ids` (`torch.Tensor`): With `return_tensors`, instead of `generated_text`.
            - `evidence` (`dict`): With `return_evidence`, that of [`~transformers_omnivinci.planning.Evidence`].
            - `unrolled` (`dict`): With `unroll`, the contexts, rounds, confidence and tokens of
              [`~transformers_omnivinci.reasoning.unrolling.UnrolledAnswer`].

        Raises:
            ValueError, TypeError, OSError: what is given is not understood, or a medium cannot be read.
        """
        if videos is None and text is None:
            raise ValueError("Got neither `videos` nor `text`: a chat, or a video with its text, is accepted.")
        if text is not None and not _is_text(text):
            if videos is not None:
                raise ValueError(
                    f"`text` is {type(text).__name__} beside `videos`, where a string or a list of strings is "
                    "accepted. A chat has its media in the content of its messages."
                )
            videos, text = text, None
        if text is None:
            inputs = list(videos) if isinstance(videos, tuple) else videos
        elif videos is None:
            inputs = {"text": text} if isinstance(text, str) else [{"text": question} for question in text]
        elif isinstance(videos, (Dataset, GeneratorType)):
            if not isinstance(text, str):
                raise ValueError(f"`text` is a list beside {type(videos).__name__}: one string for all is accepted.")
            inputs, kwargs = videos, {**kwargs, "text": text}
        else:
            inputs = _pair(videos, text)
        if isinstance(inputs, list) and not inputs:
            return []
        return super(ImageTextToTextPipeline, self).__call__(inputs, **kwargs)

    def _sanitize_parameters(self, text=None, streamer=None, generate_kwargs=None, stop_sequence=None, **kwargs):
        by_name = {name: kwargs.pop(name) for name in GENERATION_PARAMETERS - {"max_new_tokens"} & kwargs.keys()}
        if streamer is not None:
            by_name["streamer"] = streamer
        twice = sorted(by_name.keys() & (generate_kwargs or {}).keys())
        if twice:
            raise ValueError(f"Got {twice} both in `generate_kwargs` and as parameters: give them once.")
        if stop_sequence is not None:  # until 5.22, transformers stops at the first token of it
            by_name["stop_strings"] = [stop_sequence] if isinstance(stop_sequence, str) else list(stop_sequence)
            by_name["tokenizer"] = self.tokenizer
        if by_name or generate_kwargs is not None:
            generate_kwargs = {**by_name, **(generate_kwargs or {})}
        # Of two ways to sample, the one of the call replaces the other one of the pipeline.
        for given, other in (("fps", "num_frames"), ("num_frames", "fps")):
            if kwargs.get(given) is not None:
                kwargs.setdefault(other, None)
        preprocess, forward, postprocess = super()._sanitize_parameters(generate_kwargs=generate_kwargs, **kwargs)
        if text is not None:
            preprocess["text"] = text
        return preprocess, forward, postprocess

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ):
        """As in the parent, with samples joined by [`collate`]."""
        if batch_size == 1:
            return super().get_iterator(
                inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params
            )
        preprocess_params = {**preprocess_params, "remember": False}  # samples are answered together
        if hasattr(inputs, "__len__"):
            samples = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            num_workers = min(num_workers, 1)  # each worker would go through all of a stream
            samples = PipelineIterator(inputs, self.preprocess, preprocess_params)
        batches = DataLoader(samples, num_workers=num_workers, batch_size=batch_size, collate_fn=self.collate)
        answers = PipelineIterator(batches, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(answers, self.postprocess, postprocess_params)

    def preprocess(self, inputs, text=None, processor_kwargs=None, **kwargs):
        chat, prompt = _as_chat(inputs, text)
        model_inputs = super().preprocess(chat, processor_kwargs=processor_kwargs, **kwargs)
        model_inputs["text"] = prompt
        return model_inputs

    def collate(self, samples: Sequence[Mapping]) -> dict:
        """
        Joins what `preprocess` returned for several samples, as the processor does for a list of prompts.

        Prompts are padded on the left; media follow each other, see [`join`].
        """
        joined = {"text": [sample["text"] for sample in samples], **join(samples)}
        for name in ("evidence", "unroll"):
            if all(name in sample for sample in samples):
                joined[name] = [one for sample in samples for one in sample[name]]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            rows = [row for sample in samples if name in sample for row in sample[name]]
            if rows:
                fill = self.tokenizer.pad_token_id if name == "input_ids" else 0
                joined[name] = pad_sequence(rows, batch_first=True, padding_value=fill, padding_side="left")
        return joined

    def _forward(self, model_inputs, generate_kwargs=None):
        mask = model_inputs["attention_mask"]
        outputs = super()._forward(model_inputs, generate_kwargs)
        # Several answers of a sample stay together: (samples, answers, tokens).
        outputs["generated_sequence"] = outputs["generated_sequence"].reshape(
            len(mask), -1, outputs["generated_sequence"].shape[-1]
        )
        if isinstance(outputs["prompt_text"], list):
            starts = mask.argmax(1).tolist()
            for name in ("generated_sequence", "input_ids"):
                outputs[name] = [row[..., start:] for row, start in zip(outputs[name], starts, strict=True)]
        return outputs

    def postprocess(
        self, model_outputs, return_type=ReturnType.FULL_TEXT, continue_final_message=None, **kwargs
    ) -> list[dict]:
        prompt = model_outputs["prompt_text"]
        is_chat = isinstance(prompt, Chat)
        *earlier, message = prompt.messages if is_chat else [{"role": "user", "content": None}]
        if continue_final_message is None:
            continue_final_message = message["role"] == "assistant"
        # The parent continues lists of content items only, and gives back messages along with text only.
        extends = (
            return_type == ReturnType.FULL_TEXT and continue_final_message and isinstance(message["content"], str)
        )
        records = []
        for answer in model_outputs["generated_sequence"].flatten(0, -2):
            records += super().postprocess(
                {**model_outputs, "generated_sequence": answer[None]},
                ReturnType.NEW_TEXT if extends else return_type,
                continue_final_message,
                **kwargs,
            )
        for record in records if is_chat else ():
            record["input_text"] = prompt.messages
            if extends:
                continued = {**message, "content": message["content"] + record["generated_text"]}
                record["generated_text"] = [*earlier, continued]
        return records


def _is_text(text) -> bool:
    return isinstance(text, str) or (
        isinstance(text, (list, tuple)) and all(isinstance(question, str) for question in text)
    )


def _is_one_video(videos) -> bool:
    """Whether a list is a video itself, of frames or of (frames, metadata), and not a list of videos."""
    if not isinstance(videos, (list, tuple)):
        return getattr(videos, "ndim", 4) < 5
    flat = flatten_videos(videos)
    return len(flat) == 1 and isinstance(flat[0], (list, OneVideo))


def _pair(videos, text: str | Sequence[str]) -> dict | list[dict]:
    """Samples of videos and texts: one, or a list of them where either is one."""
    if _is_one_video(videos):
        if isinstance(text, str):
            return {"video": videos, "text": text}
        videos = [videos] * len(text)
    texts = [text] * len(videos) if isinstance(text, str) else text
    if len(texts) != len(videos):
        raise ValueError(f"Got {len(videos)} videos but {len(texts)} texts: one for each is accepted, or one for all.")
    return [{"video": video, "text": question} for video, question in zip(videos, texts, strict=True)]


def _as_chat(inputs, text: str | None) -> tuple[Chat, Chat | str]:
    """A sample as a chat, and what of it is given back as `input_text`."""
    if isinstance(inputs, Chat):
        return inputs, inputs
    if isinstance(inputs, (list, tuple)) and inputs and is_valid_message(inputs[0]):
        chat = Chat(list(inputs))
        return chat, chat
    sample = inputs if isinstance(inputs, Mapping) else {"video": inputs}
    question = sample.get("text", text)
    if not isinstance(question, str):
        raise ValueError(
            f"A sample of type {type(inputs).__name__} has no text: a chat, a video with `text=...` or "
            '{"video": ..., "text": ...} is accepted.'
        )
    if "video" not in sample and sample.keys() != {"text"}:
        raise ValueError(f'A sample has the keys {list(sample)}: {{"video": ..., "text": ...}} is accepted.')
    videos = [] if sample.get("video") is None else flatten_videos(sample["video"])
    content = [{"type": "video", "video": video} for video in videos] + [{"type": "text", "text": question}]
    return Chat([{"role": "user", "content": content}]), question
