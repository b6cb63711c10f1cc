"""`loss` and `train` at tiny sizes: both ways agree, and ratios are quotients of counts."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_llava.errors import SettingError

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.syspath_prepend(TOOLS)


@pytest.fixture
def measuring():
    import measuring

    return measuring


def report_of(arguments, path, capsys):
    import benchmark

    assert benchmark.main([*arguments, "--rounds", "2", "--json", str(path)]) == 0
    return json.loads(path.read_text()), capsys.readouterr().out.splitlines()


def check_ratios(report, sides, last_line):
    baseline, ours = (report["costs"][side] for side in sides)
    quotients = {
        "FLOPs": baseline["flops"] / ours["flops"],
        "saved bytes": baseline["saved_bytes"] / ours["saved_bytes"],
        "peak memory": baseline["peak_bytes"] / ours["peak_bytes"],
        "time": min(baseline["seconds"]) / min(ours["seconds"]),
    }
    assert report["ratios"] == quotients
    for name, quotient in quotients.items():
        assert f"{name} {quotient:.2f}x" in last_line
    for side in (baseline, ours):
        assert len(side["seconds"]) == 2
        assert side["peak_bytes"] > 0


@pytest.mark.slow
def test_loss_by_hand(tmp_path, capsys):
    sizes = ["--positions", "400", "--hidden", "16", "--vocabulary", "500", "--supervised", "10"]
    report, lines = report_of(["loss", *sizes], tmp_path / "report.json", capsys)
    sides = ("all positions", "supervised positions")
    check_ratios(report, sides, lines[-1])
    assert lines[-1].startswith("loss, baseline over ours: ")
    # Logits and the gradient of the states; none for the frozen head.
    for side, positions in zip(sides, (400, 40), strict=True):
        assert report["costs"][side]["flops"] == 2 * 2 * positions * 16 * 500
        logits = 4 * positions * 500  # log-probabilities in fp32
        assert logits <= report["costs"][side]["saved_bytes"] < 1.1 * logits
    assert report["config"]["positions"] == 400
    assert f"torch {torch.__version__}" in report["versions"]


@pytest.mark.parametrize(
    ("supervised", "found"), [("100", "20 of 20 positions; expected 1 to 19"), ("1", "0 of 20")]
)
def test_a_share_that_cannot_be_supervised_is_refused(supervised, found):
    import benchmark_loss

    settings = benchmark_loss.LossSettings(positions=20, supervised=int(supervised))
    with pytest.raises(SettingError, match=f"--supervised: {found}"):
        benchmark_loss.make_inputs(settings)


@pytest.mark.parametrize("number", ["0", "-3", "2.5", "x"])
def test_a_size_that_is_none_is_refused(number, capsys):
    import benchmark

    with pytest.raises(SystemExit):
        benchmark.main(["loss", f"--positions={number}"])
    assert f"found '{number}'; expected a whole number above zero" in capsys.readouterr().err


@pytest.mark.slow
def test_train_by_hand(tmp_path, capsys):
    sizes = {
        "hidden": 256,
        "layers": 2,
        "vocabulary": 300,
        "rank": 2,
        "prefix": 12,
        "median": 9,
        "layer-width": 512,
        "layer-rank": 4,
    }
    arguments = [part for name, size in sizes.items() for part in (f"--{name}", str(size))]
    report, lines = report_of(
        ["train", "--no-compiled", *arguments], tmp_path / "report.json", capsys
    )
    check_ratios(report, ("padded", "packed"), lines[-1])
    lengths = report["config"]["lengths"]
    assert len(set(lengths)) > 1
    padded = [max(lengths)] * len(lengths)
    for side, rows in (("padded", padded), ("packed", lengths)):
        costs = report["costs"][side]
        # Two layers, two products forward and four backward, over all pairs of a row.
        assert costs["attention_flops"] == 2 * 6 * 2 * 256 * sum(n * n for n in rows)
    kept = report["layer bytes per token"]
    assert list(kept.values()) == sorted(kept.values(), reverse=True)
    assert kept["and recomputed"] == 2 * 512  # the layer's input in bf16
    assert report["agreement"]["loss_difference"] < 1e-5


def test_train_agrees_in_every_gradient(measuring):
    import benchmark_train

    settings = benchmark_train.TrainSettings(
        hidden=256, layers=2, vocabulary=50, rank=2, prefix=8, median=6
    )
    steps = [benchmark_train.make_step(settings, side) for side in benchmark_train.SIDES]
    padded, packed = (step.run() for step in steps)
    # A and B of seven linear layers, in two decoder layers; loss and embeddings.
    assert len(padded) == 2 * 7 * 2 + 2
    assert all(gradient.abs().max() > 0 for gradient in padded.values())
    agreement = measuring.compare(padded, packed)
    assert agreement.loss_difference < 1e-5
    assert agreement.gradient_difference < 1e-4


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_ways_that_disagree_are_refused(measuring, wrong):
    right = {"loss": torch.tensor(1.0), "a": torch.tensor([1.0, 2.0]), "b": torch.tensor([4.0])}
    same = measuring.compare(right, right)
    measuring.check_agreement(same, 1e-6, 1e-6)
    for name in right:
        other = right | {name: right[name] + wrong}
        agreement = measuring.compare(right, other)
        with pytest.raises(SettingError, match="the two ways disagree"):
            measuring.check_agreement(agreement, 1e-4, 1e-4)
    with pytest.raises(SettingError, match="different gradients"):
        measuring.compare(right, {"loss": right["loss"]})


def test_relative_difference_by_hand(measuring):
    one = {"loss": torch.tensor(2.0), "a": torch.tensor([1.0, -4.0])}
    two = {"loss": torch.tensor(2.5), "a": torch.tensor([1.0, -3.0])}
    found = measuring.compare(one, two)
    assert (found.loss_difference, found.gradient_difference) == (0.5, 0.25)


def test_saved_bytes_and_flops_by_hand(measuring):
    linear = nn.Linear(8, 4, bias=False)
    states = torch.ones(16, 8)

    def run():
        loss = linear(states).sigmoid().sum()
        loss.backward()
        return {"loss": loss.detach()}

    step = measuring.Step(run, linear)
    # The input, for the weight's gradient, and the sigmoid's output.
    assert measuring.count_saved(step)[0] == 4 * (16 * 8 + 16 * 4)
    # Output and the weight's gradient; none for the states.
    assert measuring.count_flops(run) == (2 * 2 * 16 * 8 * 4, 0)


def test_attention_of_the_processor_is_counted(measuring):
    from torch.nn.functional import scaled_dot_product_attention

    query = torch.randn(2, 3, 10, 8, requires_grad=True)

    def run():
        scaled_dot_product_attention(query, query, query, is_causal=True).sum().backward()

    expected = 2 * 6 * 2 * 3 * 10 * 10 * 8
    assert measuring.count_flops(run) == (expected, expected)


def test_peak_sees_what_was_freed_again(measuring):
    def run():
        torch.ones(100 * 2**20, dtype=torch.uint8)

    assert measuring.peak_of(run) == pytest.approx(100 * 2**20, rel=0.1)


def test_rounds_take_turns(measuring):
    order = []
    seconds = measuring.take_turns([lambda: order.append("a"), lambda: order.append("b")], 3)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in seconds] == [3, 3]


def test_layer_bytes_by_hand():
    import layer_bytes

    kept = layer_bytes.layer_bytes(layer_bytes.LayerSettings(width=512, rank=4), False)
    # What the seven adapters read: q, k, v, o, gate, up the width, down 3.5 times that.
    inputs = 6 * 512 + 3.5 * 512
    # The mask of dropout in fp32 or in bf16.
    assert kept["peft's defaults"] - kept["input casts dropped"] == 2 * inputs
    # A mask and a product for each; without it q, k, v share one input, gate and up another.
    shared = 3 * 512 + 3.5 * 512
    assert kept["input casts dropped"] - kept["and no dropout"] == 2 * (2 * inputs - shared)
    assert kept["and recomputed"] == 2 * 512


@pytest.mark.slow
# torch's own, about itself.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
def test_a_compiled_layer_makes_the_gate_s_activation_again():
    import layer_bytes

    kept = layer_bytes.layer_bytes(layer_bytes.LayerSettings(width=512, rank=4))
    assert kept["and no dropout"] - kept["and compiled"] >= 2 * 3.5 * 512
    assert kept["and recomputed"] == 2 * 512
