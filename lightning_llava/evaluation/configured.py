"""The benchmarks of stacked eval configs, and nothing else of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_llava.cli_errors import FriendlyParser
from lightning_llava.errors import SettingError
from lightning_llava.specs import BenchmarkSpec


def read_benchmarks(files: Sequence[Path], prog: str) -> dict[str, BenchmarkSpec]:
    """Read `data.benchmarks` of YAML files; unlike in a training run, their benchmarks add up.

    The config.yaml of a run will do as well: what it says of model and training is left aside. A
    wrong value ends the program with a sentence that names file and line.

    Args:
        files: in their order; of two benchmarks with one name the later counts.
        prog: the program, for the error.

    Raises:
        SettingError: a file that cannot be read, or none that has benchmarks.
    """
    benchmarks: dict[str, Any] = {}
    for file in files:
        benchmarks |= _benchmarks(file)
    if not benchmarks:
        named = ", ".join(map(str, files))
        raise SettingError(f"-c: no data.benchmarks in {named}; give files of configs/eval")
    parser = FriendlyParser(prog=prog)
    parser.add_argument("--data.benchmarks", type=dict[str, BenchmarkSpec])
    # What its errors look the place of a wrong value up in.
    parser.args = [word for file in files for word in ("-c", str(file))]
    parsed: Any = parser.parse_object({"data": {"benchmarks": benchmarks}})
    return parser.instantiate_classes(parsed)["data.benchmarks"]


def _benchmarks(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"-c: cannot read {str(file)!r} ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"-c: {file}: not valid YAML: {' '.join(str(error).split())}") from error
    data = content.get("data") if isinstance(content, dict) else None
    found = data.get("benchmarks") if isinstance(data, dict) else None
    if found is not None and not isinstance(found, dict):
        raise SettingError(f"-c: {file}: data.benchmarks is {found!r}, expected a mapping")
    return found or {}
