"""
What a task of one's own needs before it can be trained on and evaluated; `recipes/` has tasks that are built of it.

- `series_pictures`: time series as line plots.
- `task_rows`: questions with right answers, multiple choice too, as rows that training and evaluation both read.
- `class_balance`: rows drawn so that classes are equally frequent.
"""

from .class_balance import balance_classes
from .series_pictures import SeriesStyle, draw_series
from .task_rows import Choice, choice_rows, task_row, write_rows

__all__ = [
    "Choice",
    "SeriesStyle",
    "balance_classes",
    "choice_rows",
    "draw_series",
    "task_row",
    "write_rows",
]
