"""The audio encoder: that of Qwen2-Audio (AF-Whisper), also where its weights are offloaded."""

import torch
from torch import nn
from torch.func import functional_call
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder
from transformers.utils import is_accelerate_available

if is_accelerate_available():
    from accelerate.utils import align_module_device


class OmniVinciAudioTower(Qwen2AudioEncoder):
    """
    Qwen2-Audio's encoder. It reads two weights without calling their modules, which is when `accelerate` fetches what
    is offloaded: they are fetched for it. Positions that are no plain weight, as where they are quantized or sharded
    on their own, are looked up.
    """

    def forward(self, input_features: torch.Tensor, **kwargs) -> BaseModelOutput:
        """
        Args:
            input_features (`torch.Tensor` of shape `(num_windows, mel bins, 2 * max_source_positions)`):
                Log-mel windows.

        Returns:
            [`BaseModelOutput`] with `last_hidden_state` of shape `(num_windows, vectors, d_model)` and, where asked
            for, `hidden_states` and `attentions`.
        """
        if type(self.embed_positions.weight) not in (nn.Parameter, torch.Tensor):
            indices = torch.arange(self.embed_positions.num_embeddings, device=input_features.device)
            positions = {"embed_positions.weight": self.embed_positions(indices)}
            return functional_call(self, positions, (input_features,), kwargs)
        if not (self.conv1.weight.is_meta or self.embed_positions.weight.is_meta):
            return super().forward(input_features, **kwargs)
        with align_module_device(self.conv1), align_module_device(self.embed_positions):
            return super().forward(input_features, **kwargs)
