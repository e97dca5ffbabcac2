"""Opens and decodes videos with their sound, audio and images. No other folder of the package reads media files."""

from .backends import AUDIO_BACKENDS, VIDEO_BACKENDS
from .cutting import cut_video
from .encoding import SOUND_FORMATS, SoundEncoder, encode_sound
from .images import (
    check_transparency,
    is_still,
    list_frames_folder,
    load_image,
    probe_image,
    value_range,
)
from .kinds import kind_of
from .live import EVENTS, LiveChunk, LiveEvent, LiveSource
from .samples import SampleFile
from .sounds import load_audio, probe_audio, resample
from .sources import download, is_self_contained, is_url
from .timeline import OmniVinciVideoMetadata
from .videos import LoadedVideo, load_video, probe_video

__all__ = [
    "AUDIO_BACKENDS",
    "EVENTS",
    "SOUND_FORMATS",
    "VIDEO_BACKENDS",
    "LiveChunk",
    "LiveEvent",
    "LiveSource",
    "LoadedVideo",
    "OmniVinciVideoMetadata",
    "SampleFile",
    "SoundEncoder",
    "check_transparency",
    "cut_video",
    "download",
    "encode_sound",
    "is_self_contained",
    "is_still",
    "is_url",
    "kind_of",
    "list_frames_folder",
    "load_audio",
    "load_image",
    "load_video",
    "probe_audio",
    "probe_image",
    "probe_video",
    "resample",
    "value_range",
]
