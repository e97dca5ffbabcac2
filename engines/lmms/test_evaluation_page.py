"""The commands of `docs/evaluation.md` name tasks that lmms-eval, or this package, really has."""

import re
from pathlib import Path

from lmms_eval.tasks import TaskManager

from transformers_omnivinci.inference.lmms_eval import TASKS

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_tasks_of_the_page_exist():
    named = {name for names in re.findall(r"`omni --tasks ([\w,]+)`", PAGE.read_text()) for name in names.split(",")}
    assert len(named) > 25
    assert sorted(named - set(TaskManager(include_path=TASKS).all_tasks)) == []
