"""What table 10 of the paper tells of episodes: NE, OS, SR and SPL."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from transformers_omnivinci.evaluation import wilson_interval


@dataclass(frozen=True)
class Outcome:
    """
    How an episode went.

    Attributes:
        shortest (`float`): Metres of the shortest way from the start to the goal.
        path (`float`): Metres that were gone.
        distances (`tuple[float, ...]`): Metres of the shortest way to the goal, at the start and after each action.
        has_stopped (`bool`): Whether it ended with a stop, and not for its length.
        reach (`float`): Metres from the goal within which a stop counts as arrival.
        arrived_at (`str`, *optional*): The pillar within that reach where it stopped; `None`: at none.
        goal (`str`): The pillar that it was sent to.
        num_unreadable (`int`): Answers that were no action.
        named (`float`, *optional*): The share of answers that named the goal; `None` without a model.
    """

    shortest: float
    path: float
    distances: tuple[float, ...]
    has_stopped: bool
    reach: float
    arrived_at: str | None
    goal: str
    num_unreadable: int = 0
    named: float | None = None

    @property
    def error(self) -> float:
        """NE: metres of the shortest way that are left at the end."""
        return self.distances[-1]

    @property
    def has_passed(self) -> bool:
        """OS: whether it was within reach of the goal at any time."""
        return min(self.distances) <= self.reach

    @property
    def is_success(self) -> bool:
        """SR: whether it stopped within reach of the goal."""
        return self.has_stopped and self.error <= self.reach

    @property
    def path_success(self) -> float:
        """SPL: success times the share of the shortest way in the one that was gone (Anderson et al., 2018)."""
        return self.is_success * self.shortest / max(self.path, self.shortest)

    def to_json(self) -> dict:
        """It as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> "Outcome":
        """It from [`to_json`]."""
        return cls(**{**values, "distances": tuple(values["distances"])})


def summarise(outcomes: Sequence[Outcome]) -> dict:
    """
    The means of episodes: `NE` in metres; `OS`, `SR` and `SPL` in percent, `SR` with its 95% interval; `arrived`, the
    percentage that stopped at any pillar, and `right`, the percentage of those that stopped at the right one (`None`
    if none did); and `named`, the percentage of answers that named the right one (`None` without a model).

    Raises:
        ValueError: there are none.
    """
    if not outcomes:
        raise ValueError("There are no episodes to sum up: one or more are needed.")
    arrived = [one for one in outcomes if one.arrived_at is not None]
    named = [one.named for one in outcomes if one.named is not None]
    successes = sum(one.is_success for one in outcomes)
    low, high = wilson_interval(successes, len(outcomes))
    return {
        "episodes": len(outcomes),
        "NE": fmean(one.error for one in outcomes),
        "OS": 100 * fmean(one.has_passed for one in outcomes),
        "SR": 100 * successes / len(outcomes),
        "SR_interval": [100 * low, 100 * high],
        "SPL": 100 * fmean(one.path_success for one in outcomes),
        "arrived": 100 * len(arrived) / len(outcomes),
        "right": 100 * fmean(one.arrived_at == one.goal for one in arrived) if arrived else None,
        "named": 100 * fmean(named) if named else None,
        "actions": fmean(len(one.distances) - 1 for one in outcomes),
        "unreadable": sum(one.num_unreadable for one in outcomes),
    }
