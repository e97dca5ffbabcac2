"""Generation with media: encoded once for all beams and answers, and not again where a cache holds them."""

import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..compat import CACHE, EncodesMediaOnce, choose_cache
from ..processing.batch import MEDIA_INPUTS, NAMES_OF, select_media
from .cached_prompt import continue_generation, remember_generation

ASSISTANTS = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")
"""Options of `generate` that have another part guess the next tokens."""


def finds_assistant(model, options: dict) -> str | None:
    """Which of [`ASSISTANTS`] a call of `generate` with some keyword arguments uses, if any."""
    config = options.get("generation_config") or model.generation_config
    return next((name for name in ASSISTANTS if options.get(name) or getattr(config, name, None)), None)


class GeneratesFromMedia(EncodesMediaOnce):
    """Mixin of [`OmniVinciForConditionalGeneration`], in front of `GenerationMixin`."""

    def generate(self, inputs: torch.Tensor | None = None, *args, prompt_memory=None, **kwargs):
        """
        As [`~transformers.GenerationMixin.generate`]. A further turn may be given as the whole conversation with the
        cache of the turns before, from `past_key_values` or from what was returned: of what the cache holds, media are
        not encoded again. Where the prompt has changed since, as when a second image changes how the first one is
        tiled, the cache is cut back to what still holds.

        With `prompt_memory`, media and what was read of the prompt before come from there: an object whose `generate`
        takes the model and all arguments by name, and calls this again.

        Raises:
            ValueError: prompts and media do not match, or the cache cannot be gone on from, as with an assistant.
        """
        if prompt_memory is not None:
            return prompt_memory.generate(self, **kwargs)
        cache = choose_cache(kwargs.pop("past_key_values", None), kwargs.pop("cache", None))
        kwargs |= {} if cache is None else {CACHE: cache}
        input_ids = kwargs.get("input_ids") if inputs is None else inputs
        is_assistant = getattr(kwargs.get("generation_config"), "is_assistant", False)
        if input_ids is None or kwargs.get("inputs_embeds") is not None or is_assistant:
            return super().generate(inputs, *args, **kwargs)
        assistant = finds_assistant(self, {**kwargs, "generation_config": args[0]} if args else kwargs)
        length = cache.get_seq_length() if assistant is not None and isinstance(cache, Cache) else 0
        if length:
            raise ValueError(
                f"`{assistant}` does not go with a cache of {length:,} positions, as assisted generation reads the "
                "whole prompt behind them: leave the assistant out, or give no cache or an empty one."
            )
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
