"""Ranks that found other samples would each follow a plan of their own."""

from types import SimpleNamespace

import pytest

from lightning_llava.data.training import check_same_samples
from lightning_llava.errors import SettingError


class Found(list):
    """As much of an index as two ranks compare."""

    quarantine = ("shard b.tar: the shard cannot be read (Input/output error)",)

    @property
    def fingerprint(self):
        return str(self)


@pytest.mark.parametrize(
    ("rank", "own", "message"),
    [
        (0, [1, 2], r"\(rank 0 found 2 samples and left out 1\)"),
        (1, [1], r"rank 0 found 2 samples and left out 1, rank 1 1 and 1, last shard b\.tar"),
    ],
)
def test_ranks_that_see_other_shards_do_not_begin(rank, own, message):
    def trainer_where(others_agree):
        index = Found([1, 2])
        strategy = SimpleNamespace(
            broadcast=lambda mine: (index.fingerprint, 2, 1),
            reduce_boolean_decision=lambda agrees, **_: agrees and others_agree,
        )
        return SimpleNamespace(strategy=strategy, global_rank=rank)

    check_same_samples(trainer_where(others_agree=True), Found([1, 2]))
    with pytest.raises(SettingError, match=message):
        check_same_samples(trainer_where(others_agree=False), Found(own))
