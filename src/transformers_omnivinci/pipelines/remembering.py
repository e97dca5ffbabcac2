"""Pipelines that remember: what was seen and read for one answer is not seen and read again for the next one."""

import math

import torch
from transformers.utils.chat_template_utils import Chat

from ..processing.batch import MEDIA_INPUTS
from ..sessions.memory import Memory

CACHE_GB = 2.0
"""Gigabytes that a pipeline keeps unless it is told otherwise."""


class RemembersMedia:
    """
    Mixin of pipelines, in front of theirs, that answer one chat at a time from a [`Memory`].

    Args:
        cache_gb (`float`, *optional*, defaults to 2.0): Gigabytes of it, on the devices of the model. 0: nothing is
            remembered.

    Attributes:
        memory ([`Memory`]): What is remembered.
    """

    def __init__(self, *args, cache_gb: float = CACHE_GB, **kwargs):
        is_number = isinstance(cache_gb, (int, float)) and not isinstance(cache_gb, bool)
        if not is_number or not 0 <= cache_gb < math.inf:
            raise ValueError(f"`cache_gb={cache_gb!r:.40}` is not accepted: a number of gigabytes from 0 on is.")
        super().__init__(*args, **kwargs)
        self.memory = Memory(self.model, self.processor, int(cache_gb * 1e9))

    def run_single(self, inputs, preprocess_params, *args):
        return super().run_single(inputs, {"remember": True, **preprocess_params}, *args)

    def get_iterator(self, inputs, num_workers: int, batch_size: int, preprocess_params, *args):
        if not num_workers:  # in other processes, samples would be remembered in vain
            preprocess_params = {"remember": True, **preprocess_params}
        return super().get_iterator(inputs, num_workers, batch_size, preprocess_params, *args)

    def preprocess(self, inputs, remember: bool = False, **kwargs):
        memory = self._current_memory()
        if not remember or not memory.max_bytes or self.model.training:
            return super().preprocess(inputs, **kwargs)
        options = {**kwargs, **(kwargs.get("processor_kwargs") or {})}
        options = {name: value for name, value in options.items() if value is not None}
        asked = memory.recognise(inputs.messages, options)
        found = memory.recall(
            asked,
            bool(options.get("return_evidence")),
            sanitize_control_tokens=options.get("sanitize_control_tokens", False),
            continue_final_message=options.get("continue_final_message", inputs.messages[-1]["role"] == "assistant"),
        )
        if found is not None:
            draft, evidence = found
            input_ids = torch.tensor([draft.ids])
            known = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "draft": draft}
            return known if evidence is None else {**known, "evidence": [evidence]}
        model_inputs = super().preprocess(Chat(asked.messages), return_plan=True, **kwargs)
        [plan], [evidence] = model_inputs.pop("plan"), model_inputs.get("evidence", [None])
        draft = memory.learn(asked, plan, model_inputs, evidence)
        if draft is None:
            return model_inputs
        return {name: value for name, value in model_inputs.items() if name not in MEDIA_INPUTS} | {"draft": draft}

    def _forward(self, model_inputs, generate_kwargs=None):
        draft = model_inputs.pop("draft", None)
        if draft is None:
            return super()._forward(model_inputs, generate_kwargs)
        outputs = super()._forward({**model_inputs, "prompt_memory": draft}, generate_kwargs)
        return {**outputs, "cached_tokens": draft.cached_tokens}

    def _current_memory(self) -> Memory:
        """That of the model and the processor, which may have been replaced."""
        if self.memory.model is not self.model or self.memory.processor is not self.processor:
            self.memory = Memory(self.model, self.processor, self.memory.max_bytes)
        return self.memory
