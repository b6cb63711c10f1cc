"""`eval` at tiny sizes: counts by hand, the same answers by all ways, ratios of what was found."""

import json
from pathlib import Path

import pytest
import torch
from transformers import MistralConfig

from lightning_llava.errors import SettingError

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def bench(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.syspath_prepend(TOOLS)
    import benchmark_eval

    return benchmark_eval


@pytest.fixture
def pope():
    import pope_flops

    return pope_flops


SIZES = {"hidden": 256, "layers": 2, "vocabulary": 300, "side": 3, "prefix": 14}


def test_pope_has_its_rows_and_questions(pope):
    assert sum(pope.IMAGES.values()) == 500
    assert sum(pope.IMAGES.values()) * pope.ROWS == 9000
    assert sum(n * images for n, images in pope.IMAGES.items()) == 5127
    assert sorted(pope.suffix_lengths(11)) == list(range(15, 26))


def test_report_and_last_line(tmp_path, capsys):
    import benchmark

    path = tmp_path / "report.json"
    sizes = [part for name, size in SIZES.items() for part in (f"--{name}", str(size))]
    command = ["eval", *sizes, "--questions", "5", "--tokens", "3", "--rounds", "2"]
    assert benchmark.main([*command, "--json", str(path)]) == 0
    last, report = capsys.readouterr().out.splitlines()[-1], json.loads(path.read_text())
    counts, best = report["FLOPs"], {way: min(s) for way, s in report["seconds"].items()}
    assert all(len(seconds) == 2 for seconds in report["seconds"].values())
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    expected = {
        "FLOPs": counts["a forward per question"] / counts["and deduplicated"],
        "FLOPs at 7B": report["ratios"]["FLOPs at 7B"],
        "time of forwards": best["a forward per question"] / best["together"],
        "time of generate": best["generate per question"] / best["together"],
    }
    assert report["ratios"] == expected
    assert last.startswith("eval, baseline over ours: ")
    for name, ratio in expected.items():
        assert f"{name} {ratio:.2f}x (goal {report['goals'][name]:g}x)" in last
    assert [len(answer) for answer in report["answers"]] == [3] * 5


def test_counts_by_hand(bench, pope):
    from measuring import count_flops

    settings = bench.EvalSettings(**SIZES)
    made, config = bench.Bench(settings), bench.mistral(settings)
    with torch.no_grad():
        tower, pairs_tower = count_flops(lambda: made.model.image_features(made.pixels))
        prompts = made.prompts([4, 6])
        made.together(prompts, 1)  # the trial before the first answers is not counted
        alone, pairs_alone = count_flops(lambda: made.forward(prompts[1]))
        ours, pairs = count_flops(lambda: made.together(prompts, 1))
    # Prefix of 14; 6 more alone, 4 + 6 more together, which meet the prefix and one another.
    assert alone - tower == pope.decoder_flops(config, 20, 20 * 20, 1)
    assert ours - tower == pope.decoder_flops(config, 24, 14 * 14 + 10 * 24, 2)
    # The logits of a single position are a batched product to torch.
    assert pairs_alone - pairs_tower >= 4 * 2 * 256 * 20 * 20
    assert pairs - pairs_tower >= 4 * 2 * 256 * (14 * 14 + 10 * 24)


def test_formula_by_hand(pope):
    config = MistralConfig()
    # Mistral-7B without embeddings: 218,103,808 weights in each of 32 layers' matrices.
    matrices = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    assert pope.decoder_flops(config, 1, 0, 0) == 2 * matrices
    assert pope.decoder_flops(config, 0, 1, 0) == 4 * 32 * 4096
    assert pope.decoder_flops(config, 0, 0, 1) == 2 * 4096 * 32000
    totals = pope.pope_by_formula(config, 615)
    assert totals["a forward per question"] / totals["and deduplicated"] > 9


def test_ways_that_disagree_are_refused(bench, monkeypatch):
    made = bench.Bench(bench.EvalSettings(**SIZES, questions=3))
    assert len(made.check_answers()) == 3
    monkeypatch.setattr(made, "forward", lambda prompt: -1)
    with pytest.raises(SettingError, match="the ways disagree"):
        made.check_answers()


def test_a_prefix_shorter_than_the_image_is_refused(bench):
    with pytest.raises(SettingError, match="--prefix: 10 tokens; expected at least 11, 9 of which"):
        bench.Bench(bench.EvalSettings(**SIZES | {"prefix": 10}))
