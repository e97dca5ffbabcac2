"""The stages of the data engine, alone and one after another, on films whose events are known."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from transformers_omnivinci import NANO
from transformers_omnivinci.cli import app
from transformers_omnivinci.data_engine.assembly import build_stages, check_config
from transformers_omnivinci.data_engine.clip_media import mp4
from transformers_omnivinci.data_engine.columns import AudioCaptions, Segment, Span, VisualCaptions
from transformers_omnivinci.data_engine.config import EngineConfig, SplitConfig, read_config
from transformers_omnivinci.data_engine.engine import CHATS, REJECTS, RUN, HereRunner, apply, curate
from transformers_omnivinci.data_engine.segment_ledger import FILE, SegmentLedger
from transformers_omnivinci.data_engine.segmentation import cut_at_scenes, cut_evenly, group
from transformers_omnivinci.data_engine.split import Split, list_sources
from transformers_omnivinci.data_engine.stage import Failed, Stage
from transformers_omnivinci.data_engine.typed import plain, read
from transformers_omnivinci.data_engine.world_claims import cut_to
from transformers_omnivinci.data_engine.writing.data_card import PIE
from transformers_omnivinci.data_engine.writing.result_writing import CARD
from transformers_omnivinci.synthetic import Clip, claims_of, read_events, write_clip, write_reels

RUNNER = CliRunner()
CONFIG = """
split: {segment_seconds: 20, clip_seconds: 8}
backends:
  captioner: {type: test-captioner}
  corrector: {type: test-reasoner}
stages:
  visual_caption: {backend: captioner}
  audio_caption: {backend: captioner}
  cross_modal_correction: {backend: corrector}
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("films")
    return [str(path) for path in write_reels(folder, 2, 25)]


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "engine.yaml"
    path.write_text(CONFIG)
    return path


def configured(captioner=(), reasoner=(), **changes) -> EngineConfig:
    content = {
        "split": {"segment_seconds": 20, "clip_seconds": 8},
        "backends": {
            "captioner": {"type": "test-captioner", **dict(captioner)},
            "corrector": {"type": "test-reasoner", **dict(reasoner)},
        },
        "stages": {
            "visual_caption": {"backend": "captioner"},
            "audio_caption": {"backend": "captioner"},
            "cross_modal_correction": {"backend": "corrector"},
        },
    }
    return read(EngineConfig, {**content, **changes}, "the config")


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()[1:]]


# Where videos are cut


def test_two_minutes_of_twenty_seconds():
    clips = cut_evenly(0, 301, 20, 2)
    assert clips[-1] == Span(280, 301) and {clip.end - clip.start for clip in clips[:-1]} == {20}
    assert [len(clips) for clips in group(clips, 120, 2)] == [6, 6, 3]
    assert [[*map(plain, clips)] for clips in group(cut_evenly(0, 121, 20, 2), 120, 2)][0][-1] == {
        "start": 100,
        "end": 121,
    }


@given(
    st.floats(0.05, 4_000),
    st.floats(5, 200),
    st.floats(0, 1),
    st.floats(1, 10),
    st.lists(st.floats(0, 1), max_size=20),
)
def test_cuts_leave_nothing_out_and_respect_their_limits(total, seconds, share, factor, scenes):
    shortest, total = share * seconds, round(total, 3)
    edges = [0.0, *sorted({round(scene * total, 3) for scene in scenes} - {0.0, total}), total]
    for clips in (cut_evenly(0.0, total, seconds, shortest), cut_at_scenes(edges, seconds, shortest)):
        assert clips[0].start == 0 and clips[-1].end == total
        assert all(one.end == other.start for one, other in zip(clips, clips[1:]))
        lengths = [clip.end - clip.start for clip in clips]
        assert max(lengths) <= seconds + shortest + 0.01
        assert min(lengths) >= min(shortest, total) - 0.01 and min(lengths) > 0
        groups = group(clips, factor * seconds, shortest)
        assert [clip for clips in groups for clip in clips] == clips
        assert all(clips[-1].end - clips[0].start <= factor * seconds + shortest + 0.01 for clips in groups)


def test_a_film_becomes_segments_with_the_times_of_its_own(films):
    rows = Split(SplitConfig(segment_seconds=20, clip_seconds=8))([{"source": films[0]}])
    segments = [read(Segment, {name: row[name] for name in row}, "row") for row in rows]
    assert segments[0].start == 0 and segments[1].start == segments[0].end
    assert segments[0].within(segments[0].clips[1]) == Span(8, 16)
    assert len({segment.id for segment in segments}) == len(segments) == 2


def test_what_cannot_be_split_is_listed_with_the_reason(films, tmp_path):
    silence = Clip(np.zeros((40, 32, 32, 3), np.uint8), np.zeros(80_000, np.float32), 8, 16_000)
    write_clip(tmp_path / "silent.mp4", silence)
    (tmp_path / "deaf.mp4").write_bytes(mp4(silence.frames, 8, None))
    (tmp_path / "damaged.mp4").write_bytes(Path(films[0]).read_bytes()[:3000])
    names = ["silent.mp4", "deaf.mp4", "damaged.mp4", "missing.mp4"]
    rows = Split(SplitConfig(shortest_source=2))([{"source": str(tmp_path / name)} for name in names])
    reasons = [row["rejected"]["reason"] for row in rows]
    assert reasons[0] == "It is silent from 0 to 5 s." and reasons[1] == "It has no sound."
    assert "damaged" in reasons[2] and "There is no file" in reasons[3]
    for options, told in ((dict(shortest_source=100.0), "less than 100 s"), (dict(longest_source=9.0), "more than 9")):
        (row,) = Split(SplitConfig(**options))([{"source": films[0]}])
        assert told in row["rejected"]["reason"]


def test_sources_are_files_folders_lists_and_urls(films, tmp_path):
    folder = Path(films[0]).parent
    (tmp_path / "list.txt").write_text(f"{films[0]}\n\nhttps://example.org/a.mp4\n")
    assert list_sources([str(folder)]) == films
    assert list_sources([str(tmp_path / "list.txt"), films[0], films[1]]) == [
        films[0],
        "https://example.org/a.mp4",
        films[1],
    ]
    with pytest.raises(OSError, match="no file with the name of a video"):
        list_sources([str(tmp_path)])


# The config


def test_without_ray_a_run_says_what_to_install(config_file, films, tmp_path):
    """This environment has no Ray; `make curate-test` has one."""
    arguments = ["curate", films[0], "--config", str(config_file), "--output", str(tmp_path / "out")]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 1 and "transformers-omnivinci[curate]" in result.stderr
    result = RUNNER.invoke(app, [*arguments, "--here", "--address", "auto"])
    assert result.exit_code == 1 and "give one of them" in result.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("visual_caption:", "visual_captoin:", "unknown entry 'visual_captoin': did you mean 'visual_caption'"),
        ("clip_seconds: 8", "clip_second: 8", "unknown entry 'clip_second': did you mean 'clip_seconds'"),
        ("clip_seconds: 8", "clip_seconds: long", "split.clip_seconds is 'long': a number is accepted"),
        ("type: test-captioner", "type: test-captoiner", "did you mean 'test-captioner'"),
        ("type: test-captioner", "type: test-captioner, drop: 2", "0 to 1 is accepted"),
        ("{backend: captioner}", "{backend: capitoner}", "did you mean 'captioner'"),
        ("{backend: corrector}", "{backend: corrector, prompt: none.txt}", "no prompt 'none.txt'"),
        ("stages:", "stages: [", "is not YAML"),
        ("clip_seconds: 8", "clip_seconds: 30", "longer than segments"),
    ],
)
def test_a_wrong_config_is_one_sentence_with_the_nearest_name(config_file, films, tmp_path, old, new, told):
    config_file.write_text(CONFIG.replace(old, new))
    result = RUNNER.invoke(
        app, ["curate", films[0], "--config", str(config_file), "--output", str(tmp_path / "out"), "--here"]
    )
    assert result.exit_code == 1 and told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_stage_without_the_columns_that_it_needs_is_refused():
    with pytest.raises(ValueError, match="cross_modal_correction reads 'visual_captions', which no stage before"):
        check_config(configured(stages={"cross_modal_correction": {"backend": "corrector"}}))


def test_prompts_of_a_folder_take_the_place_of_those_of_the_package(config_file, tmp_path, films):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "visual_caption.txt").write_text("Look for {{ seconds }} s.")
    config_file.write_text(CONFIG + "prompts: prompts\n")
    stage = build_stages(read_config(config_file))[0]
    assert stage.request("a", {"seconds": 8}).text == "Look for 8 s."
    (tmp_path / "prompts" / "visual_caption.txt").write_text("Look for {{ second }} s.")
    stage = build_stages(read_config(config_file))[0]
    with pytest.raises(ValueError, match="cannot be filled in.*Its fields are seconds"):
        stage.request("a", {"seconds": 8})


# Stages alone


class Doubled(Stage):
    name = "doubled"
    takes, gives = (Span,), (VisualCaptions,)

    def process(self, rows):
        return [
            Failed("It is backwards.") if span.end < span.start else (VisualCaptions([str(span.end)]),)
            for (span,) in rows
        ]


def test_a_stage_checks_its_borders_and_passes_rejected_rows_through():
    rows = [{"start": 0, "end": 1.5}, {"start": 2.0, "end": 1.0}, {"rejected": {"stage": "x", "reason": "y"}}]
    done = Doubled()(rows)
    assert done[0]["visual_captions"] == ["1.5"] and "visual_captions" not in rows[0]
    assert done[1]["rejected"] == {"stage": "doubled", "reason": "It is backwards."}
    assert done[2] == rows[2]
    with pytest.raises(ValueError, match="doubled reads the column 'end'"):
        Doubled()([{"start": 0}])
    with pytest.raises(ValueError, match="doubled.end is 'late'"):
        Doubled()([{"start": 0, "end": "late"}])

    class Wrong(Doubled):
        def process(self, rows):
            return [(VisualCaptions([1]),) for _ in rows]

    with pytest.raises(ValueError, match="the result of the stage doubled.visual_captions"):
        Wrong()([{"start": 0, "end": 1}])


def test_captioners_are_deaf_and_blind_and_imagine_the_other_sense(films):
    config = configured({"imagine": 1.0})
    split, (visual, audio, _) = Split(config.split), build_stages(config)
    (row, _) = audio(visual(split([{"source": films[0]}])))
    truth = read_events(films[0])
    for place, clip in enumerate(row["clips"]):
        for column, sense in (("visual_captions", "visual"), ("audio_captions", "audio")):
            told = claims_of(row[column][place])
            own = [event.sentence for event in told if event.sense == sense]
            assert own == [e.sentence for e in cut_to(truth, clip["start"], clip["end"]) if e.sense == sense]
            assert sum(event.sense != sense for event in told) == 1
    again = audio(visual(split([{"source": films[0]}])))[0]
    assert [again[name] for name in ("visual_captions", "audio_captions")] == [
        row[name] for name in ("visual_captions", "audio_captions")
    ]


def test_what_only_one_sense_could_have_told_is_corrected_by_the_other(films):
    config = configured({"imagine": 1.0})
    rows = apply(build_stages(config), Split(config.split)([{"source": film} for film in films]))
    for row in rows:
        truth = {event.sentence for event in cut_to(read_events(row["source"]), row["start"], row["end"])}
        told = {event.sentence for event in claims_of(row["omni_caption"])}
        assert told == truth
        imagined = len(row["clips"]) * 2 - len(row["rejected_statements"])
        assert imagined >= 0 and {one["sense"] for one in row["rejected_statements"]} == {"visual", "audio"}
        assert all("could not" in one["reason"] for one in row["rejected_statements"])
    assert rows[0]["provenance"][-1]["calls"] == 1 and rows[0]["provenance"][0]["model"] == "test-captioner"


def test_without_mistakes_captions_are_the_truth_across_the_borders_of_clips(films):
    config = configured(split={"segment_seconds": 60, "clip_seconds": 5})
    (row,) = apply(build_stages(config), Split(config.split)([{"source": films[0]}]))
    told = [event.sentence for event in claims_of(row["omni_caption"])]
    assert sorted(told) == sorted(event.sentence for event in read_events(films[0]))
    assert row["rejected_statements"] == []


# Whole runs


def test_a_run_writes_chats_that_training_reads(films, tmp_path, config_file):
    from transformers import AutoProcessor

    from transformers_omnivinci.training.data import JsonLines

    out = tmp_path / "out"
    arguments = ["curate", *films, str(tmp_path / "none.mp4"), "--config", str(config_file), "--output", str(out)]
    result = RUNNER.invoke(app, [*arguments, "--here"])
    assert result.exit_code == 0, result.output
    assert "4 segments finished, 0 known before, 1 rejected" in result.output and "4 caption" in result.output
    rows = JsonLines(out / CHATS)
    sample = rows.sample(1)
    video = sample.messages[0]["content"][0]
    assert video["video_start"] == 16.0 and Path(video["video"]).samefile(films[0])
    assert not Path(rows[1]["messages"][0]["content"][0]["path"]).is_absolute()
    plan = AutoProcessor.from_pretrained(NANO).plan(sample.messages[:1])
    assert plan.length > len(plan.text_ids)
    (reject,) = map(json.loads, (out / REJECTS).read_text().splitlines())
    assert reject["stage"] == "split" and reject["source"] == "../none.mp4"
    assert {path.name for path in out.iterdir()} == {CHATS, REJECTS, FILE, RUN, ".lock", CARD, PIE}


def test_a_killed_run_goes_on_and_does_nothing_twice(films, tmp_path):
    out, config = tmp_path / "out", configured()

    class Killed(Exception):
        pass

    def kill(row):
        raise Killed

    with pytest.raises(Killed):
        curate(config, films, out, HereRunner(), kill)
    assert len(rows_of(out)) == 1 and not (out / CHATS).exists()
    with (out / FILE).open("a") as file:
        file.write('{"id": "cut off')
    seen = []
    report = curate(config, films, out, HereRunner(), lambda row: seen.append(row["id"]))
    assert (report.known, report.finished) == (1, 3)
    names = [row["id"] for row in rows_of(out)]
    assert len(names) == len(set(names)) == 4 and names[0] not in seen
    assert curate(config, films, out, HereRunner()).finished == 0


def test_two_runs_into_one_folder_and_other_settings_are_refused(films, tmp_path):
    out, config = tmp_path / "out", configured()

    def run_another(row):
        with pytest.raises(OSError, match="Another run is writing to"):
            curate(config, films, out, HereRunner())

    curate(config, films[:1], out, HereRunner(), run_another)
    with pytest.raises(ValueError, match="holds results of a run with seed = 0, not 1"):
        curate(configured(seed=1), films, out, HereRunner())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ValueError, match="is not empty"):
        curate(config, films, tmp_path / "other", HereRunner())


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with SegmentLedger(tmp_path / "out", {"seed": 0}) as ledger:
        ledger.add({"id": "a", "text": "x" * 1000})
        before = ledger.path.read_bytes()
        # A limit of the size of files makes writes fail as a full disk does: some bytes are written, then none.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
        try:
            with pytest.raises(OSError, match="cannot be written"):
                ledger.add({"id": "b", "text": "x" * 1000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert ledger.path.read_bytes() == before
        ledger.add({"id": "b", "text": "short"})
    with SegmentLedger(tmp_path / "out", {"seed": 0}) as ledger:
        assert [row["id"] for row in ledger.rows()] == ["a", "b"]


def test_rejected_segments_are_tried_again(films, tmp_path):
    out, config = tmp_path / "out", configured()
    film = tmp_path / "film.mp4"
    assert curate(config, [str(film)], out, HereRunner()).rejected == 1
    shutil.copy(films[0], film)
    shutil.copy(Path(films[0]).with_suffix(".events.json"), film.with_suffix(".events.json"))
    report = curate(config, [str(film)], out, HereRunner())
    assert (report.finished, report.rejected, report.known) == (2, 0, 0)


def test_answers_of_another_structure_are_asked_again_once(films, tmp_path):
    report = curate(configured(reasoner={"garbage": 0.5}, seed=1), films, tmp_path / "out", HereRunner())
    rows = rows_of(tmp_path / "out")
    repairs = [row["provenance"][-1]["repairs"] for row in rows]
    assert report.finished + report.rejected == 4 and sum(repairs) > 0
    for row in rows:
        if "rejected" in row:
            assert "its JSON is broken" in row["rejected"]["reason"]


def test_columns_of_a_sense_are_one_for_each_clip():
    config = configured()
    correction = build_stages(config)[2]
    segment = Segment("a", "a.mp4", 0, 16, [Span(0, 8), Span(8, 16)])
    row = plain(segment) | plain(VisualCaptions(["one"])) | plain(AudioCaptions(["one", "two"], ["", ""]))
    with pytest.raises(ValueError, match="2 clips of the segment a have 1 visual captions"):
        correction([row])


def test_a_run_tells_how_fast_each_stage_is(films, tmp_path):
    lines = []
    config = configured(captioner={"delay": 0.01})
    report = curate(
        config, [*films, "/none.mp4"], tmp_path / "out", HereRunner(),
        on_report=lambda one: lines.append(one.throughput.line()),
    )  # fmt: skip
    told = json.loads((tmp_path / "out" / RUN).read_text())
    assert (told["finished"], told["rejected"]) == (report.finished, 1)
    stages = told["throughput"]["stages"]
    assert list(stages) == ["split", "visual_caption", "audio_caption", "cross_modal_correction"]
    assert [stage["segments"] for stage in stages.values()] == [5, 4, 4, 4]  # what is rejected only passes through
    assert stages["visual_caption"]["seconds"] >= 4 * 0.01
    assert told["throughput"]["hours"] == pytest.approx(sum(read_seconds(films)) / 3600, abs=1e-4)
    assert len(lines) == 5 and "4 segments" in lines[-1] and "visual_caption" in lines[-1]
    assert all("took" not in row for row in rows_of(tmp_path / "out"))


def read_seconds(films):
    for film in films:
        for row in Split(SplitConfig(segment_seconds=20, clip_seconds=8))([{"source": film}]):
            yield row["end"] - row["start"]
