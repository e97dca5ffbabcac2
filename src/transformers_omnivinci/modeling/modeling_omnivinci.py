"""
OmniVinci (arXiv 2510.15870): the forward pass reads as figure 2 of the paper.

Encoders → compression and projection → time (CRTE) → placed in temporal groups (TEG) → language model.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple, logging, torch_compilable_check
from transformers.utils.generic import is_flash_attention_requested, merge_with_config_defaults

from ..compat import CACHE, CacheByBothNames, EncodesMediaOnce, choose_cache, require
from ..configuration_omnivinci import OmniVinciConfig
from ..labels import learned_targets, share_of_targets
from ..planning import tile_grids
from ..remote_code import InstalledCode
from .audio_compression import AudioCompression
from .audio_tower import OmniVinciAudioTower
from .cached_prompt import continue_generation, remember_generation, remember_pass
from .chunks import count_chunks, encode_in_chunks, idle_input
from .dynamic_s2 import merge_scales, stitch_tiles
from .omni_align_net import OmniAlignNet, QueryPooling
from .projectors import AudioProjector, VisionProjector
from .sharding import Passes, agree, is_sharded, with_idle
from .time_embedding import build_time_embedding
from .video_pooling import pool_clip
from .vision_tower import OmniVinciVisionTower

logger = logging.get_logger(__name__)

require(PreTrainedModel, "_init_weights", "_no_split_modules", "_skip_keys_device_placement", "_tied_weights_keys")
require(GenerationMixin, "_expand_inputs_for_generation", "prepare_inputs_for_generation")

MEDIA_INPUTS = (
    "pixel_values",
    "image_grid_hw",
    "pixel_values_videos",
    "video_timestamps",
    "input_features",
    "audio_timestamps",
    "audio_num_windows",
    "video_has_audio",
    "audio_from_video",
)

CUT = (
    "A loader that cuts every tensor to the batch size, as accelerate's does with streaming data, loses media: set "
    "`dispatch_batches=False`, in Trainer `accelerator_config={'dispatch_batches': False}`."
)
"""What may have happened to media that do not match."""


@dataclass
class OmniVinciMediaOutput(BaseModelOutputWithPooling):
    r"""
    pooler_output (`list[torch.Tensor]`): Embeddings of each medium as they stand in the sequence.
    projected_embeddings (`list[torch.Tensor]`, *optional*):
        Embeddings of each medium as the projector gives them, before pooling and time: E_v and E_a of section 2.1,
        `(num_embeddings, hidden_size)`. On request.
    """

    projected_embeddings: list[torch.FloatTensor] | None = None


@dataclass
class OmniVinciModelOutputWithPast(CacheByBothNames, BaseModelOutputWithPast):
    r"""
    image_hidden_states, video_hidden_states, audio_hidden_states (`torch.Tensor`, *optional*):
        Embeddings of the media as they stand in the sequence, `(num_embeddings, hidden_size)`.
    image_outputs, video_outputs, audio_outputs ([`OmniVinciMediaOutput`], *optional*):
        The same, medium by medium, as [`OmniVinciModel.encode_media`] gives them.
    align_loss (`torch.Tensor` of shape `(1,)`, *optional*): That of OmniAlignNet, equation 1. On request.
    """

    image_hidden_states: torch.FloatTensor | None = None
    video_hidden_states: torch.FloatTensor | None = None
    audio_hidden_states: torch.FloatTensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None
    audio_outputs: BaseModelOutputWithPooling | None = None
    align_loss: torch.FloatTensor | None = None


@dataclass
class OmniVinciCausalLMOutputWithPast(CacheByBothNames, CausalLMOutputWithPast):
    r"""
    loss (`torch.Tensor` of shape `(1,)`, *optional*):
        Next-token loss over text positions; in training with OmniAlignNet, that and `align_loss_weight * align_loss`.
    logits (`torch.Tensor` of shape `(batch_size, sequence_length, vocab_size)`): Scores of the next token.
    past_key_values, cache (`Cache`, *optional*): Keys and values of the language model, by either name.
    hidden_states, attentions (`tuple(torch.Tensor)`, *optional*): Of the language model.
    image_hidden_states, video_hidden_states, audio_hidden_states (`torch.Tensor`, *optional*):
        Embeddings of the media as they stand in the sequence, `(num_embeddings, hidden_size)`.
    image_outputs, video_outputs, audio_outputs ([`OmniVinciMediaOutput`], *optional*):
        The same, medium by medium, as [`OmniVinciModel.encode_media`] gives them.
    language_loss, align_loss (`torch.Tensor` of shape `(1,)`, *optional*):
        In training with OmniAlignNet, what `loss` is made of: the next-token loss, and equation 1 without its weight.
    """

    image_hidden_states: torch.FloatTensor | None = None
    video_hidden_states: torch.FloatTensor | None = None
    audio_hidden_states: torch.FloatTensor | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None
    audio_outputs: BaseModelOutputWithPooling | None = None
    language_loss: torch.FloatTensor | None = None
    align_loss: torch.FloatTensor | None = None


class OmniVinciPreTrainedModel(InstalledCode, PreTrainedModel):
    config: OmniVinciConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "Qwen2DecoderLayer",
        "SiglipVisionEmbeddings",
        "SiglipEncoderLayer",
        "Qwen2AudioEncoderLayer",
        "VisionProjector",
        "LearnedTimeEmbedding",
        "OmniAlignNet",
    ]
    _skip_keys_device_placement = ["past_key_values", "cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Loads what [`save_pretrained`] wrote, or a checkpoint in the published layout. Pickles are not loaded."""
        from ..conversion.loading import load_published_model
        from ..conversion.weights import check_files

        model = load_published_model(cls, pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        if model is not None:
            return model
        if pretrained_model_name_or_path is not None:
            check_files(
                Path(pretrained_model_name_or_path, kwargs.get("subfolder", "")), kwargs.get("use_safetensors")
            )
            kwargs["use_safetensors"] = True
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)

    @staticmethod
    def flatten_embeddings(output: BaseModelOutputWithPooling) -> torch.Tensor:
        """The embeddings of all media of a modality, one after another: (num_embeddings, hidden_size)."""
        embeddings = output.pooler_output
        return embeddings.flatten(0, -2) if isinstance(embeddings, torch.Tensor) else torch.cat(list(embeddings))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, QueryPooling):
            init.normal_(module.query, std=self.config.initializer_range)
        elif isinstance(module, OmniAlignNet) and module.temperature is not None:
            init.constant_(module.logit_scale, -math.log(module.temperature))


class OmniVinciModel(OmniVinciPreTrainedModel):
    """OmniVinci without the language modeling head: encoders, projectors, time embeddings and language model."""

    def __init__(self, config: OmniVinciConfig):
        super().__init__(config)
        self.vision_tower = OmniVinciVisionTower._from_config(
            config.vision_config, num_layers=config.num_vision_layers
        )
        self.vision_projector = VisionProjector(config)
        self.video_time_embedding = build_time_embedding(config, "video")
        self.audio_tower = OmniVinciAudioTower._from_config(config.audio_config)
        self.audio_compression = AudioCompression(config.audio_pooling, config.audio_config.d_model)
        self.audio_projector = AudioProjector(config)
        self.audio_time_embedding = build_time_embedding(config, "audio")
        self.omni_align_net = OmniAlignNet(config) if config.align_loss_weight else None
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings of the language model's tokens."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replaces the embeddings of the language model's tokens."""
        self.language_model.set_input_embeddings(value)

    # ------------------------------------------------------------------------------------------------- encoders

    def _encode_images(self, pixel_values: torch.Tensor, **kwargs) -> tuple[BaseModelOutput, torch.Tensor]:
        """(batch, 3, side, side) to the tower's output and patch features (batch, rows, columns, hidden_size)."""
        pixel_values = pixel_values.to(self.vision_tower.dtype)
        encoded = self.vision_tower(pixel_values, chunk_size=self.config.vision_chunk_size, **kwargs)
        side = self.config.vision_config.image_size // self.config.vision_config.patch_size
        return encoded, encoded.last_hidden_state.unflatten(1, (side, side))

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
            pixel_values (`torch.Tensor` of shape `(num_tiles, 3, image_size, image_size)`):
                Tiles of all images, see [`OmniVinciImageProcessor`].
            image_grid_hw (`torch.Tensor` of shape `(num_images, 2)`):
                (rows, columns) of the tiles of each image's last scale; (1, 1) for an image that is not tiled.
            passes ([`Passes`], *optional*): How often modules are run at least, see [`encode_media`].

        Returns:
            [`BaseModelOutputWithPooling`]: `pooler_output`, the embeddings `(num_embeddings, hidden_size)` of each
            image, and `last_hidden_state`, the patch features of all tiles `(num_tiles, patches, vision hidden_size)`.

        Raises:
            ValueError: the number of tiles is not that of `image_grid_hw`.
        """
        scales = self.config.s2_scales
        grids = [tuple(grid) for grid in image_grid_hw.tolist()]
        num_tiles = [sum(rows * columns for rows, columns in tile_grids(scales, *grid)) for grid in grids]
        if sum(num_tiles) != len(pixel_values):
            raise ValueError(
                f"`image_grid_hw` describes {sum(num_tiles)} tiles, but `pixel_values` has {len(pixel_values)}. {CUT}"
            )
        passes = passes or Passes()
        encoded, patches = self._encode_images(pixel_values, num_passes=passes.chunks, **kwargs)
        embeddings = []
        for grid, tiles in zip(grids, patches.split(num_tiles), strict=True):
            if grid != (1, 1):
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
            pixel_values_videos (`torch.Tensor` of shape `(num_frames of all videos, 3, image_size, image_size)`):
                Frames of all videos one after another.
            video_timestamps (`torch.Tensor` of shape `(num_videos, most frames of a video)`):
                Seconds of each frame, filled up with -1.
            output_projected_embeddings (`bool`, *optional*, defaults to `False`):
                Whether `projected_embeddings` are kept, too.
            passes ([`Passes`], *optional*): How often modules are run at least, see [`encode_media`].

        Returns:
            [`OmniVinciMediaOutput`]: `pooler_output`, the embeddings `(num_embeddings, hidden_size)` of each video,
            and `last_hidden_state`, the patch features of frames `(num_frames, patches, vision hidden_size)`.

        Raises:
            ValueError: the number of frames is not that of the timestamps.
        """
        num_frames = (video_timestamps >= 0).sum(1).tolist()
        if sum(num_frames) != len(pixel_values_videos):
            raise ValueError(
                f"`video_timestamps` has the seconds of {sum(num_frames)} frames, but `pixel_values_videos` has "
                f"{len(pixel_values_videos)}. {CUT}"
            )
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
        return torch.cat(
            [
                self.video_time_embedding(*pool_clip(clip, seconds, pool_size)).flatten(0, 1)
                for pool_size in self.config.video_pool_sizes
            ]
        )

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
            input_features (`torch.Tensor` of shape `(num_windows, mel bins, 2 * max_source_positions)`):
                Log-mel windows of all clips one after another.
            audio_timestamps (`torch.Tensor` of shape `(num_clips, most vectors of a clip)`):
                Seconds of the vectors of each clip that stand in the sequence, filled up with -1.
            audio_num_windows (`torch.Tensor` of shape `(num_clips,)`, *optional*):
                Windows of each clip. `None`: one each.
            output_projected_embeddings (`bool`, *optional*, defaults to `False`):
                Whether `projected_embeddings` are kept, too.
            passes ([`Passes`], *optional*): How often modules are run at least, see [`encode_media`].

        Returns:
            [`OmniVinciMediaOutput`]: `pooler_output`, the embeddings `(num_embeddings, hidden_size)` of each clip,
            and `last_hidden_state`, the encoded windows `(num_windows, vectors, audio hidden_size)`.

        Raises:
            ValueError: windows and timestamps do not match.
        """
        num_windows = [1] * len(audio_timestamps) if audio_num_windows is None else audio_num_windows.tolist()
        if sum(num_windows) != len(input_features):
            raise ValueError(
                f"`audio_num_windows` describes {sum(num_windows)} windows, but `input_features` has "
                f"{len(input_features)}. {CUT}"
            )
        passes = passes or Passes()
        input_features = input_features.to(self.audio_tower.dtype)
        encoded = encode_in_chunks(
            self.audio_tower, input_features, self.config.audio_chunk_size, passes.chunks, **kwargs
        )
        windows, num_clips = encoded.last_hidden_state, len(num_windows)
        if not num_clips:  # what follows is run once in every process
            windows, num_windows, audio_timestamps = idle_input(windows), [1], audio_timestamps.new_zeros(1, 1)
        clips = nn.utils.rnn.pad_sequence(
            [clip.flatten(0, 1) for clip in windows.split(num_windows)], batch_first=True
        )  # (num_clips, most vectors, d_model)
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
        projected = list(projected.split(num_vectors))[:num_clips]
        return OmniVinciMediaOutput(
            **encoded,
            pooler_output=list(embeddings.split(num_vectors)) if num_clips else embeddings[:0],
            projected_embeddings=projected if output_projected_embeddings else None,
        )

    @staticmethod
    def _in_full_precision(timestamps: torch.Tensor) -> torch.Tensor:
        if timestamps.dtype in (torch.float16, torch.bfloat16):
            logger.warning_once(
                f"Timestamps came in {timestamps.dtype}, which rounds seconds beyond the first minutes. `.to(dtype)` "
                "of what the processor returns keeps them in float32."
            )
        return timestamps

    # ------------------------------------------------------------------------------------------------- merging

    def encode_media(
        self,
        pixel_values: torch.FloatTensor | None = None,
        image_grid_hw: torch.LongTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        video_timestamps: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        audio_timestamps: torch.FloatTensor | None = None,
        audio_num_windows: torch.LongTensor | None = None,
        video_has_audio: torch.BoolTensor | None = None,
        audio_from_video: torch.BoolTensor | None = None,
        output_projected_embeddings: bool = False,
    ) -> dict[str, BaseModelOutputWithPooling]:
        """
        Encodes the media of a batch. The result may be given to `forward` and `generate` as `mm_encoder_outputs`, as
        often as there are questions about the same media.

        Where the weights are sharded (FSDP, ZeRO-3), every process makes the call, also without media: all of them run
        the encoders and projectors as often as the one that has most, on zeros where they have nothing left.

        Args:
            video_has_audio, audio_from_video: Accepted because the processor returns them; not read.
            output_projected_embeddings (`bool`, *optional*, defaults to `False`):
                Whether `projected_embeddings` of videos and sounds are kept, too.
            others: As in [`get_image_features`], [`get_video_features`] and [`get_audio_features`].

        Returns:
            `dict[str, BaseModelOutputWithPooling]`: the features of `"image"`, `"video"` and `"audio"`, as far as
            there are any.
        """
        encoded, passes = {}, {}
        if is_sharded(self):
            passes = agree(
                {
                    "image": self._count_passes(pixel_values, image_grid_hw, self.config.vision_chunk_size),
                    "video": self._count_passes(pixel_values_videos, video_timestamps, self.config.vision_chunk_size),
                    "audio": self._count_passes(input_features, audio_timestamps, self.config.audio_chunk_size),
                }
            )
            side, audio = self.config.vision_config.image_size, self.config.audio_config
            if pixel_values is None and passes["image"].chunks:
                pixel_values = torch.zeros(0, 3, side, side, device=self.device)
                image_grid_hw = torch.zeros(0, 2, dtype=torch.long)
            if pixel_values_videos is None and passes["video"].chunks:
                pixel_values_videos = torch.zeros(0, 3, side, side, device=self.device)
                video_timestamps = torch.zeros(0, 1)
            if input_features is None and passes["audio"].chunks:
                size = (audio.num_mel_bins, 2 * audio.max_source_positions)
                input_features = torch.zeros(0, *size, device=self.device)
                audio_timestamps, audio_num_windows = torch.zeros(0, 1), None
        if pixel_values is not None:
            encoded["image"] = self.get_image_features(
                pixel_values, image_grid_hw, passes=passes.get("image"), return_dict=True
            )
        if pixel_values_videos is not None:
            encoded["video"] = self.get_video_features(
                pixel_values_videos,
                video_timestamps,
                output_projected_embeddings,
                passes=passes.get("video"),
                return_dict=True,
            )
        if input_features is not None:
            encoded["audio"] = self.get_audio_features(
                input_features,
                audio_timestamps,
                audio_num_windows,
                output_projected_embeddings,
                passes=passes.get("audio"),
                return_dict=True,
            )
        # Without the features of the encoders, which are as large as the embeddings and not read again.
        kept = ("pooler_output", "projected_embeddings")
        return {
            modality: OmniVinciMediaOutput(**{name: output[name] for name in kept if name in output})
            for modality, output in encoded.items()
        }

    @staticmethod
    def _count_passes(inputs: torch.Tensor | None, media: torch.Tensor | None, chunk_size: int | None) -> Passes:
        return Passes() if inputs is None else Passes(count_chunks(len(inputs), chunk_size), len(media))

    def get_alignment_embeddings(
        self,
        video_has_audio: torch.BoolTensor | None = None,
        audio_from_video: torch.BoolTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **media: torch.Tensor,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """
        V and A of section 2.1, for retrieval: one vector for the picture and one for the sound of each video that has
        sound. `V @ A.T` are the similarities of equation 1.

        Args:
            video_has_audio, audio_from_video: As in [`OmniVinciForConditionalGeneration.forward`].
            mm_encoder_outputs (`dict`, *optional*):
                What [`encode_media`] returned with `output_projected_embeddings=True`, in the place of the media.
            media: As [`encode_media`]; other inputs of `forward` are ignored.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: `(num videos with sound, hidden_size)` each, of length 1, in float32.

        Raises:
            ValueError: the model has no OmniAlignNet, or is not told which videos have which sound.
        """
        if self.omni_align_net is None:
            raise ValueError(
                "The model has no OmniAlignNet: load it with an `align_loss_weight` above 0, and train it."
            )
        encoded = self._encode(mm_encoder_outputs, media, output_projected_embeddings=True)
        return self.omni_align_net(*self._pair(encoded, video_has_audio, audio_from_video), return_loss=False)

    @staticmethod
    def _pair(encoded: dict, video_has_audio, audio_from_video) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """E_v and E_a of each video that has sound. Both follow each other in the order of the prompts."""
        if any(name not in encoded or not len(encoded[name].pooler_output) for name in ("video", "audio")):
            return [], []
        chosen = []
        for modality, name, flags in (
            ("video", "video_has_audio", video_has_audio),
            ("audio", "audio_from_video", audio_from_video),
        ):
            clips = encoded[modality].get("projected_embeddings")
            if clips is None or flags is None or len(flags) != len(clips):
                raise ValueError(
                    f"OmniAlignNet needs the media and, as the processor returns it, `{name}` with an entry for each "
                    f"{modality}: got {'no media' if clips is None else f'{len(clips)} media'} and "
                    f"{'no entries' if flags is None else f'{len(flags)} entries'}."
                )
            chosen.append([clip for clip, flag in zip(clips, flags.tolist(), strict=True) if flag])
        if len(chosen[0]) != len(chosen[1]):
            raise ValueError(
                f"`video_has_audio` names {len(chosen[0])} videos with sound, but `audio_from_video` {len(chosen[1])} "
                "sounds of videos: the numbers must be equal."
            )
        pairs = [pair for pair in zip(*chosen, strict=True) if all(map(len, pair))]
        return [video for video, _ in pairs], [sound for _, sound in pairs]

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.FloatTensor,
        image_features: torch.FloatTensor | None = None,
        video_features: torch.FloatTensor | None = None,
        audio_features: torch.FloatTensor | None = None,
    ) -> tuple[torch.BoolTensor, torch.BoolTensor, torch.BoolTensor]:
        """
        Where the embeddings of each modality stand.

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                `None`: placeholders are found by their embeddings.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`): Embeddings of ids.
            image_features, video_features, audio_features (`torch.Tensor`, *optional*):
                `(num_embeddings, hidden_size)`, checked against the number of placeholders.

        Returns:
            `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: for image, video and audio, expanded to the shape of
            `inputs_embeds`.

        Raises:
            ValueError: there are more or fewer features than placeholders.
        """
        masks = []
        features = {"image": image_features, "video": video_features, "audio": audio_features}
        for modality, embeddings in features.items():
            token_id = getattr(self.config, f"{modality}_token_id")
            if input_ids is None:
                token = torch.tensor(token_id, dtype=torch.long, device=inputs_embeds.device)
                mask = (inputs_embeds == self.get_input_embeddings()(token)).all(-1)
            else:
                mask = (input_ids == token_id).to(inputs_embeds.device)
            if embeddings is not None:
                torch_compilable_check(
                    mask.sum() == len(embeddings),
                    lambda: (
                        f"The prompts have {int(mask.sum())} {modality} placeholders, but there are "  # noqa: B023
                        f"{len(embeddings)} {modality} embeddings. {CUT}"  # noqa: B023
                    ),
                )
            masks.append(mask.unsqueeze(-1).expand_as(inputs_embeds))
        return tuple(masks)

    def get_inputs_embeds(
        self,
        input_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **media: torch.Tensor,
    ) -> torch.FloatTensor:
        """
        The sequence that the language model reads: embeddings of the text, with those of the media in the place of
        their placeholders. The processor has laid the placeholders out in temporal groups (TEG), so that the features
        of each modality are placed in order.

        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`): Text and placeholders.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                In the place of `input_ids`, embeddings of text and placeholders.
            mm_encoder_outputs (`dict`, *optional*): What [`encode_media`] returned, in the place of the media.
            media: As [`encode_media`]; other inputs of `forward` are ignored.

        Returns:
            `torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`.
        """
        return self._merge(input_ids, inputs_embeds, self._encode(mm_encoder_outputs, media))

    def _encode(
        self, mm_encoder_outputs: dict | None, media: dict, output_projected_embeddings: bool = False
    ) -> dict[str, BaseModelOutputWithPooling]:
        media = {name: media[name] for name in MEDIA_INPUTS if media.get(name) is not None}
        encoded = {}
        if media or mm_encoder_outputs is None:
            encoded = self.encode_media(**media, output_projected_embeddings=output_projected_embeddings)
        twice = sorted(encoded.keys() & (mm_encoder_outputs or {}).keys())
        if twice:
            raise ValueError(f"Got both media and `mm_encoder_outputs` for {twice}: give one of them.")
        return encoded | {name: value for name, value in (mm_encoder_outputs or {}).items() if value is not None}

    def _merge(
        self, input_ids, inputs_embeds, encoded: dict[str, BaseModelOutputWithPooling], begins: bool = True
    ) -> torch.Tensor:
        """With `begins`, also a modality without embeddings is checked for placeholders: what is read is a prompt."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if not encoded and not begins:
            return inputs_embeds
        nothing = dict.fromkeys(("image", "video", "audio"), inputs_embeds[0, :0]) if begins else {}
        features = nothing | {name: self.flatten_embeddings(output) for name, output in encoded.items()}
        features = {f"{name}_features": embeddings for name, embeddings in features.items()}
        masks = self.get_placeholder_mask(input_ids, inputs_embeds, **features)
        if not encoded:
            return inputs_embeds
        inputs_embeds = inputs_embeds.clone()
        for name, mask in zip(("image", "video", "audio"), masks, strict=True):
            if name in encoded:
                embeddings = features[f"{name}_features"]
                inputs_embeds[mask[..., 0]] = embeddings.to(inputs_embeds.device, inputs_embeds.dtype)
        return inputs_embeds

    # ------------------------------------------------------------------------------------------------- forward

    @merge_with_config_defaults
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_grid_hw: torch.LongTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        video_timestamps: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        audio_timestamps: torch.FloatTensor | None = None,
        audio_num_windows: torch.LongTensor | None = None,
        video_has_audio: torch.BoolTensor | None = None,
        audio_from_video: torch.BoolTensor | None = None,
        mm_token_type_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        output_align_loss: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> OmniVinciModelOutputWithPast:
        r"""
        See [`OmniVinciForConditionalGeneration.forward`]. With `output_align_loss`, OmniAlignNet is run, too.
        """
        encoded = self._encode(
            mm_encoder_outputs,
            {
                "pixel_values": pixel_values,
                "image_grid_hw": image_grid_hw,
                "pixel_values_videos": pixel_values_videos,
                "video_timestamps": video_timestamps,
                "input_features": input_features,
                "audio_timestamps": audio_timestamps,
                "audio_num_windows": audio_num_windows,
            },
            output_projected_embeddings=output_align_loss,
        )
        align_loss = None
        if output_align_loss:
            align_loss = self.omni_align_net(*self._pair(encoded, video_has_audio, audio_from_video))
        length = (input_ids if inputs_embeds is None else inputs_embeds).shape[1]
        # A token that was generated is no placeholder, whatever it is: `generate` says by an empty dictionary that it
        # goes on.
        cache = choose_cache(past_key_values, cache)
        goes_on = cache is not None and (length == 1 or (mm_encoder_outputs == {} and cache.get_seq_length() > 0))
        inputs_embeds = self._merge(input_ids, inputs_embeds, encoded, begins=not goes_on)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            # A padded sample is read at the positions that it has alone.
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4:
            attention_mask = self._prepare_mask(attention_mask, inputs_embeds.dtype)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **{CACHE: cache},
            use_cache=use_cache,
            **kwargs,
        )
        return OmniVinciModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            **{CACHE: outputs.get(CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{f"{name}_hidden_states": self.flatten_embeddings(output) for name, output in encoded.items()},
            **{f"{name}_outputs": output for name, output in encoded.items()},
            align_loss=align_loss,
        )

    def check_attends_by_mask(self) -> None:
        """
        Raises:
            ValueError: the attention of the language model does not take a mask of who attends to whom.
        """
        if is_flash_attention_requested(self.language_model.config):
            raise ValueError(
                f"The attention {self.language_model.config._attn_implementation!r} takes no mask of who attends to "
                "whom, which samples with shared media need: use `attn_implementation='sdpa'` or 'eager'."
            )

    def _prepare_mask(self, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A 4D mask as the language model adds it to its scores. Transformers hands such masks on as they are."""
        self.check_attends_by_mask()
        if mask.dtype != torch.bool or self.language_model.config._attn_implementation == "sdpa":
            return mask
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


class OmniVinciForConditionalGeneration(EncodesMediaOnce, OmniVinciPreTrainedModel, GenerationMixin):
    """OmniVinci: sees, listens and reads, and answers in text."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: OmniVinciConfig):
        super().__init__(config)
        self.model = OmniVinciModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings of the language model's tokens."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        """Replaces the embeddings of the language model's tokens."""
        self.model.set_input_embeddings(value)

    def get_image_features(self, pixel_values, image_grid_hw, **kwargs):
        """See [`OmniVinciModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, image_grid_hw, **kwargs)

    def get_video_features(self, pixel_values_videos, video_timestamps, **kwargs):
        """See [`OmniVinciModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos, video_timestamps, **kwargs)

    def get_audio_features(self, input_features, audio_timestamps, audio_num_windows=None, **kwargs):
        """See [`OmniVinciModel.get_audio_features`]."""
        return self.model.get_audio_features(input_features, audio_timestamps, audio_num_windows, **kwargs)

    def get_placeholder_mask(self, input_ids, inputs_embeds, **features):
        """See [`OmniVinciModel.get_placeholder_mask`]."""
        return self.model.get_placeholder_mask(input_ids, inputs_embeds, **features)

    def get_inputs_embeds(self, input_ids=None, **kwargs) -> torch.FloatTensor:
        """See [`OmniVinciModel.get_inputs_embeds`]."""
        return self.model.get_inputs_embeds(input_ids, **kwargs)

    def encode_media(self, **media) -> dict[str, BaseModelOutputWithPooling]:
        """See [`OmniVinciModel.encode_media`]."""
        return self.model.encode_media(**media)

    def get_alignment_embeddings(self, **inputs) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """See [`OmniVinciModel.get_alignment_embeddings`]."""
        return self.model.get_alignment_embeddings(**inputs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_grid_hw: torch.LongTensor | None = None,
        pixel_values_videos: torch.FloatTensor | None = None,
        video_timestamps: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        audio_timestamps: torch.FloatTensor | None = None,
        audio_num_windows: torch.LongTensor | None = None,
        video_has_audio: torch.BoolTensor | None = None,
        audio_from_video: torch.BoolTensor | None = None,
        mm_token_type_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> OmniVinciCausalLMOutputWithPast:
        r"""
        Args:
            input_ids (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                Text and placeholders, as [`OmniVinciProcessor`] returns them.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 at padding. Also `(batch_size, 1, sequence_length, sequence_length)`, where a token attends to
                another, with `position_ids`; FlashAttention takes no such mask.
            position_ids, past_key_values, use_cache, logits_to_keep:
                As in [`Qwen2ForCausalLM`]. With a cache, tokens and media are those that it does not hold yet.
            cache: The other name of `past_key_values`, which transformers prefers from 5.24 on.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                In the place of `input_ids`.
            pixel_values, image_grid_hw: See [`OmniVinciModel.get_image_features`].
            pixel_values_videos, video_timestamps: See [`OmniVinciModel.get_video_features`].
            input_features, audio_timestamps, audio_num_windows: See [`OmniVinciModel.get_audio_features`].
            video_has_audio (`torch.Tensor` of shape `(num_videos,)`, *optional*):
                Which videos have their track among the sounds. Read in training with OmniAlignNet.
            audio_from_video (`torch.Tensor` of shape `(num_clips,)`, *optional*):
                Which sounds are tracks of videos; the first one of the first video that has one, and so on.
            mm_token_type_ids: Accepted because the processor may return it; not read.
            mm_encoder_outputs (`dict`, *optional*): What [`encode_media`] returned, in the place of the media.
            labels (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                Next-token targets; -100 is left out, and so are placeholders. With `config.align_loss_weight` and in
                training, the loss of OmniAlignNet is added. In evaluation it is not: the loss stays comparable with
                that of models without OmniAlignNet, and no process waits for another.

        Example:

        ```python
        >>> from transformers import AutoModel, AutoProcessor
        >>> import transformers_omnivinci

        >>> processor = AutoProcessor.from_pretrained("nvidia/omnivinci")
        >>> model = AutoModel.from_pretrained("nvidia/omnivinci", device_map="auto")
        >>> conversation = [
        ...     {
        ...         "role": "user",
        ...         "content": [{"type": "video", "path": "clip.mp4"}, {"type": "text", "text": "What happens?"}],
        ...     }
        ... ]
        >>> inputs = processor.apply_chat_template(
        ...     conversation, tokenize=True, return_dict=True, add_generation_prompt=True, load_audio_from_video=True,
        ...     num_frames=64, return_tensors="pt",
        ... ).to(model.device, model.dtype)
        >>> output = model.generate(**inputs, max_new_tokens=128)
        >>> processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ```"""
        with_alignment = self.model.omni_align_net is not None and self.training and labels is not None
        media = {
            "pixel_values": pixel_values,
            "image_grid_hw": image_grid_hw,
            "pixel_values_videos": pixel_values_videos,
            "video_timestamps": video_timestamps,
            "input_features": input_features,
            "audio_timestamps": audio_timestamps,
            "audio_num_windows": audio_num_windows,
        }
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=choose_cache(past_key_values, cache),
            inputs_embeds=inputs_embeds,
            **media,
            video_has_audio=video_has_audio,
            audio_from_video=audio_from_video,
            mm_encoder_outputs=mm_encoder_outputs,
            use_cache=use_cache,
            output_align_loss=with_alignment,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep  # all of them if 0
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        # `generate` does so at its end, and gives what is encoded.
        if labels is None and mm_encoder_outputs is None and not (self.training or torch.compiler.is_compiling()):
            remember_pass(self.config, outputs.get(CACHE), input_ids, attention_mask, media)
        loss = language_loss = None
        if labels is not None:
            counted = {name: kwargs.pop(name, None) for name in ("num_items_in_batch", "shift_labels")}
            placeholders = (self.config.image_token_id, self.config.video_token_id, self.config.audio_token_id)
            targets = learned_targets(labels, placeholders, input_ids, **counted)
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, vocab_size=vocab_size, **targets, **kwargs)
        if with_alignment:
            language_loss, weight = loss, self.config.align_loss_weight * share_of_targets(**targets)
            loss = language_loss + weight * outputs.align_loss.to(language_loss.device)
        return OmniVinciCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **{CACHE: outputs.get(CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
            video_hidden_states=outputs.video_hidden_states,
            audio_hidden_states=outputs.audio_hidden_states,
            image_outputs=outputs.image_outputs,
            video_outputs=outputs.video_outputs,
            audio_outputs=outputs.audio_outputs,
            language_loss=language_loss,
            align_loss=outputs.align_loss,
        )

    def generate(self, inputs: torch.Tensor | None = None, *args, **kwargs):
        """
        As [`~transformers.GenerationMixin.generate`]. A further turn may be given as the whole conversation with the
        cache of the turns before, from `past_key_values` or from what was returned: of what the cache holds, media are
        not encoded again. Where the prompt has changed since, as when a second image changes how the first one is
        tiled, the cache is cut back to what still holds.

        Raises:
            ValueError: prompts and media do not match, or the cache cannot be gone on from.
        """
        cache = choose_cache(kwargs.pop("past_key_values", None), kwargs.pop("cache", None))
        kwargs |= {} if cache is None else {CACHE: cache}
        input_ids = kwargs.get("input_ids") if inputs is None else inputs
        is_assistant = getattr(kwargs.get("generation_config"), "is_assistant", False)
        if input_ids is None or kwargs.get("inputs_embeds") is not None or is_assistant:
            return super().generate(inputs, *args, **kwargs)
        outputs = super().generate(inputs, *args, **continue_generation(self.model, input_ids, kwargs, MEDIA_INPUTS))
        remember_generation(self.config, input_ids, kwargs, outputs)
        return outputs

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        """Media are encoded once, before the prompt is read: also for beams, several answers and chunks of it."""
        media = {name: model_kwargs.pop(name) for name in MEDIA_INPUTS if name in model_kwargs}
        encoded = self.model._encode(model_kwargs.get("mm_encoder_outputs"), media)
        return {**model_kwargs, "mm_encoder_outputs": encoded}

    def _expand_multimodal_outputs(self, input_ids, mm_encoder_output: dict, expand_size: int = 1, inputs_embeds=None):
        """Repeats the features of each sample `expand_size` times, as its prompt is repeated."""
        ids = None if input_ids is None or input_ids.numel() == 0 else input_ids
        embeds = self.get_input_embeddings()(ids) if inputs_embeds is None else inputs_embeds
        expanded = {}
        masks = self.get_placeholder_mask(ids, embeds)
        for name, mask in zip(("image", "video", "audio"), masks, strict=True):
            if mm_encoder_output.get(name) is not None:
                output = mm_encoder_output[name]
                samples = self.flatten_embeddings(output).split(
                    output.get("per_prompt") or mask[..., 0].sum(1).tolist()
                )
                repeated = [sample for sample in samples for _ in range(expand_size)]
                expanded[name] = BaseModelOutputWithPooling(pooler_output=repeated)
        return expanded


__all__ = ["OmniVinciForConditionalGeneration", "OmniVinciModel", "OmniVinciPreTrainedModel"]
