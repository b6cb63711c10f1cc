import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.dialects import DIALECTS, PUBLISHED, require
from lightning_llava.evaluation.scorers.gqa import gqa_update
from lightning_llava.evaluation.scorers.ocr import ocr_update
from lightning_llava.evaluation.scorers.pope import pope_update
from lightning_llava.evaluation.scorers.vqa import vqa_update

TEN = [["yes"] * 10]
SCORES = {
    "vqav2": lambda dialect: vqa_update(["yes"], TEN, dialect).tenths == 10,
    "textvqa": lambda dialect: vqa_update(["yes"], TEN, dialect, "textvqa").tenths == 10,
    "gqa": lambda dialect: gqa_update(["yes"], ["yes"], dialect).correct == 1,
    "pope": lambda dialect: pope_update(["yes"], ["yes"], dialect).tp == 1,
    "ocr": lambda dialect: ocr_update(["yes"], ["yes"], dialect).correct == 1,
}


@pytest.mark.parametrize(
    ("benchmark", "dialect"), [(name, dialect) for name, row in DIALECTS.items() for dialect in row]
)
def test_every_cell_that_is_filled_scores(benchmark, dialect):
    assert SCORES[benchmark](dialect)


def test_every_empty_cell_is_refused_with_a_sentence():
    empty = {
        (benchmark, dialect)
        for benchmark, defined in DIALECTS.items()
        for dialect in PUBLISHED
        if dialect not in defined and benchmark != "ocr"
    }
    assert empty == {("vqav2", "vlmevalkit"), ("textvqa", "official")}
    for benchmark, dialect in empty:
        with pytest.raises(SettingError, match=f"defines no scoring of {benchmark}; expected one"):
            require(benchmark, dialect)
