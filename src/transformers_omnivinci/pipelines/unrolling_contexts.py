"""`unroll` of pipelines: answers from contexts that the model writes first."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from ..reasoning.contexts import UnrollOptions
from ..reasoning.unrolling import UnrolledAnswer, Unroller
from ..reasoning.views import ReadChat
from .telling import take_own


class UnrollsContexts:
    """
    Mixin of pipelines of chats, in front of theirs. With `unroll`, every record of an answer has `unrolled`, the
    dictionary of an [`~transformers_omnivinci.reasoning.unrolling.UnrolledAnswer`].
    """

    def _sanitize_parameters(self, unroll=None, **kwargs):
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        if unroll is not None and unroll is not False:
            preprocess["unroll"] = UnrollOptions.of(unroll)
        return preprocess, forward, postprocess

    def preprocess(self, inputs, unroll: UnrollOptions | None = None, **kwargs):
        if unroll is None:
            return super().preprocess(inputs, **kwargs)
        if kwargs.pop("continue_final_message", None):
            raise ValueError("`unroll` goes before an answer: it does not go with `continue_final_message=True`.")
        options = {name: value for name, value in kwargs.items() if name not in ("remember", "timeout")}
        chat = ReadChat.of(self.processor, inputs.messages, **options)
        asked = {
            name: chat.inputs[name] for name in ("input_ids", "attention_mask", "evidence") if name in chat.inputs
        }
        return {**asked, "unroll": [(chat, unroll)]}

    def _forward(self, model_inputs, generate_kwargs=None):
        unroll = model_inputs.pop("unroll", None)
        if unroll is None:
            return super()._forward(model_inputs, generate_kwargs)
        unrolling = _Unrolling(self.processor, unroll)
        outputs = super()._forward({**model_inputs, "prompt_memory": unrolling}, generate_kwargs)
        outputs["unrolled"] = [one.to_dict() for one in unrolling.answers]
        if "evidence" in outputs:
            outputs["evidence"] = [one.evidence for one in unrolling.answers]
        return outputs

    def postprocess(self, model_outputs, *args, **kwargs):
        unrolled = take_own(model_outputs, "unrolled")
        records = super().postprocess(model_outputs, *args, **kwargs)
        if unrolled is not None:
            for record in records:
                record["unrolled"] = unrolled
        return records


class _Unrolling:
    """What `generate` asks for the answers to chats, see `prompt_memory` there; one after another."""

    def __init__(self, processor, chats: Sequence[tuple[ReadChat, UnrollOptions]]):
        self.processor, self.chats = processor, chats
        self.answers: list[UnrolledAnswer] = []

    def generate(self, model, input_ids: torch.Tensor, attention_mask=None, **options) -> torch.Tensor:
        """Prompts (samples, tokens) with what is said to them, filled up behind it."""
        if not options.get("return_dict_in_generate"):
            options.pop("return_dict_in_generate", None)
        for chat, unroll in self.chats:
            self.answers.append(Unroller(model, self.processor, chat, unroll, **options).answer())
        said = [torch.tensor(one.readings[-1].token_ids, device=input_ids.device) for one in self.answers]
        fill = self.processor.tokenizer.pad_token_id
        return torch.cat([input_ids, pad_sequence(said, batch_first=True, padding_value=fill or 0)], 1)
