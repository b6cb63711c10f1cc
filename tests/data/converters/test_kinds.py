import inspect
from typing import get_args

import pytest

from lightning_llava.data.converters.kinds import KINDS


@pytest.mark.parametrize("name", KINDS)
def test_readers_take_exactly_what_their_kind_asks_for(name):
    kind = KINDS[name]
    parameters = inspect.signature(kind.read).parameters
    assert next(iter(kind.files)) == next(iter(parameters))
    assert {*kind.files, *kind.optional, *kind.choices} == set(parameters)
    for option, choice in kind.choices.items():
        assert parameters[option].default == choice.default
        assert get_args(parameters[option].annotation) == tuple(choice.values)
        assert all(choice.values.values())
    for option in kind.optional:
        assert parameters[option].default is None
    required = {key for key, each in parameters.items() if each.default is each.empty}
    assert required == set(kind.files)


def test_every_data_set_of_the_recipe_has_a_kind():
    names = "llava vqav2 gqa okvqa aokvqa ocrvqa textvqa textcaps vg refcoco sharegpt"
    assert set(KINDS) == {*names.split(), "llava_instruct_ru", "gqa_ru", "handwriting"}
