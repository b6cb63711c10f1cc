from argparse import ArgumentParser

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.processes import Processes
from lightning_llava.evaluation.translation.around import Around, add_protocol


def around(*words):
    parser = ArgumentParser()
    parser.add_argument("--device")
    add_protocol(parser)
    return Around(parser.parse_args(words), Processes())


@pytest.mark.parametrize(
    "words",
    [
        ("--to-russian", "oracle"),
        ("--to-english", "none"),
        ("--beams", "1"),
        ("--without-ceiling",),
    ],
)
def test_what_english_questions_would_ignore_is_refused(words):
    with pytest.raises(SettingError, match=f"^{words[0]}: .* add --protocol russian"):
        around(*words)


def test_every_option_goes_with_its_protocol():
    around()
    around("--protocol", "russian", "--to-russian", "oracle", "--without-ceiling")
