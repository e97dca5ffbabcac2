"""Conversion between the layouts: what is written, that it is the same model, and that it is whole or absent."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoProcessor
from typer.testing import CliRunner

from transformers_omnivinci import OmniVinciForConditionalGeneration, __version__, weight_shards
from transformers_omnivinci.cli import app
from transformers_omnivinci.conversion import convert, converter
from transformers_omnivinci.conversion.settings import read_settings

from .checkpoints import edit, edit_encoder, edit_weights, files_of, tensors_of
from .conftest import PARITY
from .processes import run_python

NAMES = ["published-tiny", "published-tiny-maxpool", "published-tiny-short-groups"]
TINY = PARITY / "published-tiny"
COMPONENTS = {"llm", "vision_tower", "sound_tower", "mm_projector", "sound_mm_projector"}


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8)


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def run(*arguments):
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """`published-tiny` in the layout of transformers, in several files."""
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    convert(TINY, folder, max_shard_size="300KB")
    return folder


@pytest.fixture(scope="module")
def back(tmp_path_factory):
    """Published checkpoints that were converted to the layout of transformers and back, and verified both times."""
    root = tmp_path_factory.mktemp("back")

    def back(name):
        if not (root / name).exists():
            convert(PARITY / name, root / f"{name}-there", verify=True)
            convert(root / f"{name}-there", root / name, to="published", max_shard_size="200KB", verify=True)
        return root / name

    return back


# -------------------------------------------------------------------------------------------------- the same model


@pytest.mark.compat
@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_there_and_back_every_weight_is_the_same_to_the_bit(name, back):
    for component in COMPONENTS:
        before, after = tensors_of(PARITY / name / component), tensors_of(back(name) / component)
        dropped = before.keys() - after.keys()
        assert not after.keys() - before.keys()
        # Nothing reads the last layer of the image encoder, its norm and its head.
        assert all("layers.2." in key or "post_layernorm" in key or ".head." in key for key in dropped)
        assert dropped if component == "vision_tower" else not dropped
        for key, tensor in after.items():
            assert tensor.dtype == before[key].dtype and torch.equal(bits(tensor), bits(before[key])), key


@pytest.mark.compat
@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
def test_there_and_back_every_setting_is_the_same(name, back):
    for auto_class in (AutoConfig, AutoProcessor):
        before, after = (auto_class.from_pretrained(folder).to_dict() for folder in (PARITY / name, back(name)))
        for values in (before, after):
            values.pop("_name_or_path", None)
        assert after == before
    assert read_settings(back(name)).ignored.keys() & {"config.json: model_type"}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 4])
def test_merges_that_the_release_lacks_come_back_too(size, tmp_path):
    processor = AutoProcessor.from_pretrained(TINY)
    config = AutoConfig.from_pretrained(TINY)
    config.spatial_merge_size = processor.spatial_merge_size = size
    torch.manual_seed(0)
    model = OmniVinciForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "there")
    processor.save_pretrained(tmp_path / "there")
    convert(tmp_path / "there", tmp_path / "back", to="published", verify=True)
    again = AutoModel.from_pretrained(tmp_path / "back")
    assert again.config.spatial_merge_size == size
    assert AutoProcessor.from_pretrained(tmp_path / "back").spatial_merge_size == size
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(weight, again.state_dict()[key]) for key, weight in model.state_dict().items())


@pytest.mark.compat
def test_what_is_written_loads_with_the_classes_of_transformers(converted, load_checkpoint):
    published, _ = load_checkpoint()
    model, processor = AutoModel.from_pretrained(converted), AutoProcessor.from_pretrained(converted)
    assert all(torch.equal(weight, published.state_dict()[key]) for key, weight in model.state_dict().items())
    assert model.generation_config.pad_token_id == published.generation_config.pad_token_id
    assert "<vila/video>" in processor.apply_chat_template([{"role": "user", "content": [{"type": "video"}]}])


@pytest.mark.compat
def test_every_file_that_a_repository_needs_is_written(converted):
    shards = sorted(path.name for path in converted.glob("*.safetensors"))
    assert shards == [f"model-{index:05}-of-00004.safetensors" for index in range(1, 5)]
    assert {path.name for path in converted.iterdir()} - set(shards) == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    index = json.loads((converted / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert index["weight_map"].keys() == tensors_of(converted).keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors_of(converted).values())
    assert all(path.stat().st_mode & 0o444 == converted.stat().st_mode & 0o444 for path in converted.iterdir())


def test_a_checkpoint_may_be_written_anew_in_its_own_layout(converted, tmp_path):
    convert(converted, tmp_path / "one", dtype="bfloat16")
    assert AutoModel.from_pretrained(tmp_path / "one").dtype == torch.bfloat16
    convert(TINY, tmp_path / "two", to="published", dtype="float16")
    assert AutoModel.from_pretrained(tmp_path / "two").dtype == torch.float16


def test_a_dtype_casts_every_weight(converted, tmp_path):
    done = convert(TINY, tmp_path / "half", dtype=torch.bfloat16, verify=True)
    before, after = tensors_of(converted), tensors_of(tmp_path / "half")
    assert all(torch.equal(after[key], tensor.bfloat16()) for key, tensor in before.items())
    assert done.num_bytes == sum(tensor.nbytes for tensor in after.values())
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_without_a_dtype_each_weight_keeps_its_own(checkpoint, tmp_path):
    path = checkpoint / "mm_projector" / "model.safetensors"
    edit_weights(path, lambda weights: weights.update({key: value.half() for key, value in weights.items()}))
    convert(checkpoint, tmp_path / "mixed", verify=True)
    dtypes = {key: tensor.dtype for key, tensor in tensors_of(tmp_path / "mixed").items()}
    assert {key for key, dtype in dtypes.items() if dtype == torch.float16} == {
        key for key in dtypes if key.startswith("model.vision_projector.")
    }


def test_tied_embeddings_stay_tied(checkpoint, tmp_path):
    edit(checkpoint / "llm" / "config.json", tie_word_embeddings=True)
    convert(checkpoint, tmp_path / "there", verify=True)
    assert "lm_head.weight" not in tensors_of(tmp_path / "there")
    convert(tmp_path / "there", tmp_path / "back", to="published", verify=True)
    assert AutoModel.from_pretrained(tmp_path / "back").config.tie_word_embeddings


def test_what_is_written_can_be_read_by_the_safetensors_library_alone(converted):
    weights = tensors_of(converted)
    assert len(weights) == 109 and all(tensor.is_floating_point() for tensor in weights.values())


def rewrite_index(folder, **entries):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] |= entries
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGES = {
    "a truncated shard": (lambda d: truncate(d / "model-00002-of-00004.safetensors"), "model-00002.* cannot be read"),
    "no header": (lambda d: (d / "model-00001-of-00004.safetensors").write_bytes(b"\xff" * 99), "cannot be read"),
    "a missing shard": (lambda d: (d / "model-00003-of-00004.safetensors").unlink(), "lacks model-00003"),
    "an index that leads out": (lambda d: rewrite_index(d, **{"lm_head.weight": "../x.safetensors"}), "outside its"),
    "a weight of no file": (lambda d: rewrite_index(d, x="model-00001-of-00004.safetensors"), "no file holds: x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_all_that_reads_it(converted, tmp_path, damage):
    folder, (change, message) = tmp_path / "copy", DAMAGES[damage]
    shutil.copytree(converted, folder)
    change(folder)
    with pytest.raises(OSError, match=message):
        AutoModel.from_pretrained(folder)
    with pytest.raises(OSError, match=message):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pickled_weights_are_not_loaded(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "copy", ignore=shutil.ignore_patterns("model*"))
    torch.save(tensors_of(converted), tmp_path / "copy" / "pytorch_model.bin")
    for read in (AutoModel.from_pretrained, lambda folder: convert(folder, tmp_path / "out")):
        with pytest.raises(OSError, match="pytorch_model.bin.*can run code"):
            read(tmp_path / "copy")
    with pytest.raises(ValueError, match="can run code"):
        AutoModel.from_pretrained(tmp_path / "copy", use_safetensors=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"][:-1]}),
            "of another shape: lm_head",
        ),
        (lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"].int()}), "lm_head.weight I32"),
        (lambda weights: weights.pop("lm_head.weight"), "1 missing: lm_head.weight"),
        (lambda weights: weights.update({"extra": torch.ones(1)}), "1 unexpected: extra"),
    ],
)
def test_weights_that_do_not_fit_are_not_converted(converted, tmp_path, change, message):
    shutil.copytree(converted, tmp_path / "copy", ignore=shutil.ignore_patterns("model*"))
    weights = tensors_of(converted)
    change(weights)
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, tmp_path / "copy" / "model.safetensors")
    code, output = run(tmp_path / "copy", tmp_path / "out")
    assert code == 1 and message in output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"video_time_embedding": "rote"}, "video_time_embedding"),
        ({"video_time_embedding": "learned"}, "1 missing|video_time"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act"),
    ],
)
def test_what_the_published_layout_cannot_say_is_not_published(converted, tmp_path, changes, named):
    shutil.copytree(converted, tmp_path / "copy")
    edit(tmp_path / "copy" / "config.json", **changes)
    with pytest.raises(ValueError, match=named):
        convert(tmp_path / "copy", tmp_path / "out", to="published")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------- determinism and provenance


@pytest.mark.compat
@pytest.mark.parametrize("to", ["transformers", "published"])
def test_two_runs_write_the_same_files(to, tmp_path):
    for name in ("one", "two"):
        convert(TINY, tmp_path / name, to=to, max_shard_size="300KB")
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one == two and any(name.endswith(".safetensors") for name in one)


def test_files_say_where_they_come_from_and_nothing_of_this_machine(converted):
    for path in converted.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        assert metadata == {
            "format": "pt",
            "source": "published-tiny",
            "transformers_omnivinci_version": __version__,
        }
        header = path.read_bytes()[8:200].decode(errors="ignore")
        assert header.startswith('{"__metadata__":{"format":"pt","source":')
    card = ModelCard.load(converted / "README.md")
    assert "`published-tiny`" in card.text and __version__ in card.text
    for name, content in files_of(converted).items():
        assert str(PARITY).encode() not in content and str(converted).encode() not in content, name


# ------------------------------------------------------------------------------------------------------ the command


@pytest.mark.compat
def test_the_command_converts_and_verifies(tmp_path):
    code, output = run(TINY, tmp_path / "out", "--verify", "--max-shard-size", "300KB", "--dtype", "float16")
    assert code == 0 and "262,112 parameters" in output and "bit for bit" in output
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2


@pytest.mark.compat
def test_a_dry_run_shows_files_and_settings_and_writes_nothing(tmp_path):
    code, output = run(TINY, tmp_path / "out", "--dry-run", "--max-shard-size", "300KB")
    assert code == 0 and not list(tmp_path.iterdir())
    for expected in (
        "model-00004-of-00004.safetensors",
        "understood config.json: max_tiles = 12",
        "understood config.json: video_encoder.period_fix = 'shortest'",
        "ignored config.json: tune_language_model = True",
        "ignored llm/config.json: hidden_size_list = [64, 64]",
        "262,112 parameters",
    ):
        assert expected in output


def test_a_dry_run_names_everything_that_is_refused(checkpoint, tmp_path):
    edit(checkpoint / "config.json", dynamic_s2=False, audio_chunk_length="most")
    edit_encoder(checkpoint, "sound_encoder", period_fix="sometimes")
    code, output = run(checkpoint, tmp_path / "out", "--dry-run")
    assert code == 1
    for refused in ("`dynamic_s2=False`", "`audio_chunk_length='most'`", "`sound_encoder.period_fix='sometimes'`"):
        assert f"refused {refused}" in output
    assert "understood config.json: max_tiles = 12" in output


# ---------------------------------------------------------------------------------------------- whole or not at all


def test_what_is_there_is_not_overwritten(tmp_path):
    destination = tmp_path / "out"
    convert(TINY, destination, dtype="float16")
    before = files_of(destination)
    code, output = run(TINY, destination)
    assert code == 1 and "there already" in output and files_of(destination) == before
    code, output = run(TINY, destination, "--force", "--dtype", "bfloat16")
    assert code == 0 and AutoConfig.from_pretrained(destination).dtype == torch.bfloat16
    assert not leftovers(tmp_path)


def test_force_replaces_checkpoints_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    code, output = run(TINY, tmp_path / "out", "--force")
    assert code == 1 and "no config.json" in output
    assert files_of(tmp_path / "out") == {"thesis.tex": b"years of work"}


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    convert(TINY, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file() and not leftovers(tmp_path)


@pytest.mark.parametrize("place", [".", "inside", ".."])
def test_source_and_destination_lie_apart(checkpoint, place):
    before = files_of(checkpoint)
    with pytest.raises((OSError, ValueError), match="overlap|not replaced"):
        convert(checkpoint, checkpoint / place, force=True)
    assert files_of(checkpoint) == before


def test_a_weight_that_arrives_changed_is_found(tmp_path, monkeypatch):
    def save_changed(tensors, path, metadata):
        key = "model.audio_tower.layers.1.fc1.weight"
        changed = tensors[key].clone()
        changed.view(-1)[7] += 1e-3
        save_file({**tensors, key: changed}, path, metadata=metadata)

    monkeypatch.setattr(weight_shards, "save_file", save_changed)
    with pytest.raises(ValueError, match="layers.1.fc1.weight .*differs"):
        convert(TINY, tmp_path / "out", verify=True)
    assert not list(tmp_path.iterdir())


def test_a_setting_that_arrives_changed_is_found(tmp_path, monkeypatch):
    write = converter._write_files

    def write_changed(plan, folder, with_code):
        write(plan, folder, with_code)
        edit(folder / "config.json", audio_max_time=60)

    monkeypatch.setattr(converter, "_write_files", write_changed)
    with pytest.raises(ValueError, match="logits"):
        convert(TINY, tmp_path / "out", verify=True)
    assert not list(tmp_path.iterdir())


# Mounts disks in a namespace of its own and converts onto each; prints the error and what is left there.
DISKS = """
import os, subprocess, sys
from transformers_omnivinci.conversion import convert
source, place, *disks = sys.argv[1:]
for disk in disks:
    subprocess.run(["mount", "-t", "tmpfs", "-o", disk, "tmpfs", place], check=True)
    try:
        convert(source, place + "/out")
    except OSError as error:
        print(os.listdir(place), error)
    subprocess.run(["umount", place], check=True)
"""


@pytest.mark.slow
def test_a_full_disk_and_one_that_may_not_be_written(tmp_path):
    expected = {
        "size=300k": "its disk has 0.00 GB left",
        "size=1032k": "No space left",  # within the weights
        "size=1056k": "No space left",  # after them
        "size=9m,ro": "out cannot be made: Read-only file system",
    }
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*namespace, sys.executable, "-c", DISKS, TINY, tmp_path, *expected]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    for line, message in zip(result.stdout.splitlines(), expected.values(), strict=True):
        assert line.startswith("[] ") and message in line


# Forks conversions and kills each at a random moment; prints what is then at the destination.
KILLS = """
import json, os, random, signal, sys, time
import torch
from transformers_omnivinci.conversion import convert
from transformers_omnivinci.modeling import OmniVinciForConditionalGeneration
from transformers_omnivinci.processing import OmniVinciProcessor


def has_config(path):
    try:
        return bool(json.load(open(path)))
    except (OSError, ValueError):
        return False


source, place, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
started = time.monotonic()
convert(source, place + "/whole", max_shard_size="100KB")
duration = time.monotonic() - started
random.seed(0)
for kill in range(kills):
    child = os.fork()
    if child == 0:
        convert(source, place + "/out", max_shard_size="100KB", force=True)
        os._exit(0)
    time.sleep(random.uniform(0, 1.2 * duration))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(kill, sorted(os.listdir(place)), flush=True)
    for name in os.listdir(place):
        if name != "whole" and has_config(f"{place}/{name}/config.json"):
            os.system(f"rm -f {place}/{name}/.lock")
            print("differs" if os.system(f"diff -r {place}/whole {place}/{name} > /dev/null") else "equal", flush=True)
    if kill % 3:
        os.system(f"rm -rf {place}/out")
convert(source, place + "/out", max_shard_size="100KB", force=True)
print("end", sorted(os.listdir(place)), os.system(f"diff -r {place}/whole {place}/out"))
"""


@pytest.mark.slow
def test_a_conversion_that_is_killed_leaves_nothing_wrong(tmp_path):
    result = run_python(KILLS, TINY, tmp_path, 24)
    assert result.returncode == 0, result.stderr
    *kills, end = result.stdout.splitlines()
    assert end == "end ['out', 'whole'] 0"
    assert "differs" not in kills
    assert len([line for line in kills if line[0].isdigit()]) == 24
    assert any(".incomplete" in line for line in kills), "no kill fell into a conversion"
