"""What a run leaves for people: report, ledger, and the table at the end."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from lightning_llava.evaluation.benchmarks import Question, with_follow_ups
from lightning_llava.evaluation.benchmarks.submission import write_submissions
from lightning_llava.evaluation.ledger import LedgerRow, write_ledger
from lightning_llava.evaluation.report import Scores, check_rows, rich_table, write_report
from lightning_llava.models.build import named_parts


class Reports(Callback):
    """Write `report.json`, `report.md`, `ledger.jsonl` per validation; sum up at the end."""

    def __init__(self) -> None:
        self.console = Console()
        self.start = time.perf_counter()
        self.trained = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run folder."""
        self.folder = run_folder(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to do."""
        self.trained = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and say what trains."""
        self.start = time.perf_counter()
        if trainer.is_global_zero:
            self.console.print(trained_parts(pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report; `validate` prints it too."""
        if trainer.sanity_checking or not _rows(pl_module) or not trainer.is_global_zero:
            return
        self._write(trainer, pl_module)
        if trainer.state.fn != "fit":
            self._print_scores(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and print the report of the full benchmarks, and what judges elsewhere score."""
        if trainer.is_global_zero:
            self._write(trainer, pl_module)
            self._print_scores(pl_module)
            benchmarks = getattr(getattr(trainer, "datamodule", None), "benchmarks", {})
            for path in write_submissions(self.folder, _rows(pl_module), benchmarks):
                self.console.print(f"for the judge: {path}", soft_wrap=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the ledger of the answers."""
        if trainer.is_global_zero:
            write_ledger(self.folder / "ledger.jsonl", _rows(pl_module))
            for row in _rows(pl_module)[:10]:
                self.console.print(
                    f"{row.question_id}: {row.question} → {row.raw_answer}", markup=False
                )
            self.console.print(f"{len(_rows(pl_module))} answers in {self.folder / 'ledger.jsonl'}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what was trained, how long, the scores, and the commands that come next."""
        if trainer.is_global_zero:
            if scores := _scores(pl_module):
                self.console.print(rich_table(scores))
            self._print_summary(trainer)

    def _print_summary(self, trainer: Trainer) -> None:
        minutes, seconds = divmod(round(time.perf_counter() - self.start), 60)
        folder = self.folder
        callback: Any = trainer.checkpoint_callback
        written = callback.last_model_path or callback.best_model_path if callback else ""
        checkpoint = written or trainer.ckpt_path  # nothing is written where nothing was left to do
        loss = trainer.callback_metrics.get("learning/loss")
        table = Table(title="Run", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_row("optimizer steps", str(trainer.global_step))
        table.add_row("time", f"{minutes} min {seconds} s")
        table.add_row("last loss", "none logged" if loss is None else f"{float(loss):.4f}")
        if (bad := trainer.callback_metrics.get("data/substituted")) is not None:
            table.add_row("samples not read", f"{int(bad)}, named in faults.*.jsonl")
        self.console.print(table)
        if not self.trained:
            self.console.print(
                f"Nothing was left to do: the run already had its {trainer.global_step} steps. "
                "Raise trainer.max_steps, or start a new run with model.init_from."
            )
        lines = {
            "run folder": str(folder),
            "checkpoint": str(checkpoint),
            "look": f"tensorboard --logdir {folder} --samples_per_plugin images=200",
        }
        if trainer.enable_validation:
            config = f"--config {folder / 'config.yaml'}"
            lines["score"] = f"python -m lightning_llava validate {config} --ckpt_path {checkpoint}"
        if checkpoint:
            out = f"--checkpoint {checkpoint} --output {folder / 'exported'}"
            lines["hand on"] = f"python tools/export.py {out}"
        for name, line in lines.items():  # outside the table, whose frame would break them
            self.console.print(f"{name}: {line}", soft_wrap=True, markup=False, highlight=False)

    def _print_scores(self, pl_module: LightningModule) -> None:
        self.console.print(rich_table(_scores(pl_module)))
        self.console.print(f"report: {self.folder / 'report.json'}", soft_wrap=True)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder, rows = self.folder, _rows(pl_module)
        meta: dict[str, Any] = {
            "command": trainer.state.fn.value if trainer.state.fn else "none",
            "checkpoint": trainer.ckpt_path or "none, the weights as they stood at this step",
            "global_step": trainer.global_step,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_ledger(folder / "ledger.jsonl", rows)
        check_rows(rows, expected_questions(trainer))
        write_report(folder, rows, _scores(pl_module), meta)


def expected_questions(trainer: Trainer) -> Sequence[Question] | None:
    """Return the questions that every one must have an answer to; None in a run cut short."""
    limits = (trainer.limit_val_batches, trainer.limit_test_batches)
    whole = all(isinstance(limit, float) and limit == 1.0 for limit in limits)
    datamodule = getattr(trainer, "datamodule", None)
    asked = getattr(datamodule, "asked", None) if whole else None
    return None if asked is None else with_follow_ups(asked)


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of this run, the same on all ranks.

    Lightning asks the first rank for it, so all of them must call this, and do so once, in `setup`.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def trained_parts(pl_module: LightningModule) -> Table:
    """List every part with its parameters, in millions, and its peak learning rate."""
    counts: dict[str, list[int]] = {}
    for part, _, parameter in named_parts(pl_module.llava):  # pyright: ignore[reportArgumentType]
        total = counts.setdefault(part, [0, 0])
        total[0] += parameter.numel()
        total[1] += parameter.numel() * parameter.requires_grad
    table = Table(title="Parts", title_justify="left")
    for name in ("part", "parameters", "trained", "learning rate"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part, (number, trained) in counts.items():
        rate = getattr(pl_module.learning_rate, part)
        table.add_row(
            part,
            f"{number / 1e6:,.2f} M",
            f"{trained / 1e6:,.2f} M",
            "frozen" if rate is None else f"{rate:g}",
        )
    return table


def _scores(pl_module: LightningModule) -> Scores:
    """Return the scores of the last validation, which the module has logged."""
    return pl_module.scores  # pyright: ignore[reportReturnType]


def _rows(pl_module: LightningModule) -> list[LedgerRow]:
    return pl_module.rows  # pyright: ignore[reportReturnType]
