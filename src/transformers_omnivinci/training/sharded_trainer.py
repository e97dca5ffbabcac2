"""FSDP on CPUs too, in trainers of transformers and of TRL."""

from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

SHARDED_LAYERS = ("Qwen2DecoderLayer", "SiglipEncoderLayer", "Qwen2AudioEncoderLayer")
"""What FSDP gathers at a time."""


class ShardsOnCPU:
    """Mixin of a [`~transformers.Trainer`]: `fsdp` among its arguments shards on CPUs as well, layer by layer."""

    def create_accelerator_and_postprocess(self) -> None:
        """As [`~transformers.Trainer`] does it, with the plugin of FSDP."""
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if self.args.fsdp and state.distributed_type == DistributedType.MULTI_CPU:
            # accelerate shards on accelerators alone, and would train replicas on CPUs without a word.
            plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            if state.mixed_precision != "no":
                plugin.set_mixed_precision(state.mixed_precision)
            PartialState().distributed_type = state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin, self.is_fsdp_enabled = plugin, True
        if self.is_fsdp_enabled and not state.fsdp_plugin.transformer_cls_names_to_wrap:
            state.fsdp_plugin.transformer_cls_names_to_wrap = list(SHARDED_LAYERS)
