"""The model card of a repository: `model_card.md`, the paper's results, and where the weights come from."""

import os
import re
from contextlib import suppress
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..version import __version__
from .paper_results import PAPER_RESULTS

BASE_MODEL = "nvidia/omnivinci"
TEMPLATE = Path(__file__).with_name("model_card.md")


def build_card(
    *,
    source: str | os.PathLike = BASE_MODEL,
    revision: str | None = None,
    repo_id: str | None = None,
    with_code: bool = False,
    num_parameters: int | None = None,
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
) -> ModelCard:
    """
    The model card of a repository that holds an OmniVinci. The same arguments give the same text.

    Args:
        source (`str` or `Path`, defaults to `"nvidia/omnivinci"`):
            Where the weights come from: an id of the Hub, or a folder, of which the card tells the name alone.
        revision (`str`, *optional*): The revision of the source.
        repo_id (`str`, *optional*):
            The repository that the snippets load. Default: `"nvidia/omnivinci"`, or with code the folder of the card.
        with_code (`bool`, *optional*, defaults to `False`):
            Whether the repository carries its code, so that the snippets load it without this package.
        num_parameters (`int`, *optional*): How many parameters the repository holds.
        dtype (`str` or `torch.dtype`, *optional*): In which dtype it holds them.
        quantization (`str`, *optional*): How they were quantized, as `omnivinci quantize` says it.

    Raises:
        ValueError: `repo_id` is no id of the Hub, or `dtype` no dtype of torch.
    """
    if repo_id is not None:
        validate_repo_id(repo_id)
    source_name, is_hub_id = Path(source).resolve().name, False  # of the path of a folder the last part
    if isinstance(source, str) and not os.path.isdir(source):
        with suppress(HFValidationError):
            validate_repo_id(source)
            source_name, is_hub_id = source, True
    template = ModelCard.load(TEMPLATE)
    data = template.data
    data.base_model = source_name if is_hub_id else BASE_MODEL
    if quantization is not None:
        data.base_model_relation = "quantized"
    # Of a model that was trained further the paper says nothing.
    if data.base_model == BASE_MODEL:
        data.model_name = "OmniVinci"
        data.eval_results = [result for table in PAPER_RESULTS for result in table.eval_results()]
    return ModelCard.from_template(
        data,
        # Jinja drops one line feed at the end.
        template_str=f"---\n{{{{ card_data }}}}\n---\n{template.text}\n",
        checkpoint=repo_id or ("." if with_code else BASE_MODEL),
        with_code=with_code,
        source=source_name,
        is_hub_id=is_hub_id,
        revision=revision,
        version=__version__,
        weights=describe_weights(num_parameters, dtype),
        quantization=quantization,
        results="\n\n".join(table.to_markdown() for table in PAPER_RESULTS),
    )


def name_repository(card: ModelCard, repo_id: str) -> ModelCard:
    """The same card with snippets that load `repo_id`, an id of the Hub: in the line `checkpoint = "..."`, if any."""
    validate_repo_id(repo_id)
    return ModelCard(re.sub(r'^checkpoint = ".*$', f'checkpoint = "{repo_id}"', card.content, flags=re.MULTILINE))


def describe_weights(num_parameters: int | None, dtype: str | torch.dtype | None) -> str | None:
    """As in "8,730,535,584 parameters in bfloat16 (17.5 GB)", with what is known."""
    if dtype is None:
        return None if num_parameters is None else f"{num_parameters:,} parameters"
    name = str(dtype).removeprefix("torch.")
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(
            f"`dtype={name!r}` is not supported: it must be a dtype of torch, such as 'bfloat16' or 'float32'."
        )
    if num_parameters is None:
        return f"parameters in {name}"
    size = num_parameters * dtype.itemsize
    unit, scale = ("GB", 1e9) if size >= 1e8 else ("MB", 1e6)
    return f"{num_parameters:,} parameters in {name} ({size / scale:.1f} {unit})"
