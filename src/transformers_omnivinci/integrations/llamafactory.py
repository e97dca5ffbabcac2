"""
LLaMA-Factory with OmniVinci registered: its own commands, behind this module.

    python -m transformers_omnivinci.integrations.llamafactory train config.yaml

The framework has no hook that imports plug-ins, so that this module registers a template, a multimodal plug-in and the
parts of the model in its tables and then calls its command line. Configurations say `template: omnivinci`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields

from ..processing.batch import join
from ..processing.prompts import TOKENS
from ..training.recipes import PARTS
from .frameworks import TAGS, check_media, describe_row, read_options, require_framework, tags_in
from .media import encode_media, fill_slots, find_slots, order_media, placeholder_ids, plan_media

require_framework("llamafactory", ">=0.9.5,<0.9.6")
if os.environ.get("DISABLE_VERSION_CHECK", "0").lower() not in ("1", "true"):
    raise ImportError(
        "LLaMA-Factory 0.9.5 asks for transformers <= 5.6, and OmniVinci for 5.8, with which both are tested: set "
        "the environment variable DISABLE_VERSION_CHECK=1, by which LLaMA-Factory takes other versions."
    )

from llamafactory.data.formatter import FunctionFormatter, StringFormatter, ToolFormatter  # noqa: E402
from llamafactory.data.mm_plugin import BasePlugin, get_mm_plugin, register_mm_plugin  # noqa: E402
from llamafactory.data.template import TEMPLATES, Template, register_template  # noqa: E402
from llamafactory.extras.misc import get_device_count  # noqa: E402
from llamafactory.hparams import ModelArguments  # noqa: E402
from llamafactory.model.model_utils.visual import COMPOSITE_MODELS, CompositeModel  # noqa: E402

NAME = "omnivinci"
MODULE = "transformers_omnivinci.integrations.llamafactory"
SAME_OPTIONS = {"use_audio_in_video": "use_audio_in_video", "video_fps": "fps", "video_maxlen": "max_frames"}
"""Options of the framework, and the processor's. They have defaults, which are no choice of the user."""

_PLACES = "omnivinci_places"
"""The key of a message under which it is noted what stands in the place of each of its media."""


@dataclass
class OmniVinciPlugin(BasePlugin):
    """Media that the processor plans and decodes, in the place of what the framework does with them."""

    def process_messages(self, messages, images, videos, audios, processor):
        texts, media = [message["content"] for message in messages], _by_modality(images, videos, audios)
        row = describe_row(texts, media)
        check_media(texts, media, row)
        left = {modality: iter(sources) for modality, sources in media.items()}
        try:
            ordered = [(modality, next(left[modality])) for modality in tags_in(texts)]
            places = iter(plan_media(processor, ordered, **_options(processor)))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{row}: {error}") from error
        messages = deepcopy(messages)
        for message in messages:
            message[_PLACES] = [next(places) for _ in tags_in([message["content"]])]
            for modality, tag in TAGS.items():
                message["content"] = message["content"].replace(tag, TOKENS[modality])
        return messages

    def process_token_ids(self, input_ids, labels, images, videos, audios, tokenizer, processor):
        return input_ids, labels

    def get_mm_inputs(self, images, videos, audios, imglens, vidlens, audlens, batch_ids, processor):
        rows = zip(_rows(images, imglens), _rows(videos, vidlens), _rows(audios, audlens), batch_ids, strict=True)
        return dict(join([_encode_row(processor, _by_modality(*media), ids) for *media, ids in rows]))


class OmniVinciTemplate(Template):
    """A template that puts media into the tokens of a message, where no tokenizer joins them with the text around."""

    def _encode(self, tokenizer, messages, system, tools):
        encoded = super()._encode(tokenizer, messages, system, tools)
        placeholders = {tokenizer.convert_tokens_to_ids(token): name for name, token in TOKENS.items()}
        found = [message.get(_PLACES, []) for message in messages]
        return [
            fill_slots(ids, find_slots(ids, len(places), placeholders), places) for ids, places in zip(encoded, found)
        ]


def _by_modality(images: Sequence, videos: Sequence, audios: Sequence) -> dict[str, list]:
    # Images of data sets with decoded columns are objects of a path or bytes.
    images = [(one.get("bytes") or one.get("path")) if isinstance(one, dict) else one for one in images]
    return {"image": images, "video": list(videos), "audio": list(audios)}


def _rows(media: Sequence, lengths: Sequence[int]) -> Iterator[Sequence]:
    """The media of each row, of those of a batch."""
    end = 0
    for length in lengths:
        yield media[end : end + length]
        end += length


def _encode_row(processor, media: dict[str, list], ids: Sequence[int]) -> dict:
    """The tensors of a row's media, in the order in which they stand in its tokens."""
    options, placeholders = _options(processor), placeholder_ids(processor)
    row = describe_row([], media)
    try:
        places = iter(
            plan_media(processor, [(name, one) for name, found in media.items() for one in found], **options)
        )
        planned = {name: [next(places) for _ in found] for name, found in media.items()}
        left = {name: iter(zip(media[name], planned[name])) for name in media}
        ordered = [(name, *next(left[name])) for name in order_media(ids, planned, placeholders)]
        places, tensors = encode_media(processor, [(name, one) for name, one, _ in ordered], **options)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{row}: {error}") from error
    for (_, one, place), decoded in zip(ordered, places, strict=True):
        if place != decoded:
            raise ValueError(
                f"{row}: {one!r:.200} has {len(decoded)} positions, but {len(place)} by its header: the file is "
                "damaged."
            )
    return tensors


def _options(processor) -> dict:
    """Options of media: environment variables, and what the configuration says otherwise than by default."""
    defaults = {field.name: field.default for field in fields(ModelArguments)}
    said = {
        ours: getattr(processor, theirs)
        for theirs, ours in SAME_OPTIONS.items()
        if getattr(processor, theirs, defaults[theirs]) != defaults[theirs]
    }
    return read_options(said)


def register() -> None:
    """Enters the template, its plug-in and the parts of the model into the tables of LLaMA-Factory, once."""
    if NAME in TEMPLATES:
        return
    register_mm_plugin(NAME, OmniVinciPlugin)
    # The newline that ends a turn stands before the next one: what a template writes after an answer is learned.
    asks = "\n<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n"
    register_template(
        name=NAME,
        format_user=StringFormatter(slots=[asks]),
        format_assistant=StringFormatter(slots=["{{content}}<|im_end|>"]),
        format_system=StringFormatter(slots=["<|im_start|>system\n{{content}}<|im_end|>"]),
        format_function=FunctionFormatter(slots=["{{content}}<|im_end|>"], tool_format="qwen"),
        format_observation=StringFormatter(
            slots=[asks.replace("{{content}}", "<tool_response>\n{{content}}\n</tool_response>")]
        ),
        format_tools=ToolFormatter(tool_format="qwen"),
        default_system="You are a helpful assistant",
        stop_words=["<|im_end|>"],
        replace_eos=True,
        # Without tokens of its own for images and sounds the framework adds no made-up ones to batches that have none:
        # the model takes care itself that all processes run the same encoders.
        mm_plugin=get_mm_plugin(name=NAME, video_token=TOKENS["video"]),
        template_class=OmniVinciTemplate,
    )
    COMPOSITE_MODELS[NAME] = CompositeModel(
        NAME,
        projector_keys=[name for part in ("vision_projector", "audio_projector") for name in PARTS[part]],
        vision_model_keys=[name for part in ("vision_encoder", "audio_encoder") for name in PARTS[part]],
        language_model_keys=list(PARTS["language_model"]),
        lora_conflict_keys=[],
    )


def main() -> None:
    """
    Runs a command of LLaMA-Factory.

    Raises:
        SystemExit: several devices are there, for which the framework would start processes that know no OmniVinci.
    """
    register()
    if sys.argv[1:2] == ["train"]:
        if "LOCAL_RANK" in os.environ:  # started by torchrun
            from llamafactory.train.tuner import run_exp

            sys.argv.pop(1)
            return run_exp()
        if get_device_count() > 1 or os.environ.get("FORCE_TORCHRUN", "0").lower() in ("1", "true"):
            sys.exit(
                f"Error: start several processes by torchrun: torchrun --nproc-per-node {get_device_count()} "
                f"-m {MODULE} {' '.join(sys.argv[1:])}"
            )
    from llamafactory.cli import main as run

    run()


if __name__ == "__main__":
    # By the module's own name, under which what it registers can be found in other processes.
    from transformers_omnivinci.integrations.llamafactory import main as main_of_module

    main_of_module()
