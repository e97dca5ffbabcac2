"""Weights that compressed-tensors has packed, which it unpacks in the first forward of the whole model."""

from torch import nn

COMPRESSED = "compressed"


def unpack_before_encoding(model: nn.Module) -> None:
    """
    Lets the whole model be unpacked also when an encoder is called before, as in `generate` and `encode_media`.

    Args:
        model ([`OmniVinciPreTrainedModel`]): As `from_pretrained` of transformers gives it, quantized or not.
    """
    compressor = getattr(getattr(model, "hf_quantizer", None), "compressor", None)
    if compressor is None or compressor.quantization_config is None:
        return

    def unpack(*_) -> None:
        if compressor.quantization_config.quantization_status == COMPRESSED:
            compressor.decompress_model(model)

    for tower in (model.base_model.vision_tower, model.base_model.audio_tower):
        tower.register_forward_pre_hook(unpack)
