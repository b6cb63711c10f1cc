import pytest

from lightning_llava.evaluation.russian import RussianMatch
from lightning_llava.evaluation.scorers.gqa import Gqa
from lightning_llava.evaluation.scorers.language import LanguageFidelity
from lightning_llava.evaluation.scorers.ocr import Ocr
from lightning_llava.evaluation.scorers.pope import Pope
from lightning_llava.evaluation.scorers.regions import Regions
from lightning_llava.evaluation.scorers.vqa import Vqa

BOX = (0.0, 0.0, 1.0, 1.0)
TYPES = ["yes/no", "other", "number"]
CASES = [
    (Pope, {"dialect": "strict"}, [["да", "No", "кот"], ["yes", "yes", "no"]]),
    (Vqa, {"dialect": "llava"}, [["Yes", "cat", "2"], [["yes"] * 10] * 3, TYPES]),
    (Gqa, {"dialect": "llava"}, [["No.", "cat", "dog"], ["no", "cat", "cat"]]),
    (Ocr, {}, [["ab", "c", "улица"], ["ac", "c", "улице"]]),
    (Regions, {}, [["[0, 0, 1, 0.6]", "no", "[0, 0, 0.3, 1]"], [BOX] * 3]),
    (LanguageFidelity, {"language": "ru"}, [["да", "yes", "2"]]),
    (RussianMatch, {"lemmas": False}, [["Да", "две", "кот"], ["да", "2", "пёс"]]),
]


@pytest.mark.parametrize(("kind", "settings", "columns"), CASES)
def test_batches_and_processes_add_up_to_the_union(kind, settings, columns):
    whole, other = kind(**settings), kind(**settings)
    whole.update(*columns)
    other.update(*[column[:1] for column in columns])
    metric = kind(
        **settings,
        dist_sync_fn=lambda tensor, group: [tensor, other.counts],
        distributed_available_fn=lambda: True,
    )
    for place in (1, 2):
        metric.update(*[column[place : place + 1] for column in columns])
    own = metric.counts.clone()
    assert metric.compute() == pytest.approx(whole.compute())
    assert metric.counts.tolist() == own.tolist(), "own counts come back after the exchange"
    metric.reset()
    assert metric.counts.sum() == 0
