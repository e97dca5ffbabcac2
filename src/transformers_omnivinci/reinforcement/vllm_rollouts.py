"""Completions that vLLM samples, in the engine that TRL holds beside the policy, through this package's plug-in."""

from collections import Counter
from collections.abc import Mapping, Sequence

from .problems import Problem

OF_AN_ITEM = {"type", "path", "text", "image", "video", "audio"}


def check_engine_options(args) -> None:
    """
    Checks that vLLM can sample completions as `args`, [`~trl.GRPOConfig`], say.

    Raises:
        ValueError: it cannot.
    """
    unsupported = {
        "`vllm_mode='server'`": args.vllm_mode != "colocate",
        "`vllm_tensor_parallel_size` above 1": args.vllm_tensor_parallel_size != 1,
        "`vllm_enable_sleep_mode`": args.vllm_enable_sleep_mode,
        "`fsdp`": bool(args.fsdp),
    }
    refused = next((name for name, is_given in unsupported.items() if is_given), None)
    if refused:
        raise ValueError(
            f"`use_vllm` does not go with {refused} here: with `--vllm-mode colocate` each process has an engine "
            "of its own beside the whole policy."
        )


def sample_by_vllm(
    llm, processor, problems: Sequence[Problem], params: Mapping[str, object], media_options: Mapping[str, object]
) -> tuple[list[list[int]], list[list[float]]]:
    """
    Samples a completion for each problem; one that is given G times gets G of them, of one request.

    Args:
        llm (`vllm.LLM`): The engine, which holds the weights of the policy.
        processor ([`OmniVinciProcessor`]): Writes prompts; the engine has one of its own that reads media.
        problems (`Sequence[Problem]`): What is asked. Their media are files.
        params (`Mapping`): Of `SamplingParams`.
        media_options (`Mapping`): Of the processor, such as `num_frames` and `load_audio_from_video`.

    Returns:
        `tuple`: the tokens of each completion, up to and with the first that ends it, and their log-probabilities.

    Raises:
        ValueError: a medium has options of its own, or cannot be read.
    """
    from vllm import SamplingParams

    times = Counter(problem.prompt for problem in problems)
    unique = list({problem.prompt: problem for problem in problems}.values())
    outputs = llm.generate(
        [_request_of(problem, processor, media_options) for problem in unique],
        [SamplingParams(**params, n=times[problem.prompt], logprobs=0) for problem in unique],
        use_tqdm=False,
    )
    completions = {problem.prompt: iter(output.outputs) for problem, output in zip(unique, outputs, strict=True)}
    tokens, log_probs = [], []
    for problem in problems:
        completion = next(completions[problem.prompt])
        tokens.append(list(completion.token_ids))
        chosen = zip(completion.token_ids, completion.logprobs, strict=True)
        log_probs.append([candidates[token].logprob for token, candidates in chosen])
    return tokens, log_probs


def _request_of(problem: Problem, processor, media_options: Mapping[str, object]) -> dict:
    media: dict[str, list] = {}
    for message in problem.messages:
        for item in message["content"] if isinstance(message["content"], list) else ():
            if item["type"] == "text":
                continue
            unknown = sorted(item.keys() - OF_AN_ITEM)
            if unknown:
                raise ValueError(f"{problem.name}: a medium has {unknown}, which vLLM does not take for one medium.")
            media.setdefault(item["type"], []).append(item.get("path", item.get(item["type"])))
    prompt = processor.apply_chat_template(problem.messages, add_generation_prompt=True, tokenize=False)
    request = {"prompt": prompt}
    return request | ({"multi_modal_data": media, "mm_processor_kwargs": dict(media_options)} if media else {})
