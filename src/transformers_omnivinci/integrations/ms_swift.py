"""
OmniVinci in ms-swift, as a file for `--external_plugins`: the model, which of its parts are which, and its template.

    swift sft --external_plugins "$(python -m transformers_omnivinci.integrations)/ms_swift.py" --model DIR ...

ms-swift imports it by its path, outside of this package. What it overrides is what the templates of ms-swift's own
models do: `replace_tag`, `_encode` and `_data_collator_mm_data`; there are no other names for that.
"""

from transformers_omnivinci.integrations.frameworks import (
    COLUMNS,
    check_media,
    describe_row,
    read_options,
    require_framework,
)

require_framework("ms-swift", ">=4.6,<4.7")

import torch  # noqa: E402
from swift.model import (  # noqa: E402
    Model,
    ModelGroup,
    ModelLoader,
    ModelMeta,
    MultiModelKeys,
    register_model,
    register_model_arch,
)
from swift.template import Template, TemplateMeta, register_template  # noqa: E402
from transformers import AutoProcessor  # noqa: E402

from transformers_omnivinci.integrations.media import (  # noqa: E402
    encode_media,
    fill_slots,
    find_slots,
    placeholder_ids,
)
from transformers_omnivinci.labels import IGNORED  # noqa: E402
from transformers_omnivinci.processing.batch import join  # noqa: E402
from transformers_omnivinci.training.recipes import PARTS  # noqa: E402

NAME = "omnivinci"


class OmniVinciLoader(ModelLoader):
    """Loads what the Auto classes load: converted checkpoints and the published layout."""

    default_trust_remote_code = False

    def get_processor(self, model_dir, config):
        return AutoProcessor.from_pretrained(model_dir)


class OmniVinciTemplate(Template):
    """The template of ms-swift, with media that the processor plans and decodes."""

    load_images = False  # the processor does
    support_padding_free = True
    placeholder_tokens = []

    def init_env_args(self):
        super().init_env_args()
        read_options()  # a wrong one is told before the data are read

    def set_mode(self, mode):
        if mode in ("vllm", "lmdeploy", "sglang"):
            raise ValueError(
                f"ms-swift cannot run OmniVinci by the backend {mode!r}: take `--infer_backend transformers`, "
                "or serve the checkpoint without ms-swift."
            )
        super().set_mode(mode)

    @staticmethod
    def _load_image(image, load_images):
        if load_images:  # which ms-swift asks for where it scales images itself
            return Template._load_image(image, load_images)
        return (image.get("bytes") or image.get("path")) if isinstance(image, dict) else image

    def replace_tag(self, media_type, index, inputs):
        return [[getattr(self.processor, f"{media_type}_token_id")]]

    def _encode(self, inputs):
        texts = [message["content"] for message in inputs.messages if isinstance(message["content"], str)]
        media = {modality: getattr(inputs, column) for modality, column in COLUMNS.items()}
        row = describe_row(texts, media, inputs.extra_kwargs.get("id"))
        check_media([inputs.system or "", *texts], media, row)
        if self.truncation_strategy == "split" and any(media.values()):
            raise ValueError("`--truncation_strategy split` would part media from their placeholders: choose another.")
        encoded = super()._encode(inputs)
        placeholders, left = placeholder_ids(self.processor), {name: iter(found) for name, found in media.items()}
        order = [placeholders[token] for token in encoded["input_ids"] if token in placeholders]
        try:
            options = read_options(inputs.chat_template_kwargs)
            slots = find_slots(encoded["input_ids"], sum(map(len, media.values())), placeholders)
            with torch.inference_mode(False):  # which ms-swift encodes in: no gradient could pass such tensors
                places, tensors = encode_media(self.processor, [(name, next(left[name])) for name in order], **options)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{row}: {error}") from error
        encoded["input_ids"] = fill_slots(encoded["input_ids"], slots, places)
        for name, value in (("labels", IGNORED), ("loss_scale", 0.0)):
            if encoded.get(name) is not None:
                encoded[name] = fill_slots(encoded[name], slots, places, value)
        return encoded | tensors

    def _data_collator_mm_data(self, batch):
        return join(batch)


def register() -> None:
    """Registers all with ms-swift, once."""
    towers = ("vision_encoder", "audio_encoder")
    aligners = ("vision_projector", "audio_projector", "omni_align_net")
    register_model_arch(
        MultiModelKeys(
            NAME,
            language_model=list(PARTS["language_model"]),
            vision_tower=[name for part in towers for name in PARTS[part]],
            aligner=[name for part in aligners for name in PARTS[part]],
        ),
        exist_ok=True,
    )
    register_template(
        TemplateMeta(
            NAME,
            template_cls=OmniVinciTemplate,
            prefix=[],
            prompt=["<|im_start|>user\n{{QUERY}}<|im_end|>\n<|im_start|>assistant\n"],
            chat_sep=["<|im_end|>\n"],
            suffix=["<|im_end|>"],
            system_prefix=["<|im_start|>system\n{{SYSTEM}}<|im_end|>\n"],
            default_system="You are a helpful assistant",
            agent_template="hermes",
        ),
        exist_ok=True,
    )
    register_model(
        ModelMeta(
            NAME,
            [ModelGroup([Model(hf_model_id="nvidia/omnivinci")])],
            OmniVinciLoader,
            template=NAME,
            model_arch=NAME,
            architectures=["OmniVinciForConditionalGeneration"],
            is_multimodal=True,
            tags=["vision", "video", "audio"],
        ),
        exist_ok=True,
    )


register()
