"""The order of training: rows hold several samples, batches like ones, and sources and kinds come by weight."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_omnivinci.training.encoding import Measure
from transformers_omnivinci.training.sampling import MixtureSampler, pack, strata_of


@given(st.lists(st.integers(1, 20), max_size=40))
def test_rows_hold_every_sample_once_and_no_more_than_they_can(lengths):
    rows = pack(range(len(lengths)), lengths, 20)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 20 for row in rows)
    # First fit: at most one row is filled to less than a half.
    assert sum(sum(lengths[index] for index in row) <= 10 for row in rows) <= 1


def measures_of(**counts):
    kinds = {"text": (), "image": ("image",), "audio": ("audio",), "omni": ("video", "audio")}
    return [
        Measure(10 + index % 7, frozenset(kinds[kind])) for kind, count in counts.items() for index in range(count)
    ]


@pytest.mark.parametrize("capacity", [None, 40])
def test_groups_share_their_modalities_and_lose_no_sample(capacity):
    measures = measures_of(text=50, omni=33, audio=2)
    sampler = MixtureSampler(measures, [(range(85), 1.0)], 4, capacity, seed=1)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
        assert epochs[-1] == list(sampler) and len(epochs[-1]) == len(sampler)
        units = [unit if capacity else (unit,) for unit in epochs[-1]]
        for start in range(0, len(units), 4):
            assert len({measures[index].modalities for unit in units[start : start + 4] for index in unit}) == 1
        if capacity is None or epoch == 0:
            assert {index for unit in units for index in unit} == set(range(85))
    assert epochs[0] != epochs[1]


def test_sources_are_mixed_by_their_weights():
    measures = measures_of(text=30, omni=10)
    sampler = MixtureSampler(measures, strata_of(measures, [0] * 30 + [1] * 10, [1.0, 3.0], {}), 1)
    drawn = list(sampler)
    assert sum(index >= 30 for index in drawn) == 30 and all(drawn.count(index) == 3 for index in range(30, 40))


def test_kinds_are_mixed_as_the_recipe_says_and_the_others_as_they_are():
    measures = measures_of(text=50, image=40, audio=10)
    strata = strata_of(measures, [0] * 100, [None], {"image": 0.1, "audio": 0.3, "video": 0.6})
    assert {measures[indices[0]].kind: round(share, 6) for indices, share in strata} == {
        "audio": 0.375,
        "image": 0.125,
        "text": 0.5,
    }
