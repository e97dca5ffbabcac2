"""OmniVinci itself, asked about sound: what it hears, and what it decides about what others heard."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from ...processing.tokenization import control_tokens
from .decisions import ACCEPT, DECISIONS, check_decision_tokens, decision_content


class ModelHearing:
    """
    Asks a model about stretches of sound, by greedy decoding.

    Args:
        processor ([`OmniVinciProcessor`]), model ([`OmniVinciForConditionalGeneration`]): The model, in eval mode.
        max_new_tokens (`int`, defaults to 256): The most that it writes of a stretch.
    """

    def __init__(self, processor, model, max_new_tokens: int = 256):
        self.processor, self.model, self.max_new_tokens = processor, model, max_new_tokens

    def __call__(self, samples: np.ndarray, prompt: str) -> str:
        """
        The answer to a question about sound.

        Args:
            samples (`np.ndarray`): float32 mono samples of shape (num_samples,) at 16 kHz.
            prompt (`str`): What is asked.

        Raises:
            ValueError: the prompt is longer than the model has room for.
        """
        content = [{"type": "audio", "audio": samples}, {"type": "text", "text": prompt}]
        answer = self._generate(content)
        return self.processor.decode(answer, skip_special_tokens=True)

    def decide(self, samples: np.ndarray, internal: str, candidates: Sequence[str]) -> str:
        """
        What the model writes where it decides (appendix D.3.3), for [`apply_decision`]: the token of a decision, the
        likelier one of both, and behind `INTEGRATE` the corrected text. With `ACCEPT` it ends there.

        Args:
            samples (`np.ndarray`): As above.
            internal (`str`), candidates (`Sequence[str]`): As of [`decision_content`].

        Raises:
            ValueError: the tokenizer lacks the decisions, or the prompt is not accepted or too long.
        """
        tokenizer = self.processor.tokenizer
        check_decision_tokens(tokenizer)
        reserved = control_tokens(tokenizer, self.processor.chat_template)
        content = decision_content({"type": "audio", "audio": samples}, internal, candidates, reserved)
        ids = tokenizer.convert_tokens_to_ids(list(DECISIONS))
        first, *rest = self._generate(content, ids).tolist()
        decision = DECISIONS[ids.index(first)]
        return decision if decision == ACCEPT else decision + self.processor.decode(rest, skip_special_tokens=True)

    def _generate(self, content: list[dict], first_ids: Sequence[int] = ()) -> torch.Tensor:
        """The ids of an answer, (num_tokens,); where any are given, it begins with one of `first_ids`, or is it."""
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
        ).to(self.model.device)
        length = inputs["input_ids"].shape[1]
        most = self.processor.tokenizer.model_max_length - self.max_new_tokens
        if length > most:
            raise ValueError(f"The prompt of a stretch has {length} tokens, where the model has room for {most}.")
        options = {}
        if first_ids:
            options["logits_processor"] = LogitsProcessorList([_BeginsWith(length, first_ids)])
            options["stopping_criteria"] = StoppingCriteriaList([_EndsBehind(length, first_ids[0])])
        with torch.inference_mode():
            return self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False, **options)[
                0, length:
            ]


class _BeginsWith(LogitsProcessor):
    """Has the first token behind a prompt of `length` tokens be one of some."""

    def __init__(self, length: int, ids: Sequence[int]):
        self.length, self.ids = length, list(ids)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if input_ids.shape[1] > self.length:
            return scores
        begun = torch.full_like(scores, -torch.inf)
        begun[:, self.ids] = scores[:, self.ids]
        return begun


class _EndsBehind(StoppingCriteria):
    """Ends answers whose first token, behind a prompt of `length` tokens, is a certain one."""

    def __init__(self, length: int, token_id: int):
        self.length, self.token_id = length, token_id

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        return input_ids[:, self.length] == self.token_id
