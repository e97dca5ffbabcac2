"""
OmniVinci in lmms-eval, as the model `omnivinci`, and tasks that lmms-eval lacks.

lmms-eval finds the model by the entry point group `lmms_eval.models`. It takes the place of lmms-eval's own wrapper,
which needs the code and the environment of the release. The tasks are in the folder [`TASKS`], for
`lmms-eval --include_path`.
"""

from pathlib import Path

TASKS = str(Path(__file__).parent / "tasks")
"""The folder of the tasks `daily_omni` and `sportu_video_mc`, for `lmms-eval --include_path`."""


def manifest():
    """What the entry point gives to lmms-eval: which classes are the model `omnivinci`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="omnivinci",
        chat_class_path=f"{__name__}.model.OmniVinciChat",
        simple_class_path=f"{__name__}.model.OmniVinciSimple",
    )
