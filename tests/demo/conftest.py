from pathlib import Path

import pytest

from lightning_llava.demo import english, records, russian
from lightning_llava.demo.scenes import generate
from lightning_llava.demo.world import DemoWorld

SMALL = {"train_scenes": 40, "validation_scenes": 12, "seed": 5}
"""Settings of the world that the tests share."""


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A small world on disk; nobody may write into it."""
    made = DemoWorld(folder=str(tmp_path_factory.mktemp("demo") / "world"), **SMALL)
    made.prepare()
    return made


@pytest.fixture(scope="session")
def folder(world):
    return Path(world.folder)


@pytest.fixture(scope="session")
def scenes():
    """Enough scenes of either split for every kind of object and most words to turn up."""
    numbers = {"train": 800, "validation": 300}
    return {split: [generate(0, i, split) for i in range(n)] for split, n in numbers.items()}


@pytest.fixture(scope="session")
def spoken(scenes):
    """Records about those scenes by split, kind and language; the pictures are left undrawn."""
    return {
        (split, kind, wording.CODE): list(
            records.samples(kind, wording, some, [b""] * len(some), seed=0)
        )
        for split, some in scenes.items()
        for kind in records.BUILDERS
        for wording in (english, russian)
    }
