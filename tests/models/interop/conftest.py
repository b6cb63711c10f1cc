import pytest

from layouts import Twin


@pytest.fixture(params=["llama"])
def twin(request, tmp_path):
    """transformers' LLaVA, made anew: some layouts take its weights elsewhere."""
    return Twin(tmp_path / "twin", request.param)
