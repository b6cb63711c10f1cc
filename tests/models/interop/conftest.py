from copy import copy, deepcopy

import pytest

from layouts import Twin


@pytest.fixture(scope="session")
def twins(tmp_path_factory):
    return {text: Twin(tmp_path_factory.mktemp(text), text) for text in ("llama", "mistral")}


@pytest.fixture(params=["llama"])
def twin(request, twins):
    """transformers' LLaVA: its folders only to be read, its weights to be changed."""
    own = copy(twins[request.param])
    own.model = deepcopy(own.model)
    return own


@pytest.fixture
def own_twin(tmp_path):
    """Its folders are to be changed, too."""
    return Twin(tmp_path / "own_twin", "llama")
