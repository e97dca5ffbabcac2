"""Stretches of videos that are copied, not encoded anew."""

import numpy as np
import pytest

from transformers_omnivinci.media import cut_video, load_video

from .conftest import CLIP


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 5.0), (3.3, 4.1)])
def test_a_cut_shows_and_plays_what_the_video_does(span):
    start, end = span
    content, suffix, offset = cut_video(CLIP, start, end)
    assert suffix == ".mp4"
    whole = load_video(CLIP, video_start=start, video_end=end, load_audio=True)
    cut = load_video(content, video_start=offset, video_end=offset + end - start, load_audio=True)
    assert cut.frames.equal(whole.frames)
    # A last packet of sound may end a little before the cut does.
    length = len(cut.waveform)
    assert 0 <= len(whole.waveform) - length <= 0.1 * 16_000
    assert np.abs(cut.waveform - whole.waveform[:length])[1600:].max(initial=0) < 1e-3


def test_what_cannot_be_cut_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="text.mp4"):
        cut_video(tmp_path / "text.mp4", 0, 1)
