"""The model card: its metadata, its figures, and that its snippets run as they stand."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from transformers_omnivinci import OmniVinciConfig, OmniVinciForConditionalGeneration, __version__
from transformers_omnivinci.publishing.card import BASE_MODEL, TEMPLATE, build_card, name_repository
from transformers_omnivinci.publishing.paper_results import PAPER_RESULTS

from .cards import answers_of_the_card, write_media_of_the_card
from .conftest import PARITY
from .processes import run_python

ROOT = Path(__file__).parent.parent
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
REVISION = "7b3777b1c1f7c4e85f7bdef7b765dee1e76c1b7f"
# What the paper's sentences and the other rows of its tables say: the score of another model, and the lead over it.
LEADS = [
    ("Worldsense", None, 45.40, 2.83),
    ("Dailyomni", None, 47.45, 19.05),
    ("Omni average", None, 49.66, 4.07),
    ("MMAR", None, 56.70, 1.7),
    ("MMAU", "test", 71.00, 0.6),
    ("LongVideoBench", "val", 57.7, 3.6),
    ("Video-MME", None, 64.3, 3.9),
    ("Video-MME", None, 65.1, 3.1),
]

# Runs the snippets of a card in one namespace, as a reader would.
RUN_SNIPPETS = """
import re
namespace = {"__name__": "__main__"}
for snippet in re.findall(r"```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.DOTALL):
    exec(compile(snippet, "README.md", "exec"), namespace)
"""


def values(number, *, part=None, split=None):
    """The results of a table of the paper that are not averages."""
    (table,) = (table for table in PAPER_RESULTS if table.number == number)
    return [
        result.value
        for result in table.results
        if part in (None, result.part) and split in (None, result.split) and "average" not in str(result)
    ]


def value(benchmark, part=None, split=None):
    (found,) = (
        result.value
        for table in PAPER_RESULTS
        for result in table.results
        if result.benchmark == benchmark and part in (None, result.part) and split in (None, result.split)
    )
    return found


@pytest.fixture(scope="module")
def card():
    return build_card()


@pytest.fixture(scope="module")
def metadata(card):
    """The YAML block as the Hub reads it, without this package or `huggingface_hub`."""
    return yaml.safe_load(str(card).split("---\n")[1])


@pytest.fixture
def reader(tmp_path):
    """A folder with the files that the snippets name, and a Hub's cache that holds the published layout."""
    repository = tmp_path / "cache" / f"models--{BASE_MODEL.replace('/', '--')}"
    shutil.copytree(PARITY / "published-tiny", repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_media_of_the_card(folder)
    return folder


def test_the_card_is_built_from_the_document_at_the_root():
    assert (ROOT / "model_card.md").read_text() == TEMPLATE.read_text()


def test_metadata(metadata):
    assert metadata["library_name"] == "transformers"
    assert metadata["pipeline_tag"] == "video-text-to-text"
    assert metadata["base_model"] == BASE_MODEL
    assert metadata["language"] == "en"
    assert {"omnivinci", "video", "audio", "image"} <= set(metadata["tags"])
    # What the Hub asks for beside `license: other`.
    assert metadata["license"] == "other"
    assert re.fullmatch(r"[a-z0-9-]+", metadata["license_name"])
    assert metadata["license_link"] == f"https://huggingface.co/{BASE_MODEL}"


def test_widgets_show_a_video_a_sound_and_an_image(metadata):
    widgets = {widget["example_title"]: widget for widget in metadata["widget"]}
    suffixes = {title: Path(widget["src"]).suffix for title, widget in widgets.items()}
    assert suffixes == {"Video": ".mp4", "Audio": ".mp3", "Image": ".jpg"}
    for widget in widgets.values():
        assert widget["text"]
        assert re.match(r"https://huggingface\.co/datasets/[^/]+/[^/]+/resolve/main/", widget["src"])


def test_results_of_the_paper_survive_the_hubs_format(metadata):
    name, results = model_index_to_eval_results(metadata["model-index"])
    assert name == "OmniVinci"
    assert results == [result for table in PAPER_RESULTS for result in table.eval_results()]
    assert eval_results_to_model_index(name, results) == metadata["model-index"]
    # Were two results of one data set, part and split, the Hub would take them for two metrics of one evaluation.
    assert all(len(entry["metrics"]) == 1 for entry in metadata["model-index"][0]["results"])


def test_results_follow_the_specification_of_the_hub(metadata):
    for entry in metadata["model-index"][0]["results"]:
        assert entry["task"]["type"] and entry["dataset"]["type"] and entry["dataset"]["name"]
        (metric,) = entry["metrics"]
        assert metric["type"] in {"accuracy", "wer", "score"} and isinstance(metric["value"], float)
        assert (metric["type"] == "wer") == (entry["task"]["type"] == "automatic-speech-recognition")
        # Only the Hub itself may say that it has verified a result.
        assert not {"verified", "verifyToken"} & metric.keys()
        assert entry["source"]["url"] == "https://arxiv.org/abs/2510.15870"


def test_each_result_of_the_metadata_stands_in_a_table_of_the_card(card, metadata):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.text.splitlines() if line[:1] == "|"]
    found = {(row[0], row[1], row[2]): row[3] for row in rows if len(row) == 4}
    for entry in metadata["model-index"][0]["results"]:
        dataset = entry["dataset"]
        part, split = dataset.get("config", ""), dataset.get("split", "")
        benchmark = dataset["name"].removesuffix(part).strip()
        assert float(found[benchmark, part, split]) == entry["metrics"][0]["value"]


@pytest.mark.parametrize("number,count", [(3, 4), (4, 1), (5, 6), (6, 8), (7, 4), (8, 12)])
def test_tables_have_the_papers_columns(number, count):
    (table,) = (table for table in PAPER_RESULTS if table.number == number)
    assert len(table.results) == count
    assert len({(result.benchmark, result.part, result.split) for result in table.results}) == count


def test_averages_are_those_of_the_results():
    for scores, average in [
        (values(3), value("Omni average")),
        (values(5), value("Speech recognition average")),
        (values(6, split="test"), value("MMAU", "average", "test")),
        (values(6, split="test-mini"), value("MMAU", "average", "test-mini")),
    ]:
        assert len(scores) >= 3
        assert sum(scores) / len(scores) == pytest.approx(average, abs=0.05 if average == 6.3 else 0.005)


@pytest.mark.parametrize("benchmark,split,other,lead", LEADS)
def test_results_lead_by_what_the_paper_says(benchmark, split, other, lead):
    part = "average" if benchmark == "MMAU" else None
    assert value(benchmark, part, split) - other == pytest.approx(lead, abs=1e-6)


def test_the_card_says_whose_results_they_are(card):
    assert "These are the authors' results of the 9B release" in card.text
    assert "This package measured none of" in card.text


def test_sizes_of_the_card_are_those_of_the_default_config(card):
    config = OmniVinciConfig()
    with torch.device("meta"):
        model = OmniVinciForConditionalGeneration(config)
    parameters = sum(weight.numel() for weight in model.parameters())
    text = config.text_config
    tile = config.vision_config.image_size // config.vision_config.patch_size // config.spatial_merge_size
    head_size = text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head_size * torch.bfloat16.itemsize
    for figure in (
        f"{parameters:,} parameters: {2 * parameters / 1e9:.1f} GB in bfloat16 and {4 * parameters / 1e9:.1f} GB in",
        f"{cache:,}\nbytes a position in bfloat16, {cache * text.max_position_embeddings / 1e9:.1f} GB for",
        f"{text.max_position_embeddings:,} positions",
        f"{tile**2} positions a frame",
        f"the sequence holds {text.max_position_embeddings // (25 * 60)} minutes",
    ):
        assert figure in card.text, figure
    assert 2 * 64 * tile**2 == text.max_position_embeddings, "64 frames take half"


def test_what_the_card_calls_measured_is_in_the_documents(card):
    (measured,) = re.findall(r"Measured by `make bench`.*?\n\n", card.text, re.DOTALL)
    figures = re.findall(r"[\d.]+ (?:s|MB)\b", measured)
    assert len(figures) == 4
    for figure in figures:
        assert figure in PERFORMANCE, figure


@pytest.mark.parametrize(
    "source,base_model,shown",
    [
        (BASE_MODEL, BASE_MODEL, f"[{BASE_MODEL}](https://huggingface.co/{BASE_MODEL}), revision `{REVISION}`"),
        ("someone/omnivinci-nurse", "someone/omnivinci-nurse", "https://huggingface.co/someone/omnivinci-nurse"),
        (Path("/secret/place/checkpoint"), BASE_MODEL, "the folder `checkpoint`"),
        ("/secret/place/checkpoint/", BASE_MODEL, "the folder `checkpoint`"),
        ("~/secret/checkpoint", BASE_MODEL, "the folder `checkpoint`"),
    ],
    ids=str,
)
def test_the_card_says_where_the_weights_come_from(source, base_model, shown):
    card = build_card(source=source, revision=REVISION)
    assert shown in card.text
    assert f"transformers-omnivinci {__version__}" in card.text
    assert card.data.base_model == base_model
    assert "secret" not in str(card)


def test_a_folder_that_looks_like_an_id_of_the_hub_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "someone" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    card = build_card(source="someone/model")
    assert "the folder `model`" in card.text
    assert card.data.base_model == BASE_MODEL


def test_results_of_the_release_are_not_claimed_for_other_models():
    assert build_card(source="/somewhere/omnivinci").data.eval_results
    card = build_card(source="someone/omnivinci-nurse")
    assert card.data.eval_results is None and "model-index" not in str(card)


@pytest.mark.parametrize(
    "kwargs,shown",
    [
        ({"num_parameters": 8_730_535_584, "dtype": "bfloat16"}, "8,730,535,584 parameters in bfloat16 (17.5 GB)"),
        ({"num_parameters": 100_000, "dtype": torch.float32}, "100,000 parameters in float32 (0.4 MB)"),
        ({"num_parameters": 100_000}, "100,000 parameters"),
        ({"dtype": torch.float16}, "parameters in float16"),
    ],
    ids=str,
)
def test_the_card_says_what_the_repository_holds(kwargs, shown):
    assert f"- **Weights held:** {shown}\n" in build_card(**kwargs).text


def test_without_knowledge_of_the_weights_the_card_is_silent_about_them(card):
    assert "Weights held" not in card.text


@pytest.mark.slow
def test_the_same_arguments_give_the_same_text_in_another_process():
    arguments = f"source={BASE_MODEL!r}, revision={REVISION!r}, with_code=True, num_parameters=7, dtype='float16'"
    program = f"from transformers_omnivinci.publishing.card import build_card as b; print(str(b({arguments})), end='')"
    printed = run_python(program)
    card = build_card(source=BASE_MODEL, revision=REVISION, with_code=True, num_parameters=7, dtype="float16")
    assert (printed.returncode, printed.stdout) == (0, str(card)), printed.stderr


def test_saving_and_loading_gives_the_same_card(card, tmp_path):
    card.save(tmp_path / "README.md")
    again = ModelCard.load(tmp_path / "README.md")
    assert str(again) == str(card)
    assert isinstance(again.data, ModelCardData) and again.data.eval_results == card.data.eval_results
    assert (tmp_path / "README.md").read_text().endswith("community tab.\n")


@pytest.mark.parametrize("with_code", [False, True])
def test_nothing_of_the_template_is_left(with_code):
    text = str(build_card(with_code=with_code, revision=REVISION))
    assert not re.search(r"\{\{|\}\}\s*\n|\{%|%\}|\n\n\n\n|None", text)
    assert not re.search(r"[ \t]+$", text, re.MULTILINE)


def test_snippets_of_a_card_with_code_need_no_package():
    snippets = "\n".join(re.findall(r"```python\n(.*?)```", build_card(with_code=True).text, re.DOTALL))
    assert "transformers_omnivinci" not in snippets
    assert len(re.findall(r"(?:from_pretrained|pipeline)\(.*trust_remote_code=True\)", snippets)) == 3
    assert "trust_remote_code" not in build_card().text


@pytest.mark.parametrize("with_code", [False, True])
def test_snippets_load_the_repository_that_is_named(with_code):
    card = build_card(with_code=with_code, revision=REVISION)
    named = build_card(with_code=with_code, revision=REVISION, repo_id="someone/omnivinci")
    assert 'checkpoint = "someone/omnivinci"\n' in named.text
    assert str(name_repository(card, "someone/omnivinci")) == str(named)
    assert named.data.base_model == BASE_MODEL


def test_a_card_of_someone_else_keeps_its_text():
    card = ModelCard("---\nlicense: mit\n---\n\n# Mine\n")
    assert str(name_repository(card, "someone/omnivinci")) == str(card)


@pytest.mark.parametrize(
    "kwargs,message",
    [
        ({"repo_id": "a/b/c"}, "a/b/c"),
        ({"dtype": "bf17"}, "dtype='bf17'"),
        ({"dtype": "nn"}, "dtype='nn'"),
    ],
)
def test_what_is_not_understood_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build_card(**kwargs)


@pytest.mark.slow
def test_snippets_run_as_they_stand(card, reader, load_checkpoint):
    card.save(reader / "README.md")
    environment = os.environ | {
        "HF_HUB_CACHE": str(reader.parent / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH")))),
    }
    done = run_python(RUN_SNIPPETS, cwd=reader, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(re.findall("^```python$", card.text, re.MULTILINE)) == 3
    assert done.stdout == answers_of_the_card(*load_checkpoint(), reader)
