"""Live sources: cameras, streams, pipes and files that still grow become chunks of frames and sound, in order."""

from .buffer import EVENTS, LiveChunk, LiveEvent
from .source import LiveSource

__all__ = ["EVENTS", "LiveChunk", "LiveEvent", "LiveSource"]
