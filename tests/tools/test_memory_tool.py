"""tools/memory.py: what it prints for stacks of configs, and how it refuses."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import memory

    return lambda *arguments: memory.main([str(argument) for argument in arguments])


ROWS = r"│ (none|every_3|every_2|full)( \*)? +│(.*)│\n"


def documented():
    """The table of peaks in docs/hardware.md: GB by hardware file and model file."""
    text = (ROOT / "docs/hardware.md").read_text(encoding="utf-8")
    header, _, *lines = text.split("## Peak memory")[1].split("\n\n")[2].splitlines()
    files = re.findall(r"`(\w+)`", header)
    return {
        (file, model): float(cell.split(",")[0])
        for line in lines
        for file, cell in zip(files, line.strip("|").split("|")[1:], strict=True)
        for model in re.findall(r"`(clip_\w+)`", line)
    }


@pytest.mark.slow
def test_the_peaks_in_the_documentation_are_those_of_the_presets(memory, capsys):
    peaks = documented()
    models = {path.stem for path in (ROOT / "configs/model").glob("clip_*.yaml")}
    files = {"gpu_16gb", "gpu_24gb", "gpu_80gb", "h200"}
    assert peaks.keys() == {(file, model) for file in files for model in models}
    some = [(file, "clip_mistral_7b") for file in files] + [("gpu_24gb", "clip_qwen")]
    for hardware, model in some:
        names = ("stage/lora", f"model/{model}", f"hardware/{hardware}")
        assert memory(*(word for name in names for word in ("-c", f"configs/{name}.yaml"))) == 0
        rows = re.findall(ROWS, capsys.readouterr().out)
        (chosen,) = [cells for _, mark, cells in rows if mark]
        assert float(chosen.split("│")[-2]) == pytest.approx(peaks[hardware, model], abs=0.06)


def test_it_marks_the_configured_policy_and_adds_up(memory, demo_world, capsys):
    files = ("hardware/gpu_16gb", "stage/lora", "model/mini")
    code = memory(
        *(word for name in files for word in ("-c", f"configs/{name}.yaml")),
        *("--model.vision.name", demo_world / "mini_clip"),
        *("--model.language.name", demo_world / "mini_saiga"),
    )
    assert code == 0
    rows = re.findall(ROWS, capsys.readouterr().out)
    marks = {name: bool(mark) for name, mark, _ in rows}
    assert marks == {"none": False, "every_3": False, "every_2": False, "full": True}
    peaks = []
    for _, _, cells in rows:
        *parts, peak, margin = (float(cell) for cell in cells.split("│"))
        assert sum(parts) == pytest.approx(peak, abs=0.005 * (len(parts) + 1))
        assert margin == pytest.approx(peak / 0.92, abs=0.02)
        peaks.append(peak)
    assert peaks == sorted(peaks, reverse=True)


def test_a_wrong_setting_is_named(memory, capsys):
    assert memory("--model.language.name", "/nowhere/llm") == 2
    assert "model.language.name: the folder '/nowhere/llm' does not" in capsys.readouterr().err
    assert memory("--trainer.precision", "bf16-true") == 2
    assert "trainer.precision is bf16-true, expected 32-true" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        memory("--model.language.quantization", "nf5")
    assert "model.language.quantization" in capsys.readouterr().err
