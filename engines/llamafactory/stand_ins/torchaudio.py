"""
In the place of torchaudio, whose builds of PyPI load CUDA alone: LLaMA-Factory imports it, and its own media plug-ins
use it. That of OmniVinci does not, so that there is nothing in it.
"""
