"""Generation with media: encoded once for all beams and answers, and not again where a cache holds them."""

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..compat import CACHE, EncodesMediaOnce, choose_cache
from ..processing.batch import MEDIA_INPUTS, NAMES_OF, select_media
from .cached_prompt import continue_generation, remember_generation


class GeneratesFromMedia(EncodesMediaOnce):
    """Mixin of [`OmniVinciForConditionalGeneration`], in front of `GenerationMixin`."""

    def generate(self, inputs: torch.Tensor | None = None, *args, **kwargs):
        """
        As [`~transformers.GenerationMixin.generate`]. A further turn may be given as the whole conversation with the
        cache of the turns before, from `past_key_values` or from what was returned: of what the cache holds, media are
        not encoded again. Where the prompt has changed since, as when a second image changes how the first one is
        tiled, the cache is cut back to what still holds.

        Raises:
            ValueError: prompts and media do not match, or the cache cannot be gone on from.
        """
        cache = choose_cache(kwargs.pop("past_key_values", None), kwargs.pop("cache", None))
        kwargs |= {} if cache is None else {CACHE: cache}
        input_ids = kwargs.get("input_ids") if inputs is None else inputs
        is_assistant = getattr(kwargs.get("generation_config"), "is_assistant", False)
        if input_ids is None or kwargs.get("inputs_embeds") is not None or is_assistant:
            return super().generate(inputs, *args, **kwargs)
        outputs = super().generate(inputs, *args, **continue_generation(self.model, input_ids, kwargs))
        remember_generation(self.config, input_ids, kwargs, outputs)
        return outputs

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        """Media are encoded once, before the prompt is read: also for beams, several answers and chunks of it."""
        media = select_media(model_kwargs)
        encoded = self.model.encode(media, model_kwargs.get("mm_encoder_outputs"))
        rest = {name: value for name, value in model_kwargs.items() if name not in MEDIA_INPUTS}
        return {**rest, "mm_encoder_outputs": encoded}

    def _expand_multimodal_outputs(self, input_ids, mm_encoder_output: dict, expand_size: int = 1, inputs_embeds=None):
        """Repeats the features of each sample `expand_size` times, as its prompt is repeated."""
        ids = None if input_ids is None or input_ids.numel() == 0 else input_ids
        embeds = self.get_input_embeddings()(ids) if inputs_embeds is None else inputs_embeds
        expanded = {}
        masks = self.get_placeholder_mask(ids, embeds)
        for name, mask in zip(NAMES_OF, masks, strict=True):
            if mm_encoder_output.get(name) is not None:
                output = mm_encoder_output[name]
                samples = self.flatten_embeddings(output).split(
                    output.get("per_prompt") or mask[..., 0].sum(1).tolist()
                )
                repeated = [sample for sample in samples for _ in range(expand_size)]
                expanded[name] = BaseModelOutputWithPooling(pooler_output=repeated)
        return expanded
