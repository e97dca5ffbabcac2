"""
Conversion of checkpoints: from the published layout into that of transformers, and back.

A conversion is planned by `conversion_plan`, and carried out here, one shard after another.
"""

from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import tqdm

from ..new_folder import check_apart, check_space, check_vacant, new_folder
from ..version import __version__
from ..weight_files import open_folder
from ..weight_shards import write_shards
from .conversion_plan import Conversion, plan_conversion
from .published_files import write_published_files
from .weights import check_checksum

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""How far logits of equal weights may lie from each other, of the largest of them."""


def convert(
    source,
    destination,
    *,
    revision: str | None = None,
    to: str = "transformers",
    dtype: str | torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
    with_code: bool = False,
    verify: bool = False,
    force: bool = False,
    **hub,
) -> Conversion:
    """
    Converts a checkpoint. The destination appears whole, at the end, or not at all.

    Args:
        source (`str` or `Path`): A folder in either layout, or a repository of the Hub.
        destination (`str` or `Path`): The folder to be made.
        revision (`str`, *optional*): Branch, tag or commit of a repository.
        to (`str`, *optional*, defaults to `"transformers"`): The layout of the result, or `"published"`.
        dtype (`str` or `torch.dtype`, *optional*): Of the weights. `None`: each as it is stored.
        max_shard_size (`int` or `str`, *optional*, defaults to `"5GB"`): Bytes of the largest file of weights.
        with_code (`bool`, *optional*, defaults to `False`):
            Whether the folder also carries what is needed to load it where this package is not installed.
        verify (`bool`, *optional*, defaults to `False`):
            Whether every weight is compared bit for bit, and a forward pass of source and result.
        force (`bool`, *optional*, defaults to `False`): Whether an older checkpoint at `destination` is replaced.
        hub (`token`, `cache_dir`, `local_files_only`, `force_download`): How the Hub is asked.

    Returns:
        [`Conversion`]: what was done.

    Raises:
        OSError: something cannot be read or written: a file that is missing or damaged, a full disk.
        ValueError: the checkpoint or an option is not supported, or the result is not the source.
    """
    destination = Path(destination)
    if with_code and to != "transformers":
        raise ValueError(f"`with_code` is for the layout of transformers, not for {to!r}.")
    check_vacant(destination, force)
    conversion = plan_conversion(source, revision=revision, to=to, dtype=dtype, max_shard_size=max_shard_size, **hub)
    _check_place(destination, conversion)
    for path in sorted({tensor.path for shard in conversion.shards for tensor in shard.tensors.values()}):
        check_checksum(path)
    with new_folder(destination, force) as folder:
        _write_weights(conversion, folder)
        _write_files(conversion, folder, with_code)
        if verify:
            _verify(conversion, folder)
    return conversion


def _check_place(destination: Path, conversion: Conversion) -> None:
    """Refuses a destination that overlaps the source, or whose disk is too full."""
    check_apart(destination, conversion.folder, "source")
    check_space(destination, conversion.num_bytes)


def _write_weights(conversion: Conversion, folder: Path) -> None:
    metadata = {"format": "pt", "source": conversion.source, "transformers_omnivinci_version": __version__}
    if conversion.revision is not None:
        metadata["source_revision"] = conversion.revision
    write_shards(conversion.shards, conversion.indices, folder, conversion.dtype, metadata, "Converting")


def _write_files(conversion: Conversion, folder: Path, with_code: bool) -> None:
    """What stands beside the weights. The root's config, without which nothing loads the folder, comes last."""
    config, processor = conversion.config, conversion.processor
    conversion.generation_config.save_pretrained(folder)
    if conversion.to == "published":
        write_published_files(config, processor, folder)
        return
    from ..publishing.code import write_code

    _card(conversion, with_code).save(folder / "README.md")
    processor.save_pretrained(folder)
    config.save_pretrained(folder)
    if with_code:
        write_code(folder)


def _card(conversion: Conversion, with_code: bool) -> ModelCard:
    """The source's own card if it tells of another model than the release, whose card is built anew."""
    from ..publishing.card import build_card

    own = conversion.folder / "README.md"
    if conversion.settings is None and own.is_file():
        card = ModelCard.load(own)
        if card.data.model_name != "OmniVinci":
            return card
    return build_card(
        source=conversion.source if conversion.revision else Path(conversion.source),
        revision=conversion.revision,
        with_code=with_code,
        num_parameters=conversion.num_parameters,
        dtype=conversion.config.dtype,
    )


def _verify(conversion: Conversion, folder: Path) -> None:
    """Compares the result with the source, as both are read from their files."""
    places = {(folder / shard.name).parent for shard in conversion.shards}
    written = {place: open_folder(place) for place in places}
    with tqdm(total=conversion.num_bytes, unit="B", unit_scale=True, desc="Verifying", disable=None) as progress:
        for shard in conversion.shards:
            stored = written[(folder / shard.name).parent]
            for key, tensor in shard.tensors.items():
                if not _same_bits(tensor.read().to(conversion.dtype), stored[key].read()):
                    raise ValueError(f"The weight {key} in {shard.name} differs from {tensor.key} in {tensor.path}.")
            progress.update(shard.num_bytes)
    before, after = _run(conversion.folder, conversion), _run(folder, conversion)
    # Not to the bit: what kernels do depends on how a file's pages are aligned.
    difference, scale = (before - after).float().abs().max().item(), before.float().abs().max().item()
    if not difference <= TOLERANCE[before.dtype] * scale:
        raise ValueError(f"The logits of source and result differ by up to {difference:.3g}, of {scale:.3g}.")


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (one, other)))


def _run(folder: Path, conversion: Conversion) -> torch.Tensor:
    """Logits for a prompt with an image, frames and a sound, from the model and the processor of a folder."""
    from ..modeling import OmniVinciForConditionalGeneration
    from ..processing import OmniVinciProcessor

    processor = OmniVinciProcessor.from_pretrained(folder)
    model = OmniVinciForConditionalGeneration.from_pretrained(folder, dtype=conversion.config.dtype)
    ramp = np.arange(2 * 48 * 64 * 3, dtype=np.uint8).reshape(2, 48, 64, 3)
    inputs = processor(
        text=f"{processor.image_token}{processor.video_token}{processor.audio_token}What is this?",
        images=[ramp[0]],
        videos=[(ramp, {"fps": 1.0, "total_num_frames": 2})],
        audio=[np.sin(np.arange(processor.feature_extractor.sampling_rate, dtype=np.float32) / 8)],
        do_sample_frames=False,
        return_tensors="pt",
    )
    with torch.no_grad():
        return model(**inputs.to(model.device, model.dtype), use_cache=False).logits
