import re
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def main(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.syspath_prepend(TOOLS)
    import benchmark

    return benchmark.main


def numbers(output, name):
    """The cells of every row of that name."""
    rows = [line.strip("│ ").split("│") for line in output.splitlines() if name in line]
    return [[cell.strip() for cell in row[1:]] for row in rows]


# webdataset leaves closing its files to the garbage collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io:pytest.PytestUnraisableExceptionWarning"
)
def test_data_side_by_side(main, capsys):
    small = ["--images", "3", "--records", "400", "--with-images", "6", "--rounds", "1"]
    assert main(["data", *small]) == 0
    output = capsys.readouterr().out
    text = " ".join(output.split())
    assert "3 JPEGs of 640 x 480, quality 90" in output
    assert "400 records without images" in output
    assert "6 records with a JPEG each" in output
    for package in ("pillow", "transformers", "torch", "simplejpeg", "webdataset"):
        assert re.search(rf"{package} \d", text)
    (processor,), (pillow,), (fast,) = (
        numbers(output, name)
        for name in ("CLIPImageProcessorPil", "backend: pillow", "backend: fast")
    )
    assert processor[1] == "1.00"
    assert pillow[2:] == ["0", "0.00%"]
    assert int(fast[2]) <= 2
    rates = [float(row[0].replace(",", "")) for row in (processor, pillow, fast)]
    # Three images are no measurement, but the order stands.
    assert rates == sorted(rates)
    for row in (pillow, fast):
        ratio = float(row[0].replace(",", "")) / rates[0]
        assert float(row[1]) == pytest.approx(ratio, abs=0.01 * ratio + 0.01)
    for plain, planned in zip(
        numbers(output, "webdataset  "), numbers(output, "planned, random"), strict=True
    ):
        assert plain[1::2] == ["1.00"] * 3
        rates = [float(cell.replace(",", "")) for cell in plain[::2]]
        # The same samples of ours stand beside webdataset's decoded and its checked ones.
        assert planned[2] == planned[4]
        for rate, cell, ratio in zip(rates, planned[::2], planned[1::2], strict=True):
            expected = float(cell.replace(",", "")) / rate
            assert float(ratio) == pytest.approx(expected, abs=0.01 * expected + 0.01)
            assert float(ratio) > 1
