"""Ranks, or a resumed run, that find other samples would follow another plan."""

from types import SimpleNamespace

import numpy as np
import pytest

from lightning_llava.data.index import Quarantined
from lightning_llava.data.training import check_same_samples, refuse_other_samples
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


def test_a_run_is_not_continued_with_other_samples():
    index = SimpleNamespace(
        sources=["vqa", "ocr"],
        source_numbers=np.array([0] * 54 + [1] * 7),
        quarantine=[Quarantined("vqa", "b.tar", "0", "image 0 is empty")],
    )
    refuse_other_samples({"vqa": {"samples": 54}, "ocr": {"samples": 7}}, index)
    message = (
        r"vqa has 54 now \(1 left out, first shard b\.tar, sample 0: image 0 is empty\) "
        r"and had 60\. Put the shards back .*model\.init_from"
    )
    with pytest.raises(SettingError, match=message):
        refuse_other_samples({"vqa": {"samples": 60}, "ocr": {"samples": 7}}, index)
