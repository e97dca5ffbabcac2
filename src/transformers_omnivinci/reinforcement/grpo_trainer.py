"""TRL's [`~trl.GRPOTrainer`] for OmniVinci (section 4.3 of the paper), through its public extension points."""

import copy
from collections.abc import Callable, Sequence

import torch
from datasets import Dataset
from torch import nn
from transformers import AutoConfig, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer
from trl.models import unwrap_model_for_generation

from ..modeling.modeling_omnivinci import OmniVinciForConditionalGeneration
from ..modeling.parts import PARTS
from ..processing.batch import NAMES_OF
from ..training.sharded_trainer import ShardsOnCPU
from .held_prompts import HeldPrompt, PromptReader, PromptShelf
from .problems import Problem
from .rewarding import RULES, make_rewards
from .rewards import TAGS
from .rollouts import sample_completions

logger = logging.get_logger(__name__)

MEDIA_PARTS = ("vision_encoder", "vision_projector", "audio_encoder", "audio_projector")
ENCODERS = {"image": "vision_encoder", "video": "vision_encoder", "audio": "audio_encoder"}
SHARED_SETTINGS = ("model_type", *(f"{modality}_token_id" for modality in NAMES_OF))
"""What a reference has in common with the policy."""


class OmniVinciGRPOTrainer(ShardsOnCPU, GRPOTrainer):
    """
    Group Relative Policy Optimization for chats with images, videos and sounds.

    Beyond [`~trl.GRPOTrainer`]: the media of a prompt are encoded once, for its completions and for the old, the new
    and the reference policy, as long as nothing of what encodes them learns. What learns is run once for a prompt in
    each pass of a batch, with gradients, and before it an encoder that does not learn once for all passes, unless
    weights are sharded. The prompt is read once for all of its completions. A completion that was cut earns nothing.
    To TRL a prompt is one token, see [`PromptReader`].

    Args:
        model ([`OmniVinciForConditionalGeneration`]): The policy. What has a gradient learns.
        problems (`Sequence[Problem]`): What is asked, and what is right, see [`read_problems`].
        args ([`~trl.GRPOConfig`]): All of TRL's options, but for vLLM, tools and environments.
        processing_class ([`OmniVinciProcessor`]): Reads prompts, and is saved with each checkpoint.
        rewards (`Sequence[str | Callable]`, *optional*): See [`make_rewards`]; `args.reward_weights` weigh them.
        eval_problems (`Sequence[Problem]`, *optional*): The same for evaluation.
        tags (`Sequence[str]`, *optional*): What an answer consists of, for the reward `format`.
        media_options (`dict`, *optional*): Of `apply_chat_template`, such as `num_frames`.
        reference (`str`, *optional*): A checkpoint that the policy is held near to. `None`: that of the policy.
        share_media (`bool`, *optional*, defaults to `True`):
            Whether media are encoded once. If not, each completion has its own, in each pass, as a reference to
            measure and test against.
        rollout_batch_size (`int`, *optional*):
            The most completions that are sampled at a time in a process. `None`: `args.num_generations` or
            `args.per_device_train_batch_size`, whichever is more.
        kwargs: As in [`~trl.GRPOTrainer`], such as `peft_config` and `callbacks`.

    Attributes:
        num_groups, num_equal_groups (`int`):
            How many groups of completions were scored in training, and how many of them taught nothing, since all of
            their completions earned the same.

    Raises:
        ValueError: an option is not supported, there are too few problems, or the reference is another model.
    """

    def __init__(
        self,
        model: nn.Module,
        problems: Sequence[Problem],
        args: GRPOConfig,
        processing_class,
        rewards: Sequence[str | Callable] = RULES,
        eval_problems: Sequence[Problem] = (),
        tags: Sequence[str] = TAGS,
        media_options: dict | None = None,
        reference: str | None = None,
        share_media: bool = True,
        rollout_batch_size: int | None = None,
        **kwargs,
    ):
        _check_options(args, kwargs, len(problems))
        self.problems = {problem.prompt: problem for problem in (*problems, *eval_problems)}
        self.media_options, self.share_media = dict(media_options or {}), share_media
        self.rollout_batch_size = rollout_batch_size or max(args.num_generations, args.per_device_train_batch_size)
        self.num_groups = self.num_equal_groups = 0
        self._rounds = 0
        self._shelf = PromptShelf()
        policy = base_of(model)
        own_name = policy.config.name_or_path
        if reference is not None:
            _check_reference(policy.config, reference)
            policy.config.name_or_path = str(reference)  # from where TRL loads it
        super().__init__(
            model,
            make_rewards(rewards, self.problems, tags),
            args,
            _as_dataset(problems),
            _as_dataset(eval_problems) if eval_problems else None,
            processing_class,
            rollout_func=self.roll_out,
            **kwargs,
        )
        policy.config.name_or_path = own_name
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.fsdp_version == 1:
            raise ValueError("`fsdp_config` asks for FSDP 1, with which completions cannot be sampled: leave it at 2.")
        self.add_callback(_ShuffleByEpoch())
        self.encodes_once = share_media and not any(_learns(policy, part) for part in MEDIA_PARTS)
        self._still = (
            () if self.encodes_once else [name for name, part in ENCODERS.items() if not _learns(policy, part)]
        )
        PromptReader(policy.model, self._shelf, lambda: self.encodes_once, lambda: self.still_encoders)
        if self.ref_model is not None:
            # Another checkpoint may encode otherwise.
            is_same = self.encodes_once and reference is None
            PromptReader(
                base_of(self.ref_model).model,
                self._shelf,
                lambda: is_same,
                lambda: self.still_encoders if reference is None else (),
            )

    @property
    def still_encoders(self) -> Sequence[str]:
        """Modalities whose encoder does not learn, while something behind it does: it is run once for a prompt."""
        return self._still if self.share_media else ()

    def roll_out(self, prompts: list[str], trainer: GRPOTrainer | None = None) -> dict[str, list]:
        """
        Completions of prompts, as TRL's `rollout_func` gives them.

        Args:
            prompts (`list[str]`): [`Problem.prompt`] for each completion that is wanted.

        Returns:
            `dict`: `prompt_ids`, the number that stands for each prompt; `completion_ids`; `logprobs`, which is
            `None`; and `truncated`, which completions were cut, for rewards.

        Raises:
            ValueError: a medium cannot be read.
        """
        held = self._hold(prompts)
        unique = list(dict.fromkeys(held))
        handles = dict(zip(unique, self._shelf.hold(self._mode, unique), strict=True))
        config = copy.deepcopy(self.generation_config)
        placeholders = {getattr(self.model.config, f"{modality}_token_id") for modality in NAMES_OF}
        config.suppress_tokens = sorted(placeholders | set(config.suppress_tokens or ()))
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as unwrapped,
            self.accelerator.autocast(),
        ):
            policy, mode = base_of(unwrapped), unwrapped.training
            unwrapped.eval()  # with gradient checkpointing, no cache is kept in training
            try:
                completions = sample_completions(
                    policy, held, config, self.rollout_batch_size, unwrapped, self.still_encoders
                )
            finally:
                unwrapped.train(mode)
        if self._mode == "train":
            self._rounds += 1
            # TRL counts one token for each prompt.
            unseen = torch.tensor(sum(len(prompt.input_ids) - 1 for prompt in held), device=self.accelerator.device)
            self.state.num_input_tokens_seen += int(self.accelerator.gather(unseen).sum())
        return {
            "prompt_ids": [[handles[prompt]] for prompt in held],
            "completion_ids": completions,
            "logprobs": None,
            "truncated": [tokens[-1] not in self.eos_token_ids for tokens in completions],
        }

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def _hold(self, prompts: list[str]) -> list[HeldPrompt]:
        """The prompts with their media decoded: one for all that are the same, unless media are not shared."""
        read = {prompt: self._read(self.problems[prompt]) for prompt in dict.fromkeys(prompts)}
        if self.share_media:
            return [read[prompt] for prompt in prompts]
        return [HeldPrompt(read[prompt].input_ids, read[prompt].media) for prompt in prompts]

    def _read(self, problem: Problem) -> HeldPrompt:
        try:
            return HeldPrompt.of(self.processing_class, problem.messages, **self.media_options)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{problem.name}: {' '.join(str(error).split())}") from error

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss is {loss.item()} in step {self.state.global_step + 1}: training stopped before the weights "
                "took it in."
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        share = logs.get("frac_reward_zero_std")
        if share is None or not self._rounds:
            return
        groups = self._rounds * self.args.generation_batch_size // self.num_generations
        equal = round(share * groups)
        self._rounds, self.num_groups = 0, self.num_groups + groups
        self.num_equal_groups += equal
        if equal == groups and self.is_world_process_zero():
            logger.warning(
                f"Step {self.state.global_step}: all completions of each of {groups} groups earned the same, so that "
                "their advantages are 0 and nothing was learned from rewards."
            )


class _ShuffleByEpoch(TrainerCallback):
    """
    Makes the order of problems a function of seed and epoch. TRL's sampler draws one order after another, and would
    begin with the first again where a run is resumed.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        # With several processes it is inside of what gives each its share.
        shared = getattr(train_dataloader.batch_sampler, "batch_sampler", train_dataloader.batch_sampler)
        generator = getattr(shared.sampler, "generator", None)
        if generator is not None:
            generator.manual_seed(args.seed + int(state.epoch or 0))


def base_of(model: nn.Module) -> OmniVinciForConditionalGeneration:
    """The OmniVinci model in a model of PEFT, or in what processes share."""
    return next(module for module in model.modules() if isinstance(module, OmniVinciForConditionalGeneration))


def _learns(policy: OmniVinciForConditionalGeneration, part: str) -> bool:
    names = tuple(f"{module}." for module in PARTS[part])
    return any(weight.requires_grad for name, weight in policy.named_parameters() if name.startswith(names))


def _as_dataset(problems: Sequence[Problem]) -> Dataset:
    return Dataset.from_dict({"prompt": [problem.prompt for problem in problems]})


def _check_options(args: GRPOConfig, kwargs: dict, num_problems: int) -> None:
    unsupported = [name for name in ("use_vllm", "use_transformers_continuous_batching") if getattr(args, name)]
    unsupported += [name for name in ("tools", "environment_factory", "rollout_func") if kwargs.get(name)]
    if unsupported:
        raise ValueError(f"`{unsupported[0]}` does not know of videos and sounds: completions are sampled here.")
    wanted = args.generation_batch_size // args.num_generations
    if num_problems < wanted:
        raise ValueError(
            f"There are {num_problems} problems, but a round of completions takes {wanted}: give more, or a smaller "
            "`--per-device-train-batch-size` or `--gradient-accumulation-steps`."
        )


def _check_reference(config, reference: str) -> None:
    other = AutoConfig.from_pretrained(reference)
    found = {name: (getattr(config, name), getattr(other, name, None)) for name in SHARED_SETTINGS}
    found["vocab_size"] = (config.text_config.vocab_size, other.get_text_config().vocab_size)
    different = next((name for name, (own, its) in found.items() if own != its), None)
    if different:
        own, its = found[different]
        raise ValueError(
            f"The reference {reference} is another architecture than the policy: its `{different}` is {its!r}, not "
            f"{own!r}."
        )
