"""Media that are encoded piece by piece while they are read, so that only embeddings of the whole are held."""

from collections.abc import Iterable, Sequence

import torch

from ..processing.batch import pad_seconds
from .outputs import OmniVinciMediaOutput


class EncodesPieces:
    """
    Mixin of [`MediaEncoder`]: what is done to a few frames or windows at a time, and what then needs all of them, such
    as pooling over time. Together they give what [`encode_media`] gives for all at once, without gradients.
    """

    @torch.no_grad()
    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """
        Encodes and projects frames that follow each other.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(num_frames, 3, image_size, image_size)`): As in
                [`MediaInputs`], on any device and in any precision.

        Returns:
            `torch.Tensor` of shape `(num_frames, rows, columns, hidden_size)`: for [`place_frames`].
        """
        _, patches = self._encode_images(pixel_values_videos.to(self.device, self.dtype))
        return self.vision_projector(patches, self.config.vision_chunk_size)

    @torch.no_grad()
    def place_frames(self, clips: list[torch.Tensor], seconds: Sequence[Sequence[float]]) -> OmniVinciMediaOutput:
        """
        Pools the frames of whole videos and rotates their seconds into them (CRTE).

        Args:
            clips (`list[torch.Tensor]`): All frames of each video, of [`encode_frames`]. The list is emptied.
            seconds (`Sequence[Sequence[float]]`): Of the frames of each video.

        Returns:
            [`OmniVinciMediaOutput`]: with the `pooler_output` of [`get_video_features`].
        """
        embeddings = []
        for row in seconds:
            clip = clips.pop(0)
            embeddings.append(self._pool_and_rotate(clip, torch.tensor(row, dtype=torch.float32, device=clip.device)))
        return OmniVinciMediaOutput(pooler_output=embeddings)

    @torch.no_grad()
    def encode_windows(self, pieces: Iterable[torch.Tensor], num_windows: int) -> torch.Tensor:
        """
        Encodes the windows of one sound.

        Args:
            pieces (`Iterable[torch.Tensor]`):
                Log-mel windows that follow each other, `(windows of the piece, mel bins, mel frames)`.
            num_windows (`int`): How many there are in all.

        Returns:
            `torch.Tensor` of shape `(num_windows, vectors, audio hidden_size)`: for [`place_windows`].
        """
        encoded, start = None, 0
        for piece in pieces:
            made = self._encode_windows(piece.to(self.device, self.dtype)).last_hidden_state
            encoded = made.new_empty(num_windows, *made.shape[1:]) if encoded is None else encoded
            encoded[start : start + len(made)] = made
            start += len(made)
        return encoded

    @torch.no_grad()
    def place_windows(self, sounds: list[torch.Tensor], seconds: Sequence[Sequence[float]]) -> OmniVinciMediaOutput:
        """
        Compresses and projects whole sounds and rotates seconds into their vectors (CRTE).

        Args:
            sounds (`list[torch.Tensor]`): All windows of each sound, of [`encode_windows`]. The list is emptied.
            seconds (`Sequence[Sequence[float]]`): Of the vectors of each sound that stand in the sequence.

        Returns:
            [`OmniVinciMediaOutput`]: with the `pooler_output` of [`get_audio_features`].
        """
        embeddings = []
        for row in seconds:
            windows = sounds.pop(0)
            timestamps = pad_seconds([row]).to(windows.device)
            embeddings += self._compress_and_rotate(windows.flatten(0, 1)[None], timestamps)[0]
        return OmniVinciMediaOutput(pooler_output=embeddings)
