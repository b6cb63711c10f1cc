"""The command line: `python -m lightning_llava {fit,validate,test,predict}`."""

import sys
import warnings
from pathlib import Path
from typing import Any

import transformers
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_llava.callbacks import Checkpoint, Meter, Panels, Progress, Reports
from lightning_llava.datamodule import ShardDataModule
from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import read_checkpoint
from lightning_llava.module import LlavaModule

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    # The whole run is one Lightning epoch; data.epochs says how often the data are seen.
    "max_epochs": 1,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,  # the plan deals to ranks itself
    "enable_model_summary": False,  # Reports lists the parts with their rates
}


class LlavaCLI(LightningCLI):
    """LightningCLI with stackable configs and this project's callbacks under keys of their own."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks and hand the language and vision specs to the data."""
        for key, callback in {
            "checkpoint": Checkpoint,
            "meter": Meter,
            "panels": Panels,
            "progress": Progress,
            "reports": Reports,
        }.items():
            parser.add_lightning_class_args(callback, key)
        parser.link_arguments("model.language", "data.language")
        parser.link_arguments("model.vision", "data.vision")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint's hyperparameters win, without a word.

        `LlavaModule.on_load_checkpoint` compares them instead, and refuses differences.
        """

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give every run a folder `version_N` of its own, and a resumed run the folder it had."""
        if self.config_init[self.subcommand].trainer.logger in (None, True):
            kwargs["logger"] = self._tensorboard()
        return super().instantiate_trainer(**kwargs)

    def _tensorboard(self) -> TensorBoardLogger:
        config = self.config_init[self.subcommand]
        root, checkpoint = Path(config.trainer.default_root_dir), config.get("ckpt_path")
        if (
            self.subcommand == "fit"
            and checkpoint
            and checkpoint not in ("best", "last", "hpc", "registry")
        ):
            step = read_checkpoint(checkpoint, "--ckpt_path")["global_step"]
            folder = Path(checkpoint).absolute().parent.parent
            if folder.parent == root.absolute() and folder.name.startswith("version_"):
                return TensorBoardLogger(
                    root, name="", version=folder.name, purge_step=step, default_hp_metric=False
                )
        return TensorBoardLogger(root, name="", default_hp_metric=False)


def main(args: list[str] | None = None) -> None:
    """Run the command line; what a user can mend ends in one sentence and exit code 2."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # The training data's state is one integer, in the data module's state_dict; Lightning looks for
    # it in the loader.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    try:
        LlavaCLI(
            LlavaModule,
            ShardDataModule,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            args=args,
        )
    except SettingError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None
