"""From the tensors of media to a list of embeddings for each medium: the left half of figure 2."""

import inspect
from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple, logging

from ..processing.batch import MEDIA_INPUTS, NAMES_OF, MediaInputs, count_rows, select_media
from .audio_compression import AudioCompression
from .audio_tower import OmniVinciAudioTower
from .chunks import count_chunks, encode_in_chunks, idle_input
from .dynamic_s2 import merge_scales, stitch_tiles
from .omni_align_net import pair_tracks
from .outputs import OmniVinciMediaOutput
from .piecewise import EncodesPieces
from .projectors import AudioProjector, VisionProjector
from .sharding import Passes, agree, is_sharded, with_idle
from .time_embedding import build_time_embedding
from .video_pooling import pool_clip
from .vision_tower import OmniVinciVisionTower

logger = logging.get_logger(__name__)


class MediaKwargs(MediaInputs, TransformersKwargs, total=False):
    """Keyword arguments of a forward pass: those of transformers, and the media."""


def names_media_inputs(forward: Callable) -> Callable:
    """
    Names the tensors of [`MediaInputs`] in the signature of a forward that takes them as keyword arguments: `generate`
    and `Trainer` read off there what a model accepts.
    """
    signature = inspect.signature(forward)
    *named, kwargs = signature.parameters.values()
    media = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=torch.Tensor | None)
        for name in MEDIA_INPUTS
    ]
    forward.__signature__ = signature.replace(parameters=[*named, *media, kwargs])
    return forward


class MediaEncoder(EncodesPieces):
    """Mixin of models that see and hear: the encoders, the projectors and the time embeddings."""

    def build_media_parts(self, config, dtype: torch.dtype | None = None) -> None:
        """
        Adds what turns media into embeddings: encoders, compression, projectors and time embeddings.

        Args:
            config ([`OmniVinciConfig`]): The config of the whole model.
            dtype (`torch.dtype`, *optional*): That of the encoders. `None`: as their configs say.
        """
        options = {} if dtype is None else {"dtype": dtype}
        self.vision_tower = OmniVinciVisionTower._from_config(
            config.vision_config, num_layers=config.num_vision_layers, **options
        )
        self.vision_projector = VisionProjector(config)
        self.video_time_embedding = build_time_embedding(config, "video")
        self.audio_tower = OmniVinciAudioTower._from_config(config.audio_config, **options)
        self.audio_compression = AudioCompression(config.audio_pooling, config.audio_config.d_model)
        self.audio_projector = AudioProjector(config)
        self.audio_time_embedding = build_time_embedding(config, "audio")

    def _encode_images(
        self, pixel_values: torch.Tensor, encoder_output: torch.Tensor | None = None, **kwargs
    ) -> tuple[BaseModelOutput, torch.Tensor]:
        """(batch, 3, side, side) to the tower's output and patch features (batch, rows, columns, hidden_size)."""
        if encoder_output is None:
            pixel_values = pixel_values.to(self.vision_tower.dtype)
            encoded = self.vision_tower(pixel_values, chunk_size=self.config.vision_chunk_size, **kwargs)
        else:
            encoded = BaseModelOutput(last_hidden_state=encoder_output)
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        return encoded, encoded.last_hidden_state.unflatten(1, (side, side))

    def _encode_windows(
        self, input_features: torch.Tensor, encoder_output: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutput:
        """(num_windows, mel bins, mel frames) to the tower's output, (num_windows, vectors, d_model)."""
        if encoder_output is not None:
            return BaseModelOutput(last_hidden_state=encoder_output)
        input_features = input_features.to(self.audio_tower.dtype)
        return encode_in_chunks(self.audio_tower, input_features, self.config.audio_chunk_size, **kwargs)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor,
        image_grid_hw: torch.LongTensor,
        passes: Passes | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        r"""
        Dynamic S2: encodes tiles, merges the scales of each image and projects them.

        Args:
            pixel_values, image_grid_hw: See [`MediaInputs`].
            passes ([`Passes`], *optional*): How often modules are run at least, see [`encode_media`].
            kwargs: Of the encoder; or `encoder_output`, see [`encode_media`].

        Returns:
            [`BaseModelOutputWithPooling`]: `pooler_output`, the embeddings `(num_embeddings, hidden_size)` of each
            image, and `last_hidden_state`, the patch features of all tiles `(num_tiles, patches, vision hidden_size)`.

        Raises:
            ValueError: the number of tiles is not that of `image_grid_hw`.
        """
        scales = self.config.s2_scales
        media = {"pixel_values": pixel_values, "image_grid_hw": image_grid_hw}
        num_tiles = count_rows("image", media, scales)
        passes = passes or Passes()
        encoded, patches = self._encode_images(pixel_values, num_passes=passes.chunks, **kwargs)
        embeddings = []
        for grid, tiles in zip(image_grid_hw.tolist(), patches.split(num_tiles), strict=True):
            if grid != [1, 1]:
                tiles, grid = merge_scales(tiles, scales, *grid, self.config.s2_output_scale_index)
            embeddings.append(stitch_tiles(self.vision_projector(tiles), *grid).flatten(0, 1))
        idle = [
            self.vision_projector(idle_input(patches)).flatten(0, 2) for _ in range(passes.media - len(embeddings))
        ]
        return BaseModelOutputWithPooling(**encoded, pooler_output=with_idle(embeddings, idle))

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.FloatTensor,
        video_timestamps: torch.FloatTensor,
        output_projected_embeddings: bool = False,
        passes: Passes | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> OmniVinciMediaOutput:
        r"""
        Encodes and projects frames, pools them and rotates their seconds into them (CRTE).

        Args:
            pixel_values_videos, video_timestamps: See [`MediaInputs`].
            output_projected_embeddings (`bool`, *optional*, defaults to `False`):
                Whether `projected_embeddings` are kept, too.
            passes ([`Passes`], *optional*): How often modules are run at least, see [`encode_media`].
            kwargs: Of the encoder; or `encoder_output`, see [`encode_media`].

        Returns:
            [`OmniVinciMediaOutput`]: `pooler_output`, the embeddings `(num_embeddings, hidden_size)` of each video,
            and `last_hidden_state`, the patch features of frames `(num_frames, patches, vision hidden_size)`.

        Raises:
            ValueError: the number of frames is not that of the timestamps.
        """
        media = {"pixel_values_videos": pixel_values_videos, "video_timestamps": video_timestamps}
        num_frames = count_rows("video", media, self.config.s2_scales)
        timestamps = self._in_full_precision(video_timestamps[video_timestamps >= 0])
        passes = passes or Passes()
        encoded, patches = self._encode_images(pixel_values_videos, num_passes=passes.chunks, **kwargs)
        # (num_frames, rows, columns, hidden_size)
        frames = self.vision_projector(patches, self.config.vision_chunk_size, passes.chunks)
        clips = frames.split(num_frames) if num_frames else ()
        embeddings = [
            self._pool_and_rotate(clip, seconds)
            for clip, seconds in zip(clips, timestamps.split(num_frames) if num_frames else (), strict=True)
        ]
        idle = [
            self._pool_and_rotate(idle_input(frames), timestamps.new_zeros(1))
            for _ in range(passes.media - len(embeddings))
        ]
        projected = [clip.flatten(0, 2) for clip in clips] if output_projected_embeddings else None
        return OmniVinciMediaOutput(
            **encoded, pooler_output=with_idle(embeddings, idle), projected_embeddings=projected
        )

    def _pool_and_rotate(self, clip: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
        """(num_frames, rows, columns, hidden_size) and (num_frames,) to (num_embeddings, hidden_size)."""
        pooled = [
            self.video_time_embedding(*pool_clip(clip, seconds, pool_size)).flatten(0, 1)
            for pool_size in self.config.video_pool_sizes
        ]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled)

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.FloatTensor,
        audio_timestamps: torch.FloatTensor,
        audio_num_windows: torch.LongTensor | None = None,
        output_projected_embeddings: bool = False,
        passes: Passes | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> OmniVinciMediaOutput:
        r"""
        Encodes windows of sound, compresses and projects each clip and rotates seconds into its vectors (CRTE).

        Args:
            input_features, audio_timestamps, audio_num_windows:
                See [`MediaInputs`]. Without `audio_num_windows` each clip has one.
            output_projected_embeddings (`bool`, *optional*, defaults to `False`):
                Whether `projected_embeddings` are kept, too.
            passes ([`Passes`], *optional*): How often modules are run at least, see [`encode_media`].
            kwargs: Of the encoder; or `encoder_output`, see [`encode_media`].

        Returns:
            [`OmniVinciMediaOutput`]: `pooler_output`, the embeddings `(num_embeddings, hidden_size)` of each clip,
            and `last_hidden_state`, the encoded windows `(num_windows, vectors, audio hidden_size)`.

        Raises:
            ValueError: windows and timestamps do not match.
        """
        media = {
            "input_features": input_features,
            "audio_timestamps": audio_timestamps,
            "audio_num_windows": audio_num_windows,
        }
        num_windows = count_rows("audio", media, self.config.s2_scales)
        passes = passes or Passes()
        encoded = self._encode_windows(input_features, num_passes=passes.chunks, **kwargs)
        windows, num_clips = encoded.last_hidden_state, len(num_windows)
        if not num_clips:  # what follows is run once in every process
            windows, num_windows, audio_timestamps = idle_input(windows), [1], audio_timestamps.new_zeros(1, 1)
        clips = nn.utils.rnn.pad_sequence(
            [clip.flatten(0, 1) for clip in windows.split(num_windows)], batch_first=True
        )  # (num_clips, most vectors, d_model)
        embeddings, projected = self._compress_and_rotate(clips, audio_timestamps)
        return OmniVinciMediaOutput(
            **encoded,
            pooler_output=embeddings if num_clips else embeddings[0][:0],
            projected_embeddings=projected[:num_clips] if output_projected_embeddings else None,
        )

    def _compress_and_rotate(
        self, clips: torch.Tensor, audio_timestamps: torch.Tensor
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """
        (num_clips, most vectors, d_model) and (num_clips, most vectors that stand in the sequence) to the embeddings
        of each clip, (num_embeddings, hidden_size), and to what they were before time.
        """
        vectors = self.audio_compression(clips)
        heard = audio_timestamps >= 0
        num_vectors = heard.sum(1).tolist()
        most = max(num_vectors)
        if most > vectors.shape[1]:
            raise ValueError(
                f"`audio_timestamps` names {most} vectors of a clip, but the longest clip has {vectors.shape[1]}."
            )
        timestamps = self._in_full_precision(audio_timestamps[heard])
        projected = self.audio_projector(vectors[:, :most][heard[:, :most].to(vectors.device)])
        embeddings = self.audio_time_embedding(projected, timestamps)
        return list(embeddings.split(num_vectors)), list(projected.split(num_vectors))

    @staticmethod
    def _in_full_precision(timestamps: torch.Tensor) -> torch.Tensor:
        if timestamps.dtype in (torch.float16, torch.bfloat16):
            logger.warning_once(
                f"Timestamps came in {timestamps.dtype}, which rounds seconds beyond the first minutes. `.to(dtype)` "
                "of what the processor returns keeps them in float32."
            )
        return timestamps

    def encode_media(
        self,
        output_projected_embeddings: bool = False,
        output_encoded: bool = False,
        encoder_outputs: dict[str, torch.Tensor] | None = None,
        **media: Unpack[MediaInputs],
    ) -> dict[str, OmniVinciMediaOutput]:
        """
        Encodes the media of a batch. The result may be given to `forward` and `generate` as `mm_encoder_outputs`, as
        often as there are questions about the same media.

        Where the weights are sharded (FSDP, ZeRO-3), every process makes the call, also without media: all of them run
        the encoders and projectors as often as the one that has most, on zeros where they have nothing left.

        Args:
            output_projected_embeddings (`bool`, *optional*, defaults to `False`):
                Whether `projected_embeddings` of videos and sounds are kept, too.
            output_encoded (`bool`, *optional*, defaults to `False`):
                Whether `last_hidden_state` is kept, too: what the encoders give, before projectors.
            encoder_outputs (`dict[str, torch.Tensor]`, *optional*):
                By modality, the `last_hidden_state` of these media, of which the encoder is not run again. Where
                weights are sharded, every process gives those of the same modalities, and media of them.
            media: See [`MediaInputs`].

        Returns:
            `dict[str, OmniVinciMediaOutput]`: the features of `"image"`, `"video"` and `"audio"`, as far as there are
            any.

        Raises:
            TypeError: an argument is none of [`MediaInputs`].
            ValueError: tensors do not match.
        """
        unknown = sorted(media.keys() - set(MEDIA_INPUTS))
        if unknown:
            raise TypeError(f"`encode_media` got {unknown}: {', '.join(MEDIA_INPUTS)} are accepted.")
        media, passes, encoded = select_media(media), {}, {}
        known = {name: {"encoder_output": output} for name, output in (encoder_outputs or {}).items()}
        if is_sharded(self):
            passes = agree({modality: self._count_passes(modality, media) for modality in NAMES_OF})
            media = self._no_media({modality for modality in passes if passes[modality].chunks}) | media
        if "pixel_values" in media:
            encoded["image"] = self.get_image_features(
                media["pixel_values"],
                media.get("image_grid_hw"),
                passes=passes.get("image"),
                return_dict=True,
                **known.get("image", {}),
            )
        if "pixel_values_videos" in media:
            encoded["video"] = self.get_video_features(
                media["pixel_values_videos"],
                media.get("video_timestamps"),
                output_projected_embeddings,
                passes=passes.get("video"),
                return_dict=True,
                **known.get("video", {}),
            )
        if "input_features" in media:
            encoded["audio"] = self.get_audio_features(
                media["input_features"],
                media.get("audio_timestamps"),
                media.get("audio_num_windows"),
                output_projected_embeddings,
                passes=passes.get("audio"),
                return_dict=True,
                **known.get("audio", {}),
            )
        # Without the features of the encoders, unless they are read again.
        kept = ("pooler_output", "projected_embeddings", *(["last_hidden_state"] if output_encoded else []))
        return {
            modality: OmniVinciMediaOutput(**{name: output[name] for name in kept if name in output})
            for modality, output in encoded.items()
        }

    def encode(
        self,
        media: MediaInputs,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        output_projected_embeddings: bool = False,
    ) -> dict[str, BaseModelOutputWithPooling]:
        """
        The features of media, by modality, and those that are given.

        Args:
            media (`dict`): See [`MediaInputs`]; other inputs among them are ignored.
            mm_encoder_outputs (`dict`, *optional*): What [`encode_media`] returned of further media.
            output_projected_embeddings (`bool`, *optional*, defaults to `False`): As of [`encode_media`].

        Raises:
            ValueError: a modality is given in both ways, or tensors do not match.
        """
        media, given, encoded = select_media(media), mm_encoder_outputs or {}, {}
        if media or mm_encoder_outputs is None:
            encoded = self.encode_media(output_projected_embeddings=output_projected_embeddings, **media)
        twice = sorted(encoded.keys() & given.keys())
        if twice:
            raise ValueError(f"Got both media and `mm_encoder_outputs` for {twice}: give one of them.")
        return encoded | {name: output for name, output in given.items() if output is not None}

    def _count_passes(self, modality: str, media: MediaInputs) -> Passes:
        seen, told_by, *_ = NAMES_OF[modality]
        if seen not in media:
            return Passes()
        chunk_size = self.config.audio_chunk_size if modality == "audio" else self.config.vision_chunk_size
        return Passes(count_chunks(len(media[seen]), chunk_size), len(media[told_by]))

    def _no_media(self, modalities: set[str]) -> MediaInputs:
        """Tensors of no medium, for processes that run the encoders on zeros alone."""
        side, audio, media = self.config.vision_config.image_size, self.config.audio_config, {}
        if "image" in modalities:
            media["pixel_values"] = torch.zeros(0, 3, side, side, device=self.device)
            media["image_grid_hw"] = torch.zeros(0, 2, dtype=torch.long)
        if "video" in modalities:
            media["pixel_values_videos"] = torch.zeros(0, 3, side, side, device=self.device)
            media["video_timestamps"] = torch.zeros(0, 1)
        if "audio" in modalities:
            size = (audio.num_mel_bins, 2 * audio.max_source_positions)
            media["input_features"] = torch.zeros(0, *size, device=self.device)
            media["audio_timestamps"] = torch.zeros(0, 1)
        return media

    def get_alignment_embeddings(
        self,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **media: Unpack[MediaInputs],
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """
        V and A of section 2.1, for retrieval: one vector for the picture and one for the sound of each video that has
        sound. `V @ A.T` are the similarities of equation 1.

        Args:
            mm_encoder_outputs (`dict`, *optional*):
                What [`encode_media`] returned with `output_projected_embeddings=True`, in the place of the media.
            media: See [`MediaInputs`]; `video_has_audio` and `audio_from_video` in any case. Other inputs of `forward`
                are ignored.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: `(num videos with sound, hidden_size)` each, of length 1, in float32.

        Raises:
            ValueError: the model has no OmniAlignNet, or is not told which videos have which sound.
        """
        if self.omni_align_net is None:
            raise ValueError(
                "The model has no OmniAlignNet: load it with an `align_loss_weight` above 0, and train it."
            )
        encoded = self.encode(media, mm_encoder_outputs, output_projected_embeddings=True)
        return self.omni_align_net(*pair_tracks(encoded, media), return_loss=False)
