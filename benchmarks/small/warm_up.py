"""
The warm-up of an assembled model: what hears learns to say at each position which token is heard there, by the
language model's own embedding of it. What the language model then reads is nearly text.

Without, it learns from the loss of transcripts alone which position belongs to which word, which takes very long.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from transformers_omnivinci import OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.modeling.parts import PARTS
from transformers_omnivinci.processing.batch import join
from transformers_omnivinci.training import OmniVinciTrainer, SampleEncoder, get_recipe
from transformers_omnivinci.training.data import read_sample

from .._harness import fastest_attention
from .alignment import Span, tokens_at
from .loading import load

RECIPE = get_recipe("audio-1")
"""It says what learns: the encoder and the projector."""
ENCODER_RATE = 0.1
"""The encoder's learning rate beside the projector's. With the same one it forgets all voices but its own."""
SHARPNESS = 20.0
"""What cosines are multiplied by before they become probabilities."""
NORM_WEIGHT = 0.1


class AlignedSpeech(Dataset):
    """
    Speech with the token that is said at each position of its embeddings.

    Args:
        rows (`Sequence[dict]`): As of `omnivinci train`, with whole paths.
        spans (`Sequence[Sequence[Span]]`): When the tokens of each are said.
        encoder ([`SampleEncoder`]): What makes tensors of the sound.
    """

    def __init__(self, rows: Sequence[dict], spans: Sequence[Sequence[Span]], encoder: SampleEncoder):
        self.rows, self.spans, self.encoder = rows, spans, encoder

    @property
    def tokens(self) -> torch.Tensor:
        """Those that are said anywhere, each once."""
        return torch.unique(torch.tensor([token for spans in self.spans for token, _, _ in spans]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        """The media inputs of the sound, and `tokens` (num_embeddings,)."""
        item = self.encoder.encode(read_sample(self.rows[index], str(index), Path()))
        seconds = item["audio_timestamps"][0]
        tokens = tokens_at(self.spans[index], seconds[seconds >= 0].numpy())
        return {**join([item]), "tokens": torch.from_numpy(tokens)}


def collate(items: Sequence[dict]) -> dict:
    """The media and the tokens of all items, one after another."""
    return {**join(items), "tokens": torch.cat([item["tokens"] for item in items])}


def likeness_loss(embeddings: torch.Tensor, tokens: torch.Tensor, vocabulary: torch.Tensor, table: torch.Tensor):
    """
    How unlike the embeddings are to those of the tokens that are heard: the cross entropy over cosines with all that
    are told apart, and how far lengths are from theirs.

    Args:
        embeddings (`torch.Tensor` of shape `(num_embeddings, hidden_size)`): What the projector gives.
        tokens (`torch.Tensor` of shape `(num_embeddings,)`): [`IGNORED`] where nothing is said.
        vocabulary (`torch.Tensor` of shape `(num_tokens,)`): What is told apart, in order.
        table (`torch.Tensor` of shape `(vocabulary, hidden_size)`): The language model's embeddings.

    Returns:
        `torch.Tensor`, `torch.Tensor`: the loss, and the cosines `(num_heard, num_tokens)` of what is said.
    """
    heard = tokens != IGNORED
    embeddings, known = embeddings[heard].float(), table[vocabulary].float()
    cosines = nn.functional.normalize(embeddings, dim=1) @ nn.functional.normalize(known, dim=1).T
    loss = nn.functional.cross_entropy(SHARPNESS * cosines, torch.searchsorted(vocabulary, tokens[heard]))
    lengths = embeddings.norm(dim=1) / known.norm(dim=1).mean()
    return loss + NORM_WEIGHT * lengths.log().square().mean(), cosines


def embed(model: OmniVinciForConditionalGeneration, inputs: dict) -> torch.Tensor:
    """What the projector gives of sounds, before seconds are rotated into it: (num_embeddings, hidden_size)."""
    names = ("input_features", "audio_timestamps", "audio_num_windows")
    media = {name: inputs[name].to(model.device) for name in names}
    return torch.cat(model.model.get_audio_features(**media, output_projected_embeddings=True).projected_embeddings)


class WarmUpTrainer(OmniVinciTrainer):
    """
    [`OmniVinciTrainer`] by [`AlignedSpeech`]: the language model is not run.

    Args:
        model, args, dataset, processor: As of [`OmniVinciTrainer`].
        recipe: What learns of the parts of sound.
    """

    def __init__(self, model, args, dataset: AlignedSpeech, processor, recipe):
        super().__init__(model, args, dataset, None, processor, recipe=recipe, data_collator=collate)
        self.vocabulary = dataset.tokens

    def create_optimizer(self, *args):
        if self.optimizer is None:
            rates = dict.fromkeys(PARTS["audio_encoder"], ENCODER_RATE * self.args.learning_rate)
            groups = [
                {"params": list(module.parameters()), "lr": rates.get(name, self.args.learning_rate)}
                for name, module in self.recipe.trained_modules(self._base).items()
            ]
            self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        tokens = inputs.pop("tokens")
        table = model.get_input_embeddings().weight.detach()
        with self.accelerator.autocast():  # which it does by itself where the whole model runs
            loss, cosines = likeness_loss(embed(model, inputs), tokens, self.vocabulary.to(table.device), table)
        return (loss, cosines) if return_outputs else loss


def warm_up(checkpoint: Path, rows: Sequence[dict], spans: Sequence[Sequence[Span]], output: Path, **options) -> Path:
    """
    Warms up a checkpoint, or goes on with that.

    Args:
        checkpoint: The assembled one.
        rows, spans: As of [`AlignedSpeech`].
        output: The folder of the run, and of the result.
        options: Of [`~transformers.TrainingArguments`].
    """
    if (output / "config.json").is_file():
        return output
    quiet = {"report_to": "none", "logging_steps": 50, "disable_tqdm": True}
    arguments = TrainingArguments(str(output), **quiet | RECIPE.training_arguments | options)
    set_seed(arguments.seed)
    processor = OmniVinciProcessor.from_pretrained(checkpoint)
    attention = fastest_attention(arguments.use_cpu, arguments.bf16)
    model = OmniVinciForConditionalGeneration.from_pretrained(checkpoint, attn_implementation=attention)
    dataset = AlignedSpeech(rows, spans, SampleEncoder(processor))
    trainer = WarmUpTrainer(model, arguments, dataset, processor, RECIPE)
    trainer.train(resume_from_checkpoint=output.is_dir() and get_last_checkpoint(str(output)) or None)
    trainer.save_state()
    trainer.save_model()
    return output


@torch.no_grad()
def share_heard(checkpoint: Path, rows: Sequence[dict], spans: Sequence[Sequence[Span]]) -> float:
    """
    At how many of the positions where something is said the embedding is nearest to that token, of all that are said
    in these rows.

    Args:
        checkpoint: A model.
        rows, spans: As of [`AlignedSpeech`].
    """
    model, processor = load(checkpoint)
    dataset = AlignedSpeech(rows, spans, SampleEncoder(processor))
    vocabulary, table = dataset.tokens.to(model.device), model.get_input_embeddings().weight
    right = []
    for index in range(len(dataset)):
        inputs = dataset[index]
        tokens = inputs.pop("tokens").to(model.device)
        _, cosines = likeness_loss(embed(model, inputs), tokens, vocabulary, table)
        right.append(vocabulary[cosines.argmax(1)] == tokens[tokens != IGNORED])
    return torch.cat(right).float().mean().item()
