"""
Loading and converting: the most memory that `from_pretrained` holds, against the size of the weights where they end,
and the most that `convert` holds, against the largest file that it writes.

The checkpoint is random and has the folders, names and shards of the published layout; its transformers layout is
what `save_pretrained` writes. Each way of loading has a process of its own.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoProcessor

from transformers_omnivinci import OmniVinciForConditionalGeneration
from transformers_omnivinci.conversion import convert
from transformers_omnivinci.conversion.weights import to_published

from ._harness import MB, PeakMemory, Report, in_fresh_process

NOTE = (
    "Memory of the process beyond what it held before. Weights that need no conversion stay memory-mapped; the peak "
    "is these and all that is not mapped. Other pages of the files, which the kernel drops when it needs room, count "
    "in the last column alone."
)
TINY = Path(__file__).parent.parent / "tests" / "fixtures" / "parity" / "published-tiny"
SIZES = {
    "llm": {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16, "vocab_size": 32_768},
    "vision_tower": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "sound_tower": {"d_model": 768, "encoder_ffn_dim": 3072, "encoder_attention_heads": 12},
}
"""Of the tiny checkpoint everything else is kept, but for the depth of the language model."""
SHARD_SIZE = 1e9


def write_published(folder: Path, num_bytes: float) -> None:
    """A random float32 checkpoint of about `num_bytes` in the published layout."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    for component, sizes in SIZES.items():
        _edit(folder / component / "config.json", **sizes)
    model = _with_layers(folder, 1)
    layer = sum(weight.nbytes for weight in model.model.language_model.layers[0].parameters())
    model = _with_layers(folder, 1 + max(0, round((num_bytes - _num_bytes(model)) / layer)))
    components = {}
    for name, weight in model.state_dict().items():
        component, key = to_published(name)
        components.setdefault(component, {})[key] = weight
    for component, weights in components.items():
        _write_shards(folder / component, weights)


def _edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _with_layers(folder: Path, num_layers: int) -> OmniVinciForConditionalGeneration:
    """Sets the depth of the language model; the model that this makes, without memory."""
    _edit(folder / "llm" / "config.json", num_hidden_layers=num_layers)
    with torch.device("meta"):
        return OmniVinciForConditionalGeneration(AutoConfig.from_pretrained(folder))


def _write_shards(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    shards, weight_map, size = [[]], {}, 0
    for name, weight in weights.items():
        if size + weight.nbytes > SHARD_SIZE and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += weight.nbytes
    for index, names in enumerate(shards, 1):
        file = f"model-{index:05}-of-{len(shards):05}.safetensors"
        tensors = {name: torch.empty(weights[name].shape).uniform_(-0.02, 0.02) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def save_transformers_layout(published: Path, folder: Path) -> None:
    AutoModel.from_pretrained(published).save_pretrained(folder, max_shard_size=int(SHARD_SIZE))
    AutoProcessor.from_pretrained(published).save_pretrained(folder)


class AnonymousMemory:
    """
    Memory that is not mapped from files, beyond what was there before a `with` block: the `most` inside, by looking
    often, and the bytes `left` at its end.
    """

    def __enter__(self) -> "AnonymousMemory":
        self._before, self._done, self.most = _anonymous(), threading.Event(), 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, _anonymous() - self._before)

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()
        self.left = _anonymous() - self._before
        self.most = max(self.most, self.left)


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("The kernel does not tell the anonymous memory of a process (RssAnon).")


def _num_bytes(model: torch.nn.Module) -> int:
    """Of the weights that are in memory, or of all weights of a model without any."""
    weights = [*model.parameters(), *model.buffers()]
    return sum(weight.nbytes for weight in weights if not weight.is_meta) or sum(weight.nbytes for weight in weights)


def measure(layout: str, folder: Path, way: str, options: dict) -> dict:
    """A row: loads in this process, which should have done nothing before."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as offload_folder:
        if "max_memory" in options:
            options = options | {"offload_folder": offload_folder}
        AutoModel.from_pretrained(TINY, device_map="cpu")  # so that whatever is imported late is imported
        with PeakMemory() as peak, AnonymousMemory() as anonymous:
            start = time.perf_counter()
            model = AutoModel.from_pretrained(folder, **options)
            seconds = time.perf_counter() - start
            for weight in model.parameters():
                weight.sum()  # reads it, should it be mapped
    size = _num_bytes(model)
    mapped = max(0, size - anonymous.left)
    return {
        "layout": layout,
        "way": way,
        "time (s)": seconds,
        "weights in memory (MB)": size / MB,
        "of them mapped (MB)": mapped / MB,
        "peak (MB)": (mapped + anonymous.most) / MB,
        "peak/weights ×": (mapped + anonymous.most) / size,
        "with all pages (MB)": peak.bytes / MB,
    }


def ways_of_loading(num_bytes: float) -> dict[str, dict]:
    """Options of `from_pretrained` by name, for a checkpoint of `num_bytes`."""
    return {
        "as stored": {},
        'device_map="cpu"': {"device_map": "cpu"},
        'device_map="auto"': {"device_map": "auto"},
        "partly on disk": {"device_map": "auto", "max_memory": {"cpu": int(num_bytes * 2 / 3)}},
        "bfloat16": {"dtype": "bfloat16"},
        'bfloat16, device_map="auto"': {"dtype": "bfloat16", "device_map": "auto"},
        "bfloat16, partly on disk": {
            "dtype": "bfloat16",
            "device_map": "auto",
            "max_memory": {"cpu": int(num_bytes / 3)},
        },
    }


def measure_conversion(folder: Path, way: str, options: dict) -> dict:
    """A row: converts in this process, which should have done nothing before."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        convert(TINY, Path(place, "tiny"))  # so that whatever is imported late is imported
        with PeakMemory() as peak, AnonymousMemory() as anonymous:
            start = time.perf_counter()
            done = convert(folder, Path(place, "out"), max_shard_size=int(SHARD_SIZE / 4), **options)
            seconds = time.perf_counter() - start
    largest = max(shard.num_bytes for shard in done.shards)
    return {
        "way": way,
        "time (s)": seconds,
        "weights (MB)": done.num_bytes / MB,
        "largest file (MB)": largest / MB,
        "peak (MB)": anonymous.most / MB,
        "peak/file ×": anonymous.most / largest,
        "with all pages (MB)": peak.bytes / MB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", type=float, default=2.5, help="of the checkpoint in GB (default: 2.5)")
    parser.add_argument("--folder", type=Path, help="where it is written for the time (default: that of the system)")
    arguments = parser.parse_args()
    report = Report("load", vars(arguments), NOTE)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        layouts = {"published": Path(folder, "published"), "transformers": Path(folder, "transformers")}
        write_published(layouts["published"], arguments.size * 1e9)
        in_fresh_process(save_transformers_layout, *layouts.values())
        rows = [
            in_fresh_process(measure, layout, path, way, options)
            for way, options in ways_of_loading(arguments.size * 1e9).items()
            for layout, path in layouts.items()
        ]
        conversions = {
            "to transformers": {},
            "to transformers in bfloat16": {"dtype": "bfloat16"},
            "to published": {"to": "published"},
        }
        sources = {"to published": layouts["transformers"]}
        converted = [
            in_fresh_process(measure_conversion, sources.get(way, layouts["published"]), way, options)
            for way, options in conversions.items()
        ]
    report.add("Peak memory of loading (wanted: at most 1.15 times the weights)", rows)
    report.add("Peak memory of converting (wanted: about one file)", converted)
    report.save()


if __name__ == "__main__":
    main()
