"""
The plug-in for vLLM: `vllm serve DIR` and `LLM(DIR)` run OmniVinci, in either layout.

vLLM finds [`register`] through the entry point group `vllm.general_plugins` and calls it in each of its processes.
Importing this module imports neither vLLM nor torch.
"""

ARCHITECTURE = "OmniVinciForConditionalGeneration"
"""What the `architectures` of a config name."""


def register() -> None:
    """
    Tells vLLM which class runs OmniVinci. The class is imported when a checkpoint asks for it, so that vLLM with other
    models pays nothing, and a version of vLLM that is too old for the plug-in goes on running them.

    Importing this package has registered its config, tokenizer and processor with the Auto classes of transformers.
    """
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, f"{__name__}.checked_model:{ARCHITECTURE}")
