"""How the tasks of this folder add up what their questions scored."""

from collections.abc import Mapping, Sequence


def scores_of(right: bool, video: str, groups: Mapping[str, str]) -> dict[str, dict]:
    """
    What an answer scores in each metric of a task, in the form from which lmms-eval tells standard errors, also those
    of questions that share videos.

    Args:
        right (`bool`): Whether the answer is right.
        video (`str`): The name of the video.
        groups (`Mapping[str, str]`): What accuracies are split by, and the group of this question.
    """
    score = {"score": float(right), "video": video}
    return {"accuracy": score, **{f"accuracy_by_{name}": score | {"group": group} for name, group in groups.items()}}


def accuracy(scores: Sequence[Mapping]) -> float:
    """The share of right answers, given what [`scores_of`] returned for each."""
    return sum(score["score"] for score in scores) / len(scores)


def accuracy_by_group(scores: Sequence[Mapping]) -> dict[str, float]:
    """The share of right answers in each group, in alphabetical order; `scores` as of [`accuracy`]."""
    groups = {}
    for score in scores:
        groups.setdefault(score["group"], []).append(score)
    return {group: accuracy(groups[group]) for group in sorted(groups)}
