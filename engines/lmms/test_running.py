"""How the model runs in lmms-eval: batches, media, caches, interruptions, processes, prompts and errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Audio, Dataset, Features, Image, Sequence, Value
from lmms_eval.models import get_model, get_model_manifest
from safetensors.numpy import load_file
from transformers import AutoProcessor

from engines.lmms.local_data import INCLUDED, LocalTask, write_task
from engines.lmms.run import answers_of, run_lmms_eval
from transformers_omnivinci import NANO, OmniVinciForConditionalGeneration
from transformers_omnivinci.evaluation import Asker
from transformers_omnivinci.inference.lmms_eval import TASKS
from transformers_omnivinci.inference.lmms_eval.model import OmniVinciChat, OmniVinciSimple

ROOT = Path(__file__).resolve().parents[2]
PARITY = ROOT / "tests" / "fixtures" / "parity"


@pytest.fixture
def calls(monkeypatch):
    """How many videos were encoded and chats answered."""
    counted = {"encoded": 0, "answered": 0}
    encode, generate = OmniVinciForConditionalGeneration.encode_media, Asker.generate

    def encode_media(self, **media):
        counted["encoded"] += len(media["video_timestamps"])
        return encode(self, **media)

    def generate_answers(self, prompts, *args, **kwargs):
        counted["answered"] += len(prompts)
        return generate(self, prompts, *args, **kwargs)

    monkeypatch.setattr(OmniVinciForConditionalGeneration, "encode_media", encode_media)
    monkeypatch.setattr(Asker, "generate", generate_answers)
    return counted


def test_the_model_takes_the_place_of_lmms_evals_own():
    manifest = get_model_manifest("omnivinci")
    for path in (manifest.chat_class_path, manifest.simple_class_path):
        assert path.startswith("transformers_omnivinci.")
    assert get_model("omnivinci") is OmniVinciChat
    assert get_model("omnivinci", force_simple=True) is OmniVinciSimple


def test_questions_about_a_video_share_what_is_encoded(task_of, calls):
    task = task_of("DailyOmni")
    run_lmms_eval(task, arguments="num_frames=8")
    assert calls == {"encoded": task.num_media, "answered": len(task.chats)}
    assert task.num_media < len(task.chats)


def test_batches_give_the_same_answers_as_questions_alone(task_of):
    task = task_of("WorldSense")
    one, four = (
        run_lmms_eval(task, arguments="num_frames=8,use_audio_in_video=True", batch_size=size, limit=12)
        for size in (1, 4)
    )
    assert answers_of(one, task) == answers_of(four, task)
    assert len(answers_of(one, task)) == 12


def test_options_of_the_processor_reach_it(task_of):
    task = task_of("WorldSense")
    few, many, deaf = (
        run_lmms_eval(task, arguments=arguments, limit=1)["samples"][task.name][0]["token_counts"][0]
        for arguments in ("num_frames=4", "fps=4,max_frames=32", "num_frames=4,load_audio_from_video=False")
    )
    assert deaf["input_tokens"] < few["input_tokens"] < many["input_tokens"]


def test_a_simple_model_gives_the_same_answers(task_of, results_of):
    task = task_of("OmniBench")
    simple = run_lmms_eval(task, limit=8, force_simple=True)
    assert "OmniVinciSimple" in simple["config"]["model_backend"]
    assert answers_of(simple, task) == answers_of(results_of("OmniBench"), task)[:8]


def test_the_cache_of_lmms_eval_is_gone_on_from(task_of, calls, tmp_path):
    task = task_of("WorldSense")
    cached = {"use_cache": str(tmp_path), "arguments": "num_frames=8"}
    run_lmms_eval(task, limit=4, **cached)
    assert calls["answered"] == 4
    first = run_lmms_eval(task, limit=8, **cached)
    assert calls["answered"] == 8
    again = run_lmms_eval(task, limit=8, batch_size=1, **cached)
    assert calls["answered"] == 8
    assert answers_of(again, task) == answers_of(first, task)


def test_an_interrupted_run_goes_on_from_its_answers(task_of, calls, tmp_path, monkeypatch):
    task = task_of("WorldSense")
    arguments = f"num_frames=8,answers={tmp_path}"
    generate = Asker.generate

    def interrupted(self, prompts, *args, **kwargs):
        if calls["answered"] >= 6:
            raise KeyboardInterrupt
        return generate(self, prompts, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Asker, "generate", interrupted)
        run_lmms_eval(task, arguments=arguments, limit=12, batch_size=2)
    assert calls["answered"] == 6
    resumed = run_lmms_eval(task, arguments=arguments, limit=12)
    assert calls["answered"] == 12
    assert answers_of(resumed, task) == answers_of(run_lmms_eval(task, arguments="num_frames=8", limit=12), task)


CASES = ("two_images", "image_and_audio", "image_wide", "audio_two_windows", "text_only")
UTILS = """
def doc_to_visual(doc):
    return [*doc["images"], *doc["sounds"]]


def process_results(doc, results):
    return {"same": float(results[0] == doc["answer"])}
"""


def test_several_images_and_sounds_give_the_answers_of_the_release(tmp_path):
    processor, rows = AutoProcessor.from_pretrained(PARITY / "published-tiny"), []
    cases = {case["name"]: case for case in json.loads((PARITY / "cases.json").read_text())}
    for name in CASES:
        tensors = load_file(PARITY / cases[name]["file"])
        *media, text = cases[name]["content"]
        kinds = [item["type"] for item in media]
        answer = processor.decode(tensors["expected.generated_ids"].flatten().tolist(), skip_special_tokens=True)
        rows.append(
            {
                "question": text["text"],
                "answer": answer.strip(),
                "images": [tensors[f"image.{number}"] for number in range(kinds.count("image"))],
                "sounds": [
                    {"array": tensors[f"audio.{number}.waveform"] / np.float32(32768), "sampling_rate": 16_000}
                    for number in range(kinds.count("audio"))
                ],
            }
        )
    columns = {"question": Value("string"), "answer": Value("string")}
    features = Features(columns | {"images": Sequence(Image()), "sounds": Sequence(Audio(16_000))})
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "cases.parquet")
    (tmp_path / "utils.py").write_text(UTILS)
    (tmp_path / "cases.yaml").write_text(
        f"task: cases\ndataset_path: parquet\ndataset_kwargs: {{data_files: {{test: {tmp_path}/cases.parquet}}}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: question\ndoc_to_target: answer\n"
        "doc_to_visual: !function utils.doc_to_visual\nprocess_results: !function utils.process_results\n"
        "generation_kwargs: {max_new_tokens: 12, min_new_tokens: 12, temperature: 0}\n"
        "metric_list: [{metric: same, aggregation: mean, higher_is_better: true}]\n"
    )
    task = LocalTask("cases", "same,none", tmp_path, tmp_path / "cases.parquet", [], [])
    results = run_lmms_eval(task, model=PARITY / "published-tiny", batch_size=len(CASES))
    assert answers_of(results, task) == [row["answer"] for row in rows]
    assert results["results"]["cases"]["same,none"] == 1


@pytest.mark.parametrize(
    ("name", "include", "prompt"),
    [
        ("WorldSense", INCLUDED / "worldsense" / "worldsense.yaml", "Respond with only the letter (A, B, C, or D)"),
        ("OmniBench", INCLUDED / "omni_bench" / "omni_bench.yaml", "Answer with the option's letter"),
        ("DailyOmni", Path(TASKS) / "daily_omni" / "daily_omni.yaml", "based on the given video and audio together"),
        ("LibriSpeech", INCLUDED / "librispeech" / "librispeech_test_clean.yaml", "Please recognize the speech"),
    ],
)
def test_the_prompts_of_the_tasks_are_asked_as_they_are(name, include, prompt, task_of, tmp_path, monkeypatch):
    task, asked = task_of(name), []
    prepare = Asker.prepare

    def watched(self, chats):
        asked.extend(chats)
        return prepare(self, chats)

    monkeypatch.setattr(Asker, "prepare", watched)
    changes = {} if name != "WorldSense" else {"doc_to_target": "answer"}
    folder = write_task("as_it_is", tmp_path, include, task.data_file, **changes)
    whole = LocalTask("as_it_is", task.metric, folder, task.data_file, [], [])
    results = run_lmms_eval(whole, limit=2, arguments="num_frames=4,system_prompt=You answer.")
    assert all(answers_of(results, whole))
    for chat in asked:
        assert [message["role"] for message in chat] == ["system", "user"]
        *media, text = chat[1]["content"]
        assert prompt in text["text"] and media
        questions = [one[0]["content"][-1]["text"] for one in task.chats]
        assert name == "LibriSpeech" or any(question in text["text"] for question in questions)


def test_sportu_is_asked_from_the_file_of_its_authors(task_of, tmp_path, monkeypatch):
    videos = [Path(chat[0]["content"][0]["path"]) for chat in task_of("WorldSense").chats]
    entries = [
        {
            "id": video.stem,
            "question": "How many players are shown in total in this video?",
            "options": {"A": 4, "B": 6, "C": 5, "D": 2} if number else {"A": "Yes", "B": "No"},
            "answer": "B",
            "difficulty level": "easy",
        }
        for number, video in enumerate(videos[:3])
    ]
    (tmp_path / "questions.json").write_text(json.dumps(entries))
    monkeypatch.setenv("SPORTU_VIDEOS", str(videos[0].parent.parent))
    data = {"data_files": {"test": str(tmp_path / "questions.json")}, "sample_by": "document"}
    include = Path(TASKS) / "sportu_video" / "sportu_video_mc.yaml"
    task = {"include": str(include), "task": "sportu", "dataset_kwargs": data}
    (tmp_path / "sportu.yaml").write_text(yaml.safe_dump(task))
    results = run_lmms_eval(LocalTask("sportu", "accuracy,none", tmp_path, tmp_path, [], []))
    found = results["results"]["sportu"]
    assert 0 <= found["accuracy,none"] <= 1 and found["accuracy_by_difficulty,none"].keys() == {"easy"}
    assert len(results["samples"]["sportu"]) == 3


def test_processes_share_the_questions(task_of, results_of, tmp_path):
    task = task_of("DailyOmni")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "lmms_eval", "--model", "omnivinci", "--model_args", f"pretrained={NANO}", "--tasks", task.name]
    command += ["--include_path", str(task.folder), "--batch_size", "4", "--output_path", str(tmp_path)]
    command += ["--log_samples", "--verbosity", "DEBUG"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = tmp_path.rglob("*_results.json")
    alone = results_of("DailyOmni")["results"][task.name]
    together = json.loads(path.read_text())["results"][task.name]
    assert together[task.metric] == pytest.approx(alone[task.metric])
    assert together["accuracy_by_type,none"] == pytest.approx(alone["accuracy_by_type,none"])
    (path,) = tmp_path.rglob("*_samples_*.jsonl")
    assert len(path.read_text().splitlines()) == len(task.chats)


def test_errors_name_the_task_and_its_document(task_of, home):
    task = task_of("DailyOmni")
    video = Path(task.chats[0][0]["content"][0]["path"])
    hidden = video.rename(video.with_suffix(".hidden"))
    try:
        with pytest.raises(ValueError, match=rf"Document 0 .* 'daily_omni_local': .*{video.name}"):
            run_lmms_eval(task, limit=1)
        video.write_bytes(b"no video")
        with pytest.raises(ValueError, match=rf"Document 0 .* 'daily_omni_local': .*{video.name}"):
            run_lmms_eval(task, limit=1)
    finally:
        hidden.rename(video)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ("frames=8", TypeError, "frames"),
        ("num_frames=0", ValueError, "num_frames=0"),
        ("num_frames=8,num_video_frames=8", ValueError, "twice"),
        ("num_frames=8,fps=1", ValueError, "both"),
        ("max_frames=8", ValueError, "fps"),
        ("load_audio_from_video=often", TypeError, "often"),
        ("device_map=auto,device=cpu", ValueError, "device_map"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        OmniVinciChat.create_from_arg_string(f"pretrained={NANO},{arguments}")


def test_what_other_chat_models_refuse_is_refused_in_words():
    model = OmniVinciChat.create_from_arg_string(f"pretrained={NANO}", {"batch_size": 2, "device": "cpu"})
    assert (model.batch_size, model.rank, model.world_size) == (2, 0, 1)
    with pytest.raises(NotImplementedError, match="likelihoods"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="one round"):
        model.generate_until_multi_round([])
    with pytest.raises(ValueError, match="batch_size=auto"):
        OmniVinciChat.create_from_arg_string(f"pretrained={NANO}", {"batch_size": "auto"})
