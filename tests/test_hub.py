"""Repositories of the Hub, in both layouts: loaded, converted and published by the real client, from a local Hub."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, snapshot_download
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
from typer.testing import CliRunner

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration, OmniVinciProcessor
from transformers_omnivinci.cli import app
from transformers_omnivinci.conversion.conversion_plan import plan_conversion, settings_of
from transformers_omnivinci.conversion.converter import convert
from transformers_omnivinci.conversion.push import push
from transformers_omnivinci.hub_options import plain_transfer_errors
from transformers_omnivinci.publishing.card import build_card

from .checkpoints import edit, edit_weights, files_of, quantized_nano, tensors_of
from .conftest import CLIP, PARITY
from .hub_requests import Token
from .media_samples import audio_item, image_item, user, video_item
from .processes import run_python

TINY = PARITY / "published-tiny"
RELEASE = "nvidia/omnivinci"
CONVERTED = "tester/omnivinci-hf"
NEEDED = {str(path.relative_to(TINY)) for path in TINY.rglob("*") if path.suffix in (".json", ".safetensors", ".txt")}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    convert(TINY, folder, max_shard_size="300KB")
    return folder


@pytest.fixture
def release(hub):
    """The release as it stands on the Hub: with remote code, assets and a processor that only the code knows."""
    hub.create_repo(RELEASE)
    hub.add_commit(RELEASE, TINY)
    hub.add_commit(
        RELEASE,
        {
            "modeling_vila.py": b"raise SystemExit('remote code was run')",
            "auto_processor.py": b"raise SystemExit('remote code was run')",
            "preprocessor_config.json": b'{"auto_map": {"AutoProcessor": "auto_processor.VILAProcessor"}}',
            "assets/teaser.mp4": b"\0" * 100_000,
            "llm/training_args.bin": b"pickle",
        },
    )
    return hub


@pytest.fixture
def repository(hub, converted):
    hub.create_repo(CONVERTED)
    hub.add_commit(CONVERTED, converted)
    return hub


def embeds(model, processor):
    chat = user(image_item(), video_item(), audio_item(), "Compare.")
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        return model.get_inputs_embeds(**inputs)


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, " ".join(result.output.split())


# -------------------------------------------------------------------------------------------------------- loading


@pytest.mark.compat
@pytest.mark.parametrize("repo_id", [RELEASE, CONVERTED])
def test_auto_classes_load_a_repository(repo_id, release, repository, load_checkpoint):
    config = AutoConfig.from_pretrained(repo_id)
    model, processor = AutoModel.from_pretrained(repo_id), AutoProcessor.from_pretrained(repo_id)
    assert type(config) is OmniVinciConfig and config.name_or_path == repo_id
    assert type(model) is OmniVinciForConditionalGeneration and model.config.name_or_path == repo_id
    assert type(processor) is OmniVinciProcessor
    assert torch.allclose(embeds(model, processor), embeds(*load_checkpoint()), atol=1e-6)


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("trust_remote_code", [None, False, True])
def test_no_remote_code_is_run(trust_remote_code, release):
    for auto_class in (AutoConfig, AutoModel, AutoProcessor):
        loaded = auto_class.from_pretrained(RELEASE, trust_remote_code=trust_remote_code)
        assert type(loaded).__module__.startswith("transformers_omnivinci.")
    assert not [path for path in release.downloads() if path.endswith(".py")]


@pytest.mark.compat
@pytest.mark.parametrize("repo_id", [RELEASE, CONVERTED])
def test_a_pipeline_of_a_repository(repo_id, release, repository):
    pipe = pipeline("video-text-to-text", model=repo_id)
    (answer,) = pipe(CLIP, text="What?", num_frames=2, max_new_tokens=3, return_full_text=False)
    assert isinstance(answer["generated_text"], str) and pipe.model.config.name_or_path == repo_id


@pytest.mark.compat
def test_only_what_is_needed_is_downloaded(release):
    AutoConfig.from_pretrained(RELEASE)
    configs = set(release.downloads())
    assert configs == {name for name in NEEDED if not name.endswith(".safetensors")}
    AutoProcessor.from_pretrained(RELEASE)
    assert set(release.downloads()) - configs <= {"preprocessor_config.json"}
    AutoModel.from_pretrained(RELEASE)
    assert set(release.downloads()) - {"preprocessor_config.json"} == NEEDED
    assert len(release.downloads()) == len(set(release.downloads())), "something was downloaded twice"


def test_a_second_time_nothing_is_downloaded(release):
    AutoModel.from_pretrained(RELEASE)
    before = len(release.downloads())
    AutoModel.from_pretrained(RELEASE)
    assert len(release.downloads()) == before
    AutoConfig.from_pretrained(RELEASE, force_download=True)
    assert len(release.downloads()) > before


@pytest.mark.slow
@pytest.mark.compat
@pytest.mark.parametrize("revision", ["other", "v2", "commit"])
def test_a_revision_holds_for_every_file(release, tmp_path, revision):
    shutil.copytree(TINY, tmp_path / "other")
    edit(tmp_path / "other" / "config.json", interleaved_video_segment_duration=7, num_video_frames=3)
    edit(tmp_path / "other" / "llm" / "config.json", rms_norm_eps=1e-3)
    release.tokens["hf_nvidia"] = Token("nvidia", write=True)
    HfApi(token="hf_nvidia").create_branch(RELEASE, branch="other")
    commit = release.add_commit(RELEASE, tmp_path / "other", revision="other")
    HfApi(token="hf_nvidia").create_tag(RELEASE, tag="v2", revision="other")
    options = {"revision": commit if revision == "commit" else revision}
    config, processor = (c.from_pretrained(RELEASE, **options) for c in (AutoConfig, AutoProcessor))
    model = AutoModel.from_pretrained(RELEASE, **options)
    assert processor.group_duration == 7
    assert config.text_config.rms_norm_eps == model.model.language_model.norm.variance_epsilon == 1e-3
    assert processor.video_processor.num_frames == 3
    assert AutoProcessor.from_pretrained(RELEASE).group_duration == 30


@pytest.mark.parametrize("repo_id", [RELEASE, CONVERTED])
def test_a_cache_of_ones_own_and_no_network(repo_id, release, repository, tmp_path):
    options = {"cache_dir": tmp_path / "cache"}
    with pytest.raises(OSError):
        AutoModel.from_pretrained(repo_id, local_files_only=True, **options)
    for auto_class in (AutoConfig, AutoModel, AutoProcessor):
        auto_class.from_pretrained(repo_id, **options)
    release.stop()
    for auto_class in (AutoConfig, AutoModel, AutoProcessor):
        auto_class.from_pretrained(repo_id, local_files_only=True, **options)
    # But for what transformers notes there of adapters that the repository lacks.
    assert not list((tmp_path / "huggingface" / "hub").glob("*/snapshots"))


OFFLINE = """
import os, sys
import transformers_omnivinci
from transformers import AutoModel, AutoProcessor, pipeline
model, processor = AutoModel.from_pretrained(sys.argv[1]), AutoProcessor.from_pretrained(sys.argv[1])
print(type(model).__name__, type(processor).__name__, os.environ.get("HF_HUB_OFFLINE"))
"""


@pytest.mark.slow
def test_offline_mode_and_the_environment_of_a_process(release, tmp_path):
    environment = release.environment(home=tmp_path / "home")
    snapshot_download(RELEASE, cache_dir=tmp_path / "home" / "hub")
    release.stop()
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    result = run_python(OFFLINE, RELEASE, env=offline)
    assert result.stdout.split() == ["OmniVinciForConditionalGeneration", "OmniVinciProcessor", "1"], result.stderr


def test_a_private_repository_needs_a_token(hub):
    hub.create_repo("tester/private", private=True)
    hub.add_commit("tester/private", TINY)
    for auto_class in (AutoConfig, AutoModel, AutoProcessor):
        with pytest.raises(OSError, match="tester/private"):
            auto_class.from_pretrained("tester/private")
        auto_class.from_pretrained("tester/private", token="hf_read")


@pytest.mark.compat
def test_a_download_that_is_cut_is_resumed(hub, tmp_path):
    shutil.copytree(TINY, tmp_path / "large")
    weights = tmp_path / "large" / "sound_tower" / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    end = max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
    # A tensor that makes the file larger than the 10 MB from which on the client resumes.
    header["padding"] = {"dtype": "F32", "shape": [4_000_000], "data_offsets": [end, end + 16_000_000]}
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :] + bytes(16_000_000))
    hub.create_repo(RELEASE)
    hub.add_commit(RELEASE, tmp_path / "large")
    hub.fail(r"sound_tower/model\.safetensors", method="GET", count=1, cut_response=12_000_000)
    with pytest.raises(ValueError, match="unexpected: .*padding"):
        AutoModel.from_pretrained(RELEASE)
    ranges = [
        request.headers.get("Range") for request in hub.requests if request.file == "sound_tower/model.safetensors"
    ]
    assert any(asked and asked.startswith("bytes=10485760-") for asked in ranges)


@pytest.mark.compat
def test_a_download_that_breaks_off_is_told_and_goes_on_the_next_time(release):
    release.fail(r"llm/model-00002", method="GET", count=10, cut_response=1000, reset=True)
    with pytest.raises(OSError, match="broke off"):
        AutoModel.from_pretrained(RELEASE)
    before = set(release.downloads())
    release.faults.clear()
    AutoModel.from_pretrained(RELEASE)
    assert before - {"llm/model-00002-of-00002.safetensors"}
    again = release.downloads()[len(before) :]
    assert "llm/model-00002-of-00002.safetensors" in again and "llm/config.json" not in again


@pytest.mark.compat
@pytest.mark.parametrize("auto_class", [AutoConfig, AutoModel, AutoProcessor])
@pytest.mark.parametrize(
    ("repo_id", "options", "message"),
    [
        ("nvidia/nothing", {}, "nvidia/nothing"),
        (RELEASE, {"revision": "v9"}, "v9"),
    ],
)
def test_what_is_not_there_is_named(release, auto_class, repo_id, options, message):
    with pytest.raises(OSError, match=message):
        auto_class.from_pretrained(repo_id, **options)


# ----------------------------------------------------------------------------------------------------- conversion


def test_a_repository_is_converted_with_its_commit(release, tmp_path):
    commit = HfApi().model_info(RELEASE).sha
    done = convert(RELEASE, tmp_path / "out", verify=True)
    assert (done.source, done.revision) == (RELEASE, commit)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert commit in card.text and card.data.base_model == RELEASE
    header = (tmp_path / "out" / "model.safetensors").read_bytes()[8:400].decode(errors="ignore")
    assert f'"source":"{RELEASE}","source_revision":"{commit}"' in header
    assert not [path for path in release.downloads() if path.endswith((".py", ".mp4", ".bin"))]
    convert(TINY, tmp_path / "local")
    weights = tensors_of(tmp_path / "local")
    assert all(torch.equal(tensor, weights[key]) for key, tensor in tensors_of(tmp_path / "out").items())


@pytest.mark.parametrize("repo_id", [RELEASE, CONVERTED])
def test_a_dry_run_downloads_only_the_headers_of_weights(repo_id, release, repository, tmp_path):
    code, output = run("convert", repo_id, tmp_path / "out", "--dry-run")
    assert code == 0 and "262,112 parameters, 1.0 MB" in output
    fetched = [request for request in release.requests if request.file and request.file.endswith(".safetensors")]
    assert fetched and all(request.headers.get("Range") for request in fetched if request.method == "GET")
    assert not (tmp_path / "out").exists()
    settings = settings_of(repo_id)
    assert (settings is None) == (repo_id == CONVERTED)


def test_a_file_of_the_cache_that_is_damaged_is_found_by_its_checksum(release, tmp_path):
    done = plan_conversion(RELEASE)
    blob = (done.folder / "llm" / "model-00001-of-00002.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    code, output = run("convert", RELEASE, tmp_path / "out")
    assert code == 1 and "SHA-256" in output and "Traceback" not in output
    assert not (tmp_path / "out").exists()
    blob.unlink()
    assert run("convert", RELEASE, tmp_path / "out")[0] == 0


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nvidia/nothing", [], "nvidia/nothing"),
        (RELEASE, ["--revision", "v9"], "v9"),
        ("tester/private", [], "tester/private"),
        ("tester/other", [], "'bert'"),
        ("tester/empty", [], "no config.json"),
        ("no folder", [], "There is no folder 'no folder'"),
    ],
)
def test_what_cannot_be_converted(release, tmp_path, source, options, message):
    release.create_repo("tester/private", private=True)
    release.create_repo("tester/empty")
    release.create_repo("tester/other")
    release.add_commit("tester/other", {"config.json": b'{"model_type": "bert"}'})
    code, output = run("convert", source, tmp_path / "out", *options)
    assert code == 1 and output.startswith("error: ") and message in output and len(output) < 500
    assert not (tmp_path / "out").exists()


def test_a_conversion_whose_download_breaks_off_leaves_nothing(release, tmp_path):
    release.fail("vision_tower/model", method="GET", count=10, cut_response=1000, reset=True)
    code, output = run("convert", RELEASE, tmp_path / "out")
    assert (
        code == 1
        and "broke off" in output
        and sorted(path.name for path in tmp_path.iterdir())
        == [
            "hub",
            "huggingface",
        ]
    )
    release.faults.clear()
    assert run("convert", RELEASE, tmp_path / "out")[0] == 0


# ----------------------------------------------------------------------------------------------------- publishing


@pytest.fixture
def token(hub, monkeypatch):
    """The right to write as `tester`."""
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    return "hf_write"


def commits(hub, repo_id, revision=None):
    return HfApi().list_repo_commits(repo_id, revision=revision)


@pytest.mark.compat
def test_push_makes_one_commit_that_loads(hub, token, converted, tmp_path):
    code, output = run("push", converted, "tester/new", "--commit-message", "Publish it", "--private")
    assert code == 0 and "tester/new/commit/" in output
    posted = [request for request in hub.requests if "/commit/" in request.path and request.method == "POST"]
    assert len(posted) == 1 and HfApi().model_info("tester/new").private
    uploaded = hub.files("tester/new", "main")
    assert {name for name in uploaded if name != ".gitattributes"} == set(files_of(converted))
    for name, path in uploaded.items():
        if name not in ("README.md", ".gitattributes"):
            assert path.read_bytes() == (converted / name).read_bytes()
    card = ModelCard.load("tester/new")
    assert 'checkpoint = "tester/new"' in card.text
    assert type(AutoModel.from_pretrained("tester/new")) is OmniVinciForConditionalGeneration


def test_quantized_checkpoints_are_pushed_as_they_are(hub, token, tmp_path):
    folder = quantized_nano(tmp_path / "quantized")
    push(folder, "tester/new")
    assert hub.files("tester/new", "main")["model.safetensors"].read_bytes() == files_of(folder)["model.safetensors"]
    edit_weights(
        folder / "model.safetensors",
        lambda tensors: tensors.pop("model.language_model.layers.0.mlp.up_proj.weight_scale"),
    )
    with pytest.raises(OSError, match="has no model.language_model.layers.0.mlp.up_proj.weight_scale"):
        push(folder, "tester/new")


def test_push_to_a_branch_and_as_a_pull_request(hub, token, converted):
    assert run("push", converted, "tester/new", "--revision", "half")[0] == 0
    assert "model.safetensors.index.json" in hub.files("tester/new", "half")
    assert "config.json" not in hub.files("tester/new", "main")
    code, output = run("push", converted, "tester/new", "--create-pr")
    assert code == 0 and "/discussions/1" in output
    assert "config.json" in hub.files("tester/new", "refs/pr/1") and "config.json" not in hub.files(
        "tester/new", "main"
    )


def test_a_push_takes_the_place_of_the_weights_and_the_code_before(hub, token, converted, tmp_path):
    hub.create_repo("tester/new")
    old = {"model.safetensors": b"old", "modeling_old.py": b"", "folder/old.py": b"", "notes.txt": b"mine"}
    hub.add_commit("tester/new", old)
    push(converted, "tester/new")
    assert set(hub.files("tester/new", "main")) - {".gitattributes"} == {*files_of(converted), "notes.txt"}


def test_caches_and_what_is_of_git_is_not_pushed(hub, token, converted, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(converted, copy)
    for name in (".git/config", ".DS_Store", "folder/.cache/file", "folder/__pycache__/code.pyc", "folder/kept.txt"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
    push(copy, "tester/new")
    assert set(hub.files("tester/new", "main")) - {".gitattributes"} == {*files_of(converted), "folder/kept.txt"}


def test_a_push_that_breaks_off_makes_no_commit_and_does_not_send_twice(hub, token, converted):
    # The client tries six times.
    hub.fail("model-00003|upload", method="PUT", count=60, cut_request=1000)
    with pytest.raises(OSError, match="broke off"):
        push(converted, "tester/new")
    assert "config.json" not in hub.files("tester/new", "main")
    hub.faults.clear()
    arrived = {r.path.split("?")[0] for r in hub.requests if r.method == "PUT" and r.status == 200}
    before = len(hub.requests)
    push(converted, "tester/new")
    sent = {r.path.split("?")[0] for r in hub.requests[before:] if r.method == "PUT"}
    assert sent and not sent & arrived
    assert "config.json" in hub.files("tester/new", "main")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model-00002-of-00004.safetensors").unlink(), "lacks model-00002"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "processor_config.json").write_text("{"), "processor_config.json"),
        (lambda folder: edit(folder / "config.json", s2_scales=[1, 2]), "s2_scales"),
        (lambda folder: edit(folder / "config.json", model_type="bert"), "'bert'"),
    ],
)
def test_a_folder_that_does_not_load_is_not_pushed(hub, token, converted, tmp_path, damage, message):
    shutil.copytree(converted, tmp_path / "copy")
    damage(tmp_path / "copy")
    code, output = run("push", tmp_path / "copy", "tester/new")
    assert code == 1 and message in output and hub.find("tester/new") is None


@pytest.mark.parametrize("token", ["hf_read", None])
def test_a_token_without_rights(hub, converted, monkeypatch, token):
    hub.create_repo("tester/new")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    code, output = run("push", converted, "tester/new")
    assert code == 1 and "does not let this token write tester/new" in output
    assert "config.json" not in hub.files("tester/new", "main")


@pytest.mark.parametrize(("folder", "repo_id"), [("nothing", "tester/new"), (None, "a/b/c"), (None, "spa ce/x")])
def test_arguments_of_push(hub, token, converted, folder, repo_id):
    code, output = run("push", folder or converted, repo_id)
    assert code == 1 and output.startswith("error: ") and (folder or repo_id) in output


@pytest.mark.compat
def test_push_to_hub_of_model_and_processor(hub, token, converted):
    model, processor = AutoModel.from_pretrained(converted), AutoProcessor.from_pretrained(converted)
    model.push_to_hub("tester/pushed")
    processor.push_to_hub("tester/pushed")
    again = AutoModel.from_pretrained("tester/pushed"), AutoProcessor.from_pretrained("tester/pushed")
    assert torch.allclose(embeds(*again), embeds(model, processor), atol=1e-6)


@pytest.mark.slow
def test_the_hubs_own_command_uploads_downloads_and_verifies(hub, converted, tmp_path):
    environment = hub.environment(token="hf_write", home=tmp_path / "home")

    def hf(*arguments):
        command = [Path(sys.executable).with_name("hf"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    hf("upload", "tester/own", str(converted), ".")
    hf("download", "tester/own", "--local-dir", str(tmp_path / "copy"))
    assert "tester/own" in hf("cache", "verify", "tester/own", "--local-dir", str(tmp_path / "copy"))
    before = files_of(converted)
    assert {name: data for name, data in files_of(tmp_path / "copy").items() if name in before} == before
    assert type(AutoModel.from_pretrained("tester/own")) is OmniVinciForConditionalGeneration


def test_the_hub_accepts_the_card(hub):
    for with_code in (False, True):
        build_card(repo_id="tester/new", with_code=with_code).validate()


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (RuntimeError("cut"), OSError, "The upload broke off: cut. All is kept."),
        (TypeError("a slip"), TypeError, "a slip"),
    ],
)
def test_only_errors_of_transfers_are_told_as_such(error, raised, message):
    with pytest.raises(raised) as caught, plain_transfer_errors("The upload", "All is kept."):
        raise error
    assert str(caught.value) == message


def test_auto_classes_of_the_parts_find_them_in_a_repository(release):
    from transformers import AutoTokenizer
    from transformers.models.auto.image_processing_auto import AutoImageProcessor  # hidden in some versions

    # Whichever comes first finds an empty cache.
    assert len(AutoTokenizer.from_pretrained(RELEASE)) == len(AutoTokenizer.from_pretrained(TINY)) > 400
    assert AutoImageProcessor.from_pretrained(RELEASE, max_tiles=3).max_tiles == 3
    assert AutoProcessor.from_pretrained(RELEASE, num_frames=3).video_processor.num_frames == 3
