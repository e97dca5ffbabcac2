"""
Quantizing: nano by each recipe, against nano as it is.

Each recipe is carried out by the code of `omnivinci quantize`, calibrated on chats of the training split. The results
are loaded by transformers and asked about clips of the test split, which no model has seen.
"""

import argparse
import functools
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import torch

from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.evaluation.synthetic import answer_rows, chat_of, read_rows, score_answers
from transformers_omnivinci.labels import IGNORED
from transformers_omnivinci.processing.batch import OmniVinciBatchFeature, select_media
from transformers_omnivinci.quantization.compressor import Request, quantize
from transformers_omnivinci.quantization.recipes import QUANTIZATION_RECIPES
from transformers_omnivinci.synthetic import CLOSED_TYPES, SyntheticDataset, write_dataset
from transformers_omnivinci.training.data_sources import DataSource
from transformers_omnivinci.training.encoding import SampleEncoder

from . import _harness
from ._harness import MB, RESULTS, PeakMemory, Report, in_fresh_process, take_turns, to_markdown

_harness.PACKAGES += ("llmcompressor", "compressed-tensors")
ORIGINAL = "bfloat16"
NOTE = (
    "transformers unpacks quantized weights in the first forward and rounds activations itself, without kernels for "
    "them: this shows how well a recipe answers, not how fast it can be. Engines with kernels, such as vLLM, keep the "
    "weights packed."
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantize", description=__doc__.split("\n\n")[0])
    parser.add_argument("--clips-per-type", type=int, default=100, help="clips for each type of question")
    parser.add_argument("--calibration-chats", type=int, default=64, help="chats that recipes are calibrated with")
    parser.add_argument("--recipes", nargs="+", default=list(QUANTIZATION_RECIPES), choices=QUANTIZATION_RECIPES)
    parser.add_argument("--folder", type=Path, help="keeps clips and checkpoints, and goes on with those of before")
    parser.add_argument("--jobs", type=int, default=2, help="models that are made, and asked, at a time (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which speed is measured")
    arguments = parser.parse_args()
    report = Report("quantize", vars(arguments), NOTE)
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoints = {ORIGINAL: NANO}
        chats = write_dataset(folder / "train", SyntheticDataset("train", arguments.calibration_chats, seed=90_001))
        jobs = stack.enter_context(ThreadPoolExecutor(arguments.jobs))  # each waits for a process
        making = []
        for recipe in arguments.recipes:
            checkpoints[recipe] = str(folder / recipe)
            if not Path(checkpoints[recipe]).is_dir():  # where it is, it is whole
                making.append(jobs.submit(in_fresh_process, make, recipe, checkpoints[recipe], chats))
        questions = SyntheticDataset("test", len(CLOSED_TYPES) * arguments.clips_per_type, 0, None, CLOSED_TYPES)
        test = write_dataset(folder / "test", questions, num_workers=2)
        for made in making:
            made.result()
        asking = {
            name: jobs.submit(in_fresh_process, answer, checkpoint, test) for name, checkpoint in checkpoints.items()
        }
        answered = {name: answers.result() for name, answers in asking.items()}
        timings = compare_speed(checkpoints, test, arguments.rounds)
        divergences = compare_logits(checkpoints, test)
    sizes = [
        {
            "weights": name,
            "on disk (MB)": f"{answered[name]['on disk'] / MB:.2f}",
            "as loaded (MB)": f"{answered[name]['loaded'] / MB:.2f}",
            "after a forward (MB)": f"{answered[name]['in use'] / MB:.2f}",
            "peak of the process beyond imports (MB)": answered[name]["peak"] / MB,
            "KL to bfloat16 (nats)": divergences[name],
            "encoding, of bfloat16 ×": timings["encode"].ratio(ORIGINAL, name),
            "decoding, of bfloat16 ×": timings["decode"].ratio(ORIGINAL, name),
        }
        for name in checkpoints
    ]
    report.add("Size, memory, likeness and speed (above 1: faster)", sizes)
    scores = {name: answered[name]["scores"] for name in checkpoints}
    means = {name: statistics.mean(scores[name].values()) for name in checkpoints}
    rights = [
        {
            "weights": name,
            **{f"{kind} (%)": f"{100 * share:.1f}" for kind, share in scores[name].items()},
            "mean (%)": f"{100 * means[name]:.1f}",
            "change (points)": f"{100 * (means[name] - means[ORIGINAL]):+.1f}",
            "answers that differ": sum(
                one != other for one, other in zip(answered[name]["answers"], answered[ORIGINAL]["answers"])
            ),
        }
        for name in checkpoints
    ]
    report.add(f"Right answers of {len(questions)}, seen and heard", rights)
    report.save()
    text = "\n\n".join(to_markdown(rows) for rows in (sizes, rights))
    (RESULTS / "quantize.md").write_text(text + "\n")
    print(text)


def make(recipe: str, destination: str, chats: Path) -> None:
    """Quantizes nano."""
    quantize(Request(NANO, destination, recipe, chats), device_map="cpu")


def load(checkpoint: str) -> OmniVinciForConditionalGeneration:
    return OmniVinciForConditionalGeneration.from_pretrained(checkpoint, dtype="auto").eval()


def held(model: torch.nn.Module) -> int:
    """Bytes of all weights and scales."""
    return sum(tensor.nbytes for tensor in {id(one): one for one in model.state_dict().values()}.values())


def answer(checkpoint: str, test: Path) -> dict:
    """Answers all questions, and measures memory meanwhile."""
    import compressed_tensors  # noqa: F401  # which transformers would import inside

    rows, processor = read_rows(test), OmniVinciProcessor.from_pretrained(checkpoint)
    with PeakMemory() as peak:
        model = load(checkpoint)
        loaded = held(model)
        answers = answer_rows(model, processor, rows, test.parent)
    return {
        "on disk": sum(file.stat().st_size for file in Path(checkpoint).glob("*.safetensors")),
        "loaded": loaded,
        "in use": held(model),
        "peak": peak.bytes,
        "answers": answers,
        "scores": {score.type: score.accuracy for score in score_answers(rows, answers)},
    }


@torch.no_grad()
def compare_logits(checkpoints: dict[str, str], test: Path) -> dict[str, float]:
    """The mean divergence of the next token from that of the original, over all tokens of the right answers."""
    encoder, rows = SampleEncoder(OmniVinciProcessor.from_pretrained(NANO)), DataSource(test).open()
    models = {name: load(checkpoint) for name, checkpoint in checkpoints.items()}
    found = {name: [] for name in models}
    for index in range(0, len(rows), max(1, len(rows) // 210)):
        sample = encoder.encode(rows.sample(index))
        targets = (sample["labels"] != IGNORED).nonzero()[:, 0] - 1  # logits are of the token after
        inputs = {name: value for name, value in sample.items() if name not in ("labels", "sample_ids")}
        inputs = OmniVinciBatchFeature(inputs | {"input_ids": inputs["input_ids"][None]}).to(models[ORIGINAL].dtype)
        logs = {name: model(**inputs).logits[0, targets].float().log_softmax(-1) for name, model in models.items()}
        for name, log in logs.items():
            found[name] += torch.nn.functional.kl_div(log, logs[ORIGINAL], reduction="none", log_target=True).sum(-1)
    return {name: torch.stack(values).mean().item() for name, values in found.items()}


@torch.no_grad()
def compare_speed(checkpoints: dict[str, str], test: Path, rounds: int) -> dict:
    """Encoding the media of 8 clips, and decoding 64 tokens about each of them, of all models in turns."""
    processor, rows = OmniVinciProcessor.from_pretrained(NANO), read_rows(test)[:8]
    models = {name: load(checkpoint) for name, checkpoint in checkpoints.items()}
    inputs = processor.apply_chat_template(
        [chat_of(row, test.parent) for row in rows],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        load_audio_from_video=True,
        return_tensors="pt",
    ).to(models[ORIGINAL].dtype)
    media = select_media(inputs)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    encoded = {name: model.encode_media(**media) for name, model in models.items()}
    options = {"max_new_tokens": 64, "min_new_tokens": 64, "do_sample": False}
    encode = {name: functools.partial(model.encode_media, **media) for name, model in models.items()}
    decode = {
        name: functools.partial(model.generate, **text, mm_encoder_outputs=encoded[name], **options)
        for name, model in models.items()
    }
    return {"encode": take_turns(encode, rounds), "decode": take_turns(decode, rounds)}


if __name__ == "__main__":
    main()
