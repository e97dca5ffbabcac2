"""A repository that carries its code: it loads where the package is not installed, and gives way where it is."""

import ast
import json
import pickle
import re
import shutil
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from transformers import AutoModel, AutoProcessor
from transformers.dynamic_module_utils import get_imports

import transformers_omnivinci
from transformers_omnivinci import OmniVinciConfig, OmniVinciImageProcessor
from transformers_omnivinci.compat import VERSION
from transformers_omnivinci.conversion import convert
from transformers_omnivinci.publishing.card import name_repository
from transformers_omnivinci.publishing.code import ENDPOINT, write_code

from . import media_samples
from .cards import answers_of_the_card, write_media_of_the_card
from .conftest import CASES, CLIP, PARITY
from .hub_server import HubServer
from .parity import load_case, media_of
from .processes import run_python

SOURCES = Path(transformers_omnivinci.__file__).parents[1]
CHECKPOINT = "published-tiny"
REPO = "tester/omnivinci"
GREEDY = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "eos_token_id": None}
QUESTION = {"text": "What happens?", "num_frames": 4, "max_new_tokens": 8, "return_full_text": False}

NOT_INSTALLED = """
import sys

class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "transformers_omnivinci":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled)
try:
    import transformers_omnivinci
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package can be imported")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint in the transformers layout."""
    folder = tmp_path_factory.mktemp("saved")
    AutoModel.from_pretrained(PARITY / CHECKPOINT).save_pretrained(folder)
    AutoProcessor.from_pretrained(PARITY / CHECKPOINT).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def with_code(tmp_path_factory):
    """The same with its code."""
    folder = tmp_path_factory.mktemp("converted") / "with_code"
    convert(PARITY / CHECKPOINT, folder, with_code=True)
    return folder


@pytest.fixture(scope="module")
def hub(with_code, tmp_path_factory):
    """A Hub that has it."""
    with HubServer(tmp_path_factory.mktemp("hub") / "repositories") as server:
        server.create_repo(REPO)
        server.add_commit(REPO, with_code)
        yield server


def run(code: str, hub, home: Path, *arguments, cwd=None, **settings) -> list[str]:
    """The lines that a process prints which speaks to the Hub; it must not write to stderr."""
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCES)}
    result = run_python(code, *arguments, env=hub.environment(home=home) | settings, cwd=cwd)
    assert result.returncode == 0, result.stderr
    # Before, pipelines of transformers warn of what they do themselves.
    assert VERSION < (5, 20) or result.stderr == ""
    return result.stdout.splitlines()


def flat_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def class_references(folder: Path) -> list[str]:
    """Every `module.Class` that the configs name."""
    text = (folder / "config.json").read_text() + (folder / "processor_config.json").read_text()
    return sorted(set(re.findall(r'"(\w+\.\w+)"', text)))


# --------------------------------------------------------------------------------------------------------- the files


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(saved, with_code, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    for _ in range(2):  # also over its own files
        written = write_code(tmp_path)
        assert {path.name for path in written} == {
            path.name for path in tmp_path.rglob("*") if path.suffix in (".py", ".txt") or path.stem.endswith("config")
        } - {"generation_config.json", "tokenizer_config.json"}
        for path in written:
            assert path.read_bytes() == (with_code / path.relative_to(tmp_path)).read_bytes(), path.name


@pytest.mark.compat
def test_every_import_finds_its_file_or_a_requirement(with_code):
    requirements = [Requirement(line) for line in (with_code / "requirements.txt").read_text().splitlines()]
    assert all(requirement.specifier for requirement in requirements)
    distributions, imported = metadata.packages_distributions(), set()
    for path in with_code.rglob("*.py"):
        name, source = str(path.relative_to(with_code)), path.read_bytes()
        tree = ast.parse(source)
        compile(tree, name, "exec")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                modules = [node.module] if node.module else [alias.name for alias in node.names]
                assert node.level == 1, (name, node.lineno)
                assert all((path.parent / f"{module}.py").is_file() for module in modules), (name, modules)
        packages = set(get_imports(path)) - sys.stdlib_module_names
        if name == "handler.py":  # read by nobody who asks for what it imports; it takes the package where it can
            assert (with_code / ENDPOINT / "__init__.py").is_file()
            packages -= {"transformers_omnivinci", ENDPOINT}
        imported |= {canonicalize_name(distributions[package][0]) for package in packages}
    # transformers needs jinja2 for chat templates, which no file imports by itself.
    assert imported | {"jinja2"} == {canonicalize_name(requirement.name) for requirement in requirements}
    assert not imported & {"transformers-omnivinci", "typer", "rich", "matplotlib", "decord", "librosa", "torchvision"}


def test_the_configs_name_classes_that_are_there(with_code):
    references = class_references(with_code)
    assert len(references) == 6
    for reference in references:
        module, name = reference.split(".")
        tree = ast.parse((with_code / f"{module}.py").read_bytes())
        assert name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("config.json", None, FileNotFoundError, "config.json"),
        ("processor_config.json", None, FileNotFoundError, "processor_config.json"),
        ("config.json", "{", ValueError, "is not valid JSON"),
        ("config.json", '{"model_type": "vila"}', ValueError, "has the model_type 'vila': only a folder to which"),
        ("processor_config.json", '{"image_processor": {}}', ValueError, "has no video_processor"),
    ],
)
def test_other_folders_are_refused_and_left_alone(saved, tmp_path, name, content, error, message):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(error, match=message):
        write_code(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ----------------------------------------------------------------------------------------------- without the package


WITHOUT_PACKAGE = """
import pickle
import torch
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForCausalLM,
    AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer, pipeline,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # hidden without torchvision
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.utils import logging

repo, cases, results, copy = sys.argv[1:]
logging.disable_progress_bar()
remote = {"trust_remote_code": True, "revision": "main"}
auto_classes = [
    AutoConfig, AutoTokenizer, AutoFeatureExtractor, AutoImageProcessor, AutoVideoProcessor,
    AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM,
]
# First, as loading a model registers it for those that follow.
pipe = pipeline("video-text-to-text", model=repo, **remote)
for auto_class in auto_classes:
    loaded = type(auto_class.from_pretrained(repo, **remote))
    print(auto_class.__name__, loaded.__module__.partition(".")[0], loaded.__name__)

model, processor = AutoModel.from_pretrained(repo, **remote), AutoProcessor.from_pretrained(repo, **remote)
pipe.model.save_pretrained(copy)
pipe.processor.save_pretrained(copy)
local = {"trust_remote_code": True}
again, processor_again = AutoModel.from_pretrained(copy, **local), AutoProcessor.from_pretrained(copy, **local)
again.save_pretrained(copy)


def answer(model, processor, prompt, media, greedy):
    inputs = processor(text=prompt, **media, return_tensors="pt")
    with torch.no_grad():
        embeds = model.get_inputs_embeds(**inputs)
    return embeds, model.generate(**inputs, **greedy)


with open(cases, "rb") as file:
    cases, clip, question, greedy = pickle.load(file)
answers = {name: answer(model, processor, *case, greedy) for name, case in cases.items()}
name, case = list(cases.items())[-1]
torch.save(
    {
        "answers": answers,
        "again": {name: answer(again, processor_again, *case, greedy)},
        "pipeline": pipe(clip, **question),
        "pipeline of the copy": pipeline("video-text-to-text", model=copy, **local)(clip, **question),
    },
    results,
)
"""


@pytest.fixture(scope="module")
def cases(load_checkpoint):
    """Prompt and media of every case of the checkpoint."""
    _, processor = load_checkpoint(CHECKPOINT)
    prompts = {}
    for name in (name for name in CASES if CASES[name]["checkpoint"] == CHECKPOINT):
        case, tensors = load_case(name)
        chat = [{"role": "user", "content": case["content"]}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        prompts[name] = (prompt, media_of(case, tensors))
    assert len(prompts) == 12
    return prompts


@pytest.mark.slow
@pytest.mark.compat
def test_without_the_package_everything_is_equal(hub, cases, with_code, tmp_path):
    (tmp_path / "cases").write_bytes(pickle.dumps((cases, CLIP, QUESTION, GREEDY)))
    copy = tmp_path / "copy"
    code = NOT_INSTALLED + WITHOUT_PACKAGE
    lines = run(code, hub, tmp_path, REPO, tmp_path / "cases", tmp_path / "results", copy)
    assert lines == [
        "AutoConfig transformers_modules OmniVinciConfig",
        "AutoTokenizer transformers Qwen2Tokenizer",
        "AutoFeatureExtractor transformers WhisperFeatureExtractor",
        "AutoImageProcessor transformers_modules OmniVinciImageProcessor",
        "AutoVideoProcessor transformers_modules OmniVinciVideoProcessor",
        "AutoModelForCausalLM transformers_modules OmniVinciForConditionalGeneration",
        "AutoModelForImageTextToText transformers_modules OmniVinciForConditionalGeneration",
        "AutoModelForMultimodalLM transformers_modules OmniVinciForConditionalGeneration",
    ]

    # From the same files: how their pages are aligned decides about the last bit.
    model, processor = AutoModel.from_pretrained(with_code), AutoProcessor.from_pretrained(with_code)
    results = torch.load(tmp_path / "results", weights_only=True)
    assert results["answers"].keys() == cases.keys()
    for name, (embeds, ids) in results["answers"].items():
        prompt, media = cases[name]
        inputs = processor(text=prompt, **media, return_tensors="pt")
        with torch.no_grad():
            assert torch.equal(embeds, model.get_inputs_embeds(**inputs)), name
        assert torch.equal(ids, model.generate(**inputs, **GREEDY)), name
    for name, (embeds, ids) in results["again"].items():
        torch.testing.assert_close(embeds, results["answers"][name][0], atol=1e-6, rtol=0)
        assert torch.equal(ids, results["answers"][name][1])

    from transformers import pipeline

    wanted = pipeline("video-text-to-text", model=model, processor=processor, device="cpu")(CLIP, **QUESTION)
    assert results["pipeline"] == results["pipeline of the copy"] == wanted

    # What `save_pretrained` wrote has all the code; the handler of an endpoint is none of it.
    files = flat_files(with_code)
    files.pop("handler.py", None)
    assert flat_files(copy) == files
    assert json.loads((copy / "config.json").read_text()) == json.loads((with_code / "config.json").read_text())


CARD_AND_HANDLER = """
import base64, json, sys
from transformers.utils import logging
logging.disable_progress_bar()
namespace = {}
for snippet in json.loads(sys.argv[1]):
    exec(compile(snippet, "README.md", "exec"), namespace)
sys.path.insert(0, sys.argv[2])
from handler import EndpointHandler
with open("photo.jpg", "rb") as file:
    image = base64.b64encode(file.read()).decode()
handler = EndpointHandler(sys.argv[2])
assert type(handler.pipeline.model).__module__.startswith("transformers_modules")
print(handler({"inputs": {"text": "What is shown?", "image": image}, "parameters": {"max_new_tokens": 8}}))
"""


@pytest.mark.slow
def test_the_snippets_of_the_card_and_the_handler_need_no_package(hub, with_code, load_checkpoint, tmp_path):
    card = name_repository(ModelCard.load(with_code / "README.md"), REPO)
    snippets = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert len(snippets) == 3 and "transformers_omnivinci" not in "".join(snippets)
    write_media_of_the_card(tmp_path)
    code = NOT_INSTALLED + CARD_AND_HANDLER
    *printed, answer = run(
        code, hub, tmp_path, json.dumps(snippets), with_code, cwd=tmp_path, TRANSFORMERS_VERBOSITY="error"
    )
    model, processor = load_checkpoint(CHECKPOINT)
    assert printed == answers_of_the_card(model, processor, tmp_path).splitlines()
    chat = media_samples.user({"type": "image", "path": str(tmp_path / "photo.jpg")}, "What is shown?")
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(chat, **options)
    ids = model.generate(**inputs, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :]
    assert answer == str([{"generated_text": processor.decode(ids, skip_special_tokens=True)}])


# -------------------------------------------------------------------------------------------------- with the package


# What comes first decides about what is registered, so each has a process; forks spare three of four imports of torch.
WITH_PACKAGE = """
import os, sys
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.utils import logging

firsts, repo, folder, *references = sys.argv[1:]
logging.disable_progress_bar()
assert "transformers_omnivinci" not in sys.modules
for first in firsts.split():
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, first
    else:
        break
else:
    sys.exit()

trusts = (True, False, None)
if first == "package":
    import transformers_omnivinci
elif first == "references":
    for reference in references:
        print(first, get_class_from_dynamic_module(reference, repo, revision="main").__module__)
elif first == "pipeline":
    trusts = (True,)
elif first == "processor":
    AutoProcessor.from_pretrained(repo, revision="main", trust_remote_code=True).save_pretrained(f"{folder}/{first}")

for trust in trusts:
    options = {"trust_remote_code": trust, "revision": "main"}
    pipe = pipeline("video-text-to-text", model=repo, **options)
    auto_classes = (AutoConfig, AutoModel, AutoProcessor, AutoImageProcessor, AutoVideoProcessor)
    for loaded in [pipe, *(auto_class.from_pretrained(repo, **options) for auto_class in auto_classes)]:
        print(first, type(loaded).__module__)
pipe.model.save_pretrained(f"{folder}/{first}")
pipe.processor.save_pretrained(f"{folder}/{first}")
"""


@pytest.mark.slow
@pytest.mark.compat
def test_classes_of_an_installed_package_win(hub, with_code, tmp_path):
    counts = {"package": 18, "references": 24, "pipeline": 6, "processor": 18}
    lines = run(WITH_PACKAGE, hub, tmp_path, " ".join(counts), REPO, tmp_path, *class_references(with_code))
    assert Counter(line.partition(" ")[0] for line in lines) == counts
    assert {line.partition(" ")[2].partition(".")[0] for line in lines} == {"transformers_omnivinci"}
    for folder in (tmp_path / first for first in counts):
        # A package's classes are not saved as code, and need none to load again.
        assert flat_files(folder) == {}
        assert "auto_map" not in "".join(path.read_text() for path in folder.glob("*.json"))
        assert "custom_pipelines" not in (folder / "config.json").read_text()


@pytest.mark.compat
def test_subclasses_may_still_be_saved_as_code():
    class Subclass(OmniVinciConfig):
        pass

    class ImageSubclass(OmniVinciImageProcessor):
        pass

    for subclass, base in ((Subclass, OmniVinciConfig), (ImageSubclass, OmniVinciImageProcessor)):
        subclass.register_for_auto_class()
        base.register_for_auto_class()
        assert subclass._auto_class is not None and base._auto_class is None
        settings = {"auto_map": {subclass._auto_class: "somewhere.Subclass"}}
        assert subclass.from_dict(settings).auto_map == settings["auto_map"]
        assert not hasattr(base.from_dict(settings), "auto_map")
