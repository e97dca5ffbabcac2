"""
The whole data engine with real models: `make curate-demo`.

    python -m engines.curate.demo [--output build/curate/demo]

nano captions what is seen and what is heard, and Whisper tiny.en writes down what is spoken; SmolLM2-135M-Instruct
corrects, asks and judges; espeak-ng speaks. Models are asked through `omnivinci serve`, stages run on Ray, and nano is
trained on what comes out. Nothing is opened but files and ports of this machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

from engines.curate.real_parts import FOLDER, make_corrector, make_films, make_whisper
from engines.curate.servers import serving
from transformers_omnivinci import NANO
from transformers_omnivinci.data_engine.engine import CHATS, REJECTS
from transformers_omnivinci.data_engine.segment_ledger import FILE

HERE = Path(__file__).parent
STEPS = 6


def configure(path: Path, **places: str) -> Path:
    """The config with the places of models and prompts, in a file."""
    config = yaml.safe_load((HERE / "demo.yaml").read_text())
    for options in config["backends"].values():
        options.update({name: options[name].format(**places) for name in ("url", "model") if name in options})
    config["prompts"] = str(HERE / "prompts")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def omnivinci(*words: object) -> None:
    """Runs a command of the package, and ends where it fails."""
    command = [sys.executable, "-m", "transformers_omnivinci.cli", *map(str, words)]
    print("\n$ omnivinci", *words[:1], "...", flush=True)
    if code := subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}).returncode:
        sys.exit(code)


def tell(output: Path) -> None:
    """Prints what came out, segment by segment, as it is."""
    for line in (output / FILE).read_text().splitlines()[1:]:
        row = json.loads(line)
        print(f"\n{Path(row['source']).name}, {row.get('start', 0):g} to {row.get('end', 0):g} s")
        for place in range(len(row.get("clips", []))):
            for name, title in (("visual_captions", "seen"), ("audio_captions", "heard"), ("speech", "spoken")):
                if row.get(name):
                    print(f"  clip {place}, {title}: {row[name][place]}")
        if "omni_caption" in row:
            print(f"  corrected: {row['omni_caption']}")
        for one in row.get("rejected_statements", []):
            print(f"  rejected, {one['sense']}, clip {one['clip']}: {one['statement']} ({one['reason']})")
        for one in row.get("questions", []):
            options = f" Options: {'; '.join(one['options'])}." if one["options"] else ""
            print(f"  {one['category']}: {one['question']}{options} Answer: {one['answer']}")
            print(f"    Reasoning: {one['reasoning']}")
            print(f"    Marks: {', '.join(one['marks']) or 'none'}; {one['speech'] or 'written'}")
        for one in row.get("unusable_questions", []):
            print(f"  unusable: {one['question']} ({one['reason']})")
    for line in (output / REJECTS).read_text().splitlines():
        row = json.loads(line)
        print(f"\nRejected by {row['stage']}: {Path(row['source']).name}: {row['reason']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--output", type=Path, default=FOLDER / "demo")
    output, started = parser.parse_args().output, time.monotonic()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    films, places = make_films(), {"whisper": str(make_whisper())}
    with serving("nano", output / "nano.log") as nano, serving(make_corrector(), output / "smollm2.log") as smollm2:
        config = configure(output / "engine.yaml", nano=nano, smollm2=smollm2, **places)
        omnivinci("curate", *films, "--config", config, "--output", output / "curated")
    curated = output / "curated"
    tell(curated)
    if not (curated / CHATS).read_text():
        sys.exit("No segment went through all stages: there is nothing to train on.")
    data = ("--recipe", "full", "--model", NANO, "--data", curated / CHATS, "--output", output / "trained")
    options = ("--max-steps", STEPS, "--per-device-train-batch-size", 1, "--use-cpu", "True", "--save-strategy", "no")
    omnivinci("train", *data, *options, "--logging-steps", 1, "--report-to", "none", "--learning-rate", 1e-4)
    state = json.loads((output / "trained" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    print(f"\nTrained for {len(losses)} steps, loss {losses[0]:.2f} to {losses[-1]:.2f}.")
    print(f"The whole took {(time.monotonic() - started) / 60:.1f} minutes; everything is in {output}.")


if __name__ == "__main__":
    main()
