"""
Loading: the most memory that `from_pretrained` holds, against the size of the weights where they end.

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
from transformers import AutoConfig, AutoModel

from transformers_omnivinci import OmniVinciForConditionalGeneration
from transformers_omnivinci.conversion.published_layout import KEY_PREFIXES

from ._harness import MB, PeakMemory, Report, in_fresh_process

NOTE = (
    "Memory of the process beyond what it held before. The peak is what cannot be taken back: memory-mapped pages of "
    "the checkpoint, which the kernel drops when it needs room, stand apart."
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
    num_layers = 1
    while True:
        for component, sizes in SIZES.items():
            depth = {"num_hidden_layers": num_layers} if component == "llm" else {}
            path = folder / component / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | sizes | depth))
        with torch.device("meta"):
            model = OmniVinciForConditionalGeneration(AutoConfig.from_pretrained(folder))
        layer = sum(weight.nbytes for weight in model.model.language_model.layers[0].parameters())
        missing = round((num_bytes - _num_bytes(model)) / layer)
        if missing <= 0 or num_layers > 1:
            break
        num_layers += missing
    for component, prefixes in KEY_PREFIXES.items():
        named = {}
        for name, weight in model.state_dict().items():
            old, new = next(((old, new) for old, new in prefixes.items() if name.startswith(new)), (None, None))
            if new is not None:
                named[old + name.removeprefix(new)] = weight
        _write_shards(folder / component, named)


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


class SampledMemory:
    """The most anonymous memory inside a `with` block beyond what was there before, `bytes`, by looking often."""

    def __enter__(self) -> "SampledMemory":
        self.before = self.most = _anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, _anonymous())

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()
        self.bytes = max(self.most, _anonymous()) - self.before


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("The kernel does not tell the anonymous memory of a process (RssAnon).")


def _num_bytes(model: torch.nn.Module) -> int:
    """Of the weights that are in memory; tied ones count once."""
    weights = {id(weight): weight for weight in [*model.parameters(), *model.buffers()]}
    on_meta = all(weight.is_meta for weight in weights.values())
    return sum(weight.nbytes for weight in weights.values() if on_meta or not weight.is_meta)


def measure(layout: str, folder: Path, way: str, options: dict) -> dict:
    """A row: loads in this process, which should have done nothing before."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as offload_folder:
        if "max_memory" in options:
            options = options | {"offload_folder": offload_folder}
        AutoModel.from_pretrained(TINY, device_map="cpu")  # so that whatever is imported late is imported
        with PeakMemory() as peak, SampledMemory() as anonymous:
            start = time.perf_counter()
            model = AutoModel.from_pretrained(folder, **options)
            seconds = time.perf_counter() - start
        size = _num_bytes(model)
        return {
            "layout": layout,
            "way": way,
            "time (s)": seconds,
            "weights (MB)": size / MB,
            "peak (MB)": anonymous.bytes / MB,
            "peak/weights ×": anonymous.bytes / size,
            "with mapped pages (MB)": peak.bytes / MB,
        }


def ways_of_loading(num_bytes: float) -> dict[str, dict]:
    """Options of `from_pretrained` by name, for a checkpoint of `num_bytes`."""
    return {
        "as stored": {},
        'device_map="cpu"': {"device_map": "cpu"},
        'device_map="auto"': {"device_map": "auto"},
        "a third or more on disk": {"device_map": "auto", "max_memory": {"cpu": int(num_bytes * 2 / 3)}},
        "bfloat16": {"dtype": "bfloat16"},
        'bfloat16, device_map="auto"': {"dtype": "bfloat16", "device_map": "auto"},
        "bfloat16, a third or more on disk": {
            "dtype": "bfloat16",
            "device_map": "auto",
            "max_memory": {"cpu": int(num_bytes / 3)},
        },
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
    report.add("Peak memory of loading (wanted: at most 1.15 times the weights)", rows)
    report.save()


if __name__ == "__main__":
    main()
