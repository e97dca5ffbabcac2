"""Opens and decodes media: video and its sound, audio, images. No other folder of the package reads a media file."""

from .backends import AUDIO_BACKENDS, VIDEO_BACKENDS
from .images import IMAGE_SUFFIXES, load_frames_folder, load_image, probe_image
from .sounds import load_audio, probe_audio
from .timeline import OmniVinciVideoMetadata
from .videos import LoadedVideo, load_video, probe_video

__all__ = [
    "AUDIO_BACKENDS",
    "IMAGE_SUFFIXES",
    "VIDEO_BACKENDS",
    "LoadedVideo",
    "OmniVinciVideoMetadata",
    "load_audio",
    "load_frames_folder",
    "load_image",
    "load_video",
    "probe_audio",
    "probe_image",
    "probe_video",
]
