"""The command line: `python -m lightning_llava {fit,validate,test,predict}`."""

import logging
import re
import sys
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import jsonargparse
import transformers
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero

from lightning_llava.callbacks import (
    Checkpoint,
    Faults,
    Meter,
    Panels,
    Progress,
    Reports,
    SampleLog,
)
from lightning_llava.cli_errors import FriendlyParser, sentence
from lightning_llava.datamodule import ShardDataModule
from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import read_checkpoint, with_defaults
from lightning_llava.module import LlavaModule
from lightning_llava.settings import MODEL_KEYS, refuse_differences
from lightning_llava.strategies import check_strategy_setting

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    # The whole run is one Lightning epoch; data.epochs says how often the data are seen.
    "max_epochs": 1,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,  # the plan deals to ranks itself
    "enable_model_summary": False,  # Reports lists the parts with their rates
}

KEYWORDS = ("last", "hpc")
"""What `fit --ckpt_path` takes instead of a file."""

MISLEADING: dict[str, str] = {
    r"💡 Tip: .* try installing \[lit(logger|models)\]": "an advertisement; nothing is missing",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated": "about lightning's own _pytree.py",
    r"Found \d+ module\(s\) in eval mode at the start": "a frozen tower rests on purpose, and "
    "tests/test_cli.py checks that nothing else does",
    r".*your dataloader is not resumable": "the data's state is one integer, which the data module "
    "keeps; lightning looks for it in the loader",
    r"It is recommended to use `self.log\('benchmarks/": "scores are of all ranks' answers",
    r"Checkpoint directory .* exists and is not empty": "that is what resuming a run looks like",
}
"""What Lightning says and is not so here, by the beginning of the message, with the reason."""


class SaveConfig(SaveConfigCallback):
    """Save the settings of a fit once its checkpoint, if any, has been accepted.

    Before that, a refused resume would replace the settings of the run that it was to continue.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save what validates, tests or predicts."""
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what fits."""
        super().setup(trainer, pl_module, "fit")


class LlavaCLI(LightningCLI):
    """LightningCLI with stackable configs and this project's callbacks under keys of their own."""

    def __init__(self, args: list[str] | None = None, run: bool = True) -> None:
        # The texts under the fields of specs.py; reading them takes a second.
        given = sys.argv[1:] if args is None else args
        wanted = any(flag == "-h" or re.search(r"[-.]help(=|$)", flag) for flag in given)
        jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=wanted)
        super().__init__(
            LlavaModule,
            ShardDataModule,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            parser_class=FriendlyParser,
            parser_kwargs={"prog": "python -m lightning_llava"},
            args=args,
            run=run,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks and hand the language and vision specs to the data."""
        for key, callback in {
            "checkpoint": Checkpoint,
            "meter": Meter,
            "panels": Panels,
            "progress": Progress,
            "reports": Reports,
            "sample_log": SampleLog,
            "faults": Faults,
        }.items():
            parser.add_lightning_class_args(callback, key)
        parser.link_arguments("model.language", "data.language")
        parser.link_arguments("model.vision", "data.vision")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint's hyperparameters win, without a word.

        `LlavaModule.on_load_checkpoint` compares them instead, and refuses differences.
        """

    def before_instantiate_classes(self) -> None:
        """Find what would stop the run now, before anything is loaded.

        Raises:
            SettingError: `--ckpt_path` is no checkpoint, or the run folder cannot be written.
        """
        config = self._settings()
        check_strategy_setting(config.trainer.strategy)
        if (path := self._checkpoint_path()) is not None:
            checkpoint = read_checkpoint(_existing(path), "--ckpt_path")
            self._step = checkpoint.get("global_step", 0)
            if self.subcommand == "fit":
                present = config.model.as_dict()
                kept = {f"model.{key}": present[key] for key in MODEL_KEYS}
                refuse_differences(with_defaults(checkpoint["model_settings"]), kept)
        elif config.model.init_from is not None:
            _existing(Path(config.model.init_from), "model.init_from")
        elif self.subcommand != "fit" and not config.get("ckpt_path"):
            warnings.warn(
                f"{self.subcommand} has neither --ckpt_path nor model.init_from: the projector is "
                "random, and so are the answers",
                stacklevel=1,
            )
        if "verbose" in config:
            config.verbose = False  # Reports prints the scores
        if "://" not in (root := str(config.trainer.default_root_dir)):
            try:
                Path(root).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SettingError(
                    f"trainer.default_root_dir: cannot make the folder {root!r} ({error.strerror})"
                ) from error

    def instantiate_classes(self) -> None:
        """Build trainer, model, data and callbacks.

        Raises:
            SettingError: Lightning refuses a value (an accelerator that is not there, …).
        """
        try:
            super().instantiate_classes()
        except SettingError:
            raise
        except (MisconfigurationException, ValueError) as error:
            raise SettingError(" ".join(str(error).split())) from error
        if self._settings().get("ckpt_path"):
            self.model.init_from = None  # the checkpoint holds all that came from there

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give every run a folder `version_N` of its own, and a resumed run the folder it had."""
        if self._settings().trainer.logger in (None, True):
            kwargs["logger"] = self._tensorboard()
        return super().instantiate_trainer(**kwargs)

    def _tensorboard(self) -> TensorBoardLogger:
        root, checkpoint = Path(self._settings().trainer.default_root_dir), self._checkpoint_path()
        if self.subcommand == "fit" and checkpoint is not None:
            folder = checkpoint.absolute().parent.parent
            if folder.parent == root.absolute() and folder.name.startswith("version_"):
                return TensorBoardLogger(
                    root,
                    name="",
                    version=folder.name,
                    purge_step=self._step,
                    default_hp_metric=False,
                )
        return TensorBoardLogger(root, name="", default_hp_metric=False)

    def _settings(self) -> Any:
        return self.config[self.subcommand] if self.subcommand else self.config

    def _checkpoint_path(self) -> Path | None:
        """Return the file that `--ckpt_path` names; None for Lightning's keywords."""
        given = str(self._settings().get("ckpt_path") or "")
        keyword = given.startswith("registry") or (self.subcommand == "fit" and given in KEYWORDS)
        return Path(given) if given and not keyword else None


def main(args: list[str] | None = None) -> None:
    """Run the command line; what a user can mend ends in one sentence and exit code 2."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    silence_misleading()
    try:
        LlavaCLI(args)
    except Exception as error:
        if (said := sentence(error)) is None:
            raise
        sys.stderr.write(f"error: {said}\n")
        raise SystemExit(2) from None


def silence_misleading() -> None:
    """Drop the messages of `MISLEADING`, warnings and log lines, and no other."""
    for pattern in MISLEADING:
        warnings.filterwarnings("ignore", message=pattern)
    logging.getLogger(rank_zero.__name__).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(re.match(pattern, record.getMessage()) for pattern in MISLEADING)


def _existing(path: Path, setting: str = "--ckpt_path") -> str:
    """Return the path of a checkpoint, or say which was probably meant."""
    if not path.is_file():
        others = [other.name for other in path.parent.glob("*.ckpt")]
        meant = get_close_matches(path.name, others, 1)
        hint = f"; did you mean {str(path.with_name(meant[0]))!r}?" if meant else ""
        raise SettingError(f"{setting}: the file {str(path)!r} does not exist{hint}")
    return str(path)
