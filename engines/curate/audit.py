"""
How much of what real models write about the synthetic world is true: nano as captioner, before correction, after that
by SmolLM2-135M-Instruct, and by rules. Prints the table of docs/data-engine.md.

    python -m engines.curate.audit [--films 6] [--seconds 24] [--model nano] [--corrector rules --corrector smollm2]
"""

import argparse
import tempfile
from pathlib import Path

from engines.curate.real_parts import FOLDER, make_corrector
from engines.curate.servers import serving
from transformers_omnivinci.data_engine.assembly import settings_of
from transformers_omnivinci.data_engine.config import EngineConfig
from transformers_omnivinci.data_engine.engine import HereRunner, curate
from transformers_omnivinci.data_engine.truth_audit import Audit, audit_folder
from transformers_omnivinci.data_engine.typed import read
from transformers_omnivinci.synthetic import write_reels

PROMPTS = str(Path(__file__).parent / "prompts")
CORRECTORS = ("rules", "smollm2")


def configured(model: str, corrector: dict) -> EngineConfig:
    asking = {"backend": "captioner", "max_tokens": 128}
    content = {
        "split": {"segment_seconds": 12, "clip_seconds": 6, "silence": None},
        "backends": {"captioner": {"type": "transformers", "model": model}, "corrector": corrector},
        "stages": {
            "visual_caption": asking,
            "audio_caption": asking,
            "cross_modal_correction": {"backend": "corrector", "max_tokens": 280, "most_rejected": 3},
        },
        "prompts": PROMPTS,
    }
    return read(EngineConfig, content, "the config")


def row(name: str, told) -> str:
    counts = f"{told.wrong_time} | {told.invented} | {told.wrong_modality}"
    precision = f"{told.precision:.1%}" if told.claims else "–"
    return f"| {name} | {told.claims} | {precision} | {told.recall:.1%} | {counts} |"


def tell(title: str, found: Audit, finished: int, rejected: int, with_captions: bool) -> None:
    """Prints the rows of an audit."""
    for name in ("visual", "audio", "both") if with_captions else ():
        print(row(name, found.captions[name]))
    print(
        row(title, found.captions["corrected"]) if "corrected" in found.captions else f"| {title} | none |", flush=True
    )
    told = f"{finished} segments, {rejected} rejected; {found.rejected} statements were rejected that make a claim"
    print(f"<!-- {title}: {told}, of which {found.rightly_rejected} are false -->", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=24)
    parser.add_argument("--model", default="nano", help="A folder, or nano.")
    parser.add_argument("--corrector", action="append", choices=CORRECTORS)
    options = parser.parse_args()
    films = [str(path) for path in write_reels(FOLDER / "audited", options.films, options.seconds, seed=1)]
    print("| captions | claims | precision | recall | wrong time | invented | other sense |")
    print("|---|---|---|---|---|---|---|")

    def measure(title: str, corrector: dict, is_first: bool) -> None:
        config = configured(options.model, corrector)
        with tempfile.TemporaryDirectory() as folder:
            report = curate(config, films, folder, HereRunner())
            tell(title, audit_folder(folder, settings_of(config)), report.finished, report.rejected, is_first)

    for number, name in enumerate(options.corrector or CORRECTORS):
        if name == "rules":
            measure("corrected by rules", {"type": "test-reasoner"}, number == 0)
            continue
        with serving(make_corrector(), FOLDER / "smollm2.log") as url:
            more = {"timeout": 600.0, "parameters": {"repetition_penalty": 1.05, "frequency_penalty": 0.2}}
            server = {"type": "server", "url": url, "model": "SmolLM2-135M-Instruct", "concurrency": 1, **more}
            measure("corrected by SmolLM2", server, number == 0)


if __name__ == "__main__":
    main()
