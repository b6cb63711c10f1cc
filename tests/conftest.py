import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import mistral_common
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads would only wait for one another
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # of what Lightning calls there

import torch

import long_run
import marian
import published
import runs
import tiny
from architectures import ARCHITECTURES, TOWERS
from lightning_llava.demo.world import DemoWorld


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what is remembered between runs out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    torch.manual_seed(0)
    return tiny.save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def siglip(tmp_path_factory):
    torch.manual_seed(1)
    return tiny.save_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def mistral(tmp_path_factory):
    torch.manual_seed(2)
    return tiny.save_mistral(tmp_path_factory.mktemp("mistral"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    torch.manual_seed(3)
    return tiny.save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """Folders of tiny LLMs and towers by architecture; only to be read."""

    @cache
    def find(name):
        torch.manual_seed(7)
        return (ARCHITECTURES | TOWERS)[name](tmp_path_factory.mktemp(name))

    return find


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory):
    """A small embedded world, made once; only to be read."""
    folder = tmp_path_factory.mktemp("demo") / "world"
    DemoWorld(str(folder), train_scenes=40, validation_scenes=8).prepare()
    return folder


@pytest.fixture(scope="session")
def short_run(demo_world, tmp_path_factory):
    """The run folder of two steps, with a checkpoint of each; only to be read."""
    return two_steps(demo_world, tmp_path_factory.mktemp("short_run"))


@pytest.fixture(scope="session")
def random_run(demo_world, tmp_path_factory):
    """Likewise, with a random decoder: for what compares roundings, or wants different answers."""
    root = tmp_path_factory.mktemp("random_run")
    decoder = runs.random_decoder(demo_world, root / "decoder", spread=0.05)
    return two_steps(demo_world, root, f"--model.language.name={decoder.name}")


def two_steps(world, root, *flags):
    more = ["--trainer.max_steps=2", "--checkpoint.every_n_train_steps=1", "--data.num_workers=0"]
    runs.command_line(*long_run.command(world, root)[3:], *more, *flags)
    return root / "version_0"


@pytest.fixture(scope="session")
def published_models(tmp_path_factory):
    """Folders of tiny models as people publish them, by kind; only to be read."""
    folders = {}

    def find(kind):
        if kind not in folders:
            torch.manual_seed(6)
            folders[kind] = published.KINDS[kind](tmp_path_factory.mktemp(kind))
        return folders[kind]

    return find


@pytest.fixture(scope="session")
def shared_data():
    """Find published files that lie beside the repository: not everywhere, but always in CI."""
    folder = Path(__file__).parents[2] / "shared" / "data"

    def find(*names):
        paths = [folder / name for name in names]
        if missing := [str(path) for path in paths if not path.exists()]:
            away = f"{', '.join(missing)} not there"
            if os.environ.get("CI"):
                pytest.fail(f"{away}, and CI must not skip what reads it", pytrace=False)
            pytest.skip(away)
        return paths

    return find


@pytest.fixture(scope="session")
def untouched(demo_world, tmp_path_factory):
    """The folder of a `long_run` that nobody killed."""
    root = tmp_path_factory.mktemp("untouched")
    subprocess.run(long_run.command(demo_world, root), check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Mistral-7B-v0.1's own SentencePiece model, as the Saiga repositories hold it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    model = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    shutil.copy(model, folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="session")
def marian_pair(tmp_path_factory):
    """Folders of translation models by direction: ("en", "ru") and ("ru", "en")."""
    return marian.save_marian_pair(tmp_path_factory.mktemp("marian"))
