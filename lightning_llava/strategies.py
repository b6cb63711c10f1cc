"""How processes share a run: what Lightning has and is right here, and `fsdp2`."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor
from torch.optim import Optimizer

from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import checkpoint_names
from lightning_llava.models.sharding import cut_like, gather

FSDP2 = "fsdp2"
"""What `trainer.strategy` calls `FullyShardedStrategy`."""


class FullyShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, with the checkpoints that every other strategy writes.

    Lightning's own class would take the GPUs of a node for a tensor-parallel group, gather the
    frozen base for each checkpoint, and read one without the checks of `load_checkpoint_state`.

    Args:
        process_group_backend: nccl or gloo; null takes what the device wants.
        timeout_s: seconds that a process waits for the others.
    """

    def __init__(self, process_group_backend: str | None = None, timeout_s: int = 1800) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timedelta(seconds=timeout_s),
        )

    def setup_environment(self) -> None:
        """Make one group of all processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Restore before the optimizer is built: its schedule needs the data's position."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Restore the optimizer through `load_optimizer_state_dict`."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Gather what a checkpoint holds, on rank 0."""
        assert self.lightning_module is not None
        llava: Any = self.lightning_module.llava
        kept, state = checkpoint_names(llava), llava.state_dict()
        return self._on_first({f"llava.{name}": state[name] for name in state if name in kept})

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Gather the moments on rank 0, under the numbers that AdamW gives its parameters."""
        state: dict[str, Any] = super(ModelParallelStrategy, self).optimizer_state(optimizer)
        moments = {index: self._on_first(values) for index, values in state["state"].items()}
        return {**state, "state": moments} if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict:
        """Map a checkpoint of any strategy: the ranks of a machine share its memory."""
        if "://" in str(checkpoint_path):
            return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)
        return torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Let the module load, which cuts and checks."""
        super(ModelParallelStrategy, self).load_model_state_dict(checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Cut the moments as the parameters are cut."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            moments = {
                index: {k: cut_like(parameters[index], v) for k, v in values.items()}
                for index, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": moments})

    def _on_first(self, state: Mapping[Any, Any]) -> dict[Any, Any]:
        """Gather tensors one after another; the other ranks drop each at once."""
        kept = {}
        for name, value in state.items():
            whole = gather(value).cpu() if isinstance(value, Tensor) else value
            if self.is_global_zero:
                kept[name] = whole
        return kept


StrategyRegistry.register(FSDP2, FullyShardedStrategy, description="FSDP2 over all processes")

TESTED = ("SingleDeviceStrategy", "DDPStrategy", FullyShardedStrategy.__name__)
"""Classes under which training, checkpoints and resuming are right."""
REASONS = {
    "DeepSpeedStrategy": "DeepSpeed keeps the gradients to itself, where they cannot be divided by "
    "the supervised tokens of a step, and writes checkpoints of its own kind",
    "FSDPStrategy": "FSDP1 lays trained and frozen parameters together in flat buffers, so that "
    "learning rates by part and checkpoints of what trains are lost",
    "ModelParallelStrategy": "Lightning's own would gather the frozen base for each checkpoint, "
    "and splits no layer by itself",
}
"""Why others are not."""


def check_strategy_setting(strategy: Any) -> None:
    """Refuse a strategy by what `trainer.strategy` says, before Lightning asks for its packages.

    Args:
        strategy: a name, or `class_path` and `init_args`.

    Raises:
        SettingError: one under which results would be wrong, or that is not tested.
    """
    if not isinstance(strategy, str):
        arguments = strategy.get("init_args") or {}
        _check_class(strategy["class_path"].rpartition(".")[2], arguments)
    elif strategy in StrategyRegistry:  # Lightning itself answers to `auto` and to misspellings
        entry = StrategyRegistry[strategy]
        _check_class(entry["strategy"].__name__, entry["init_params"])


def check_strategy(trainer: Any, model: Mapping[str, Any]) -> None:
    """Refuse what a strategy would make wrong.

    Args:
        trainer: with its strategy and precision.
        model: settings of the model, by name.

    Raises:
        SettingError: naming the setting.
    """
    strategy: Any = trainer.strategy
    ddp = ("start_method", "ddp_comm_hook", "model_averaging_period")
    _check_class(type(strategy).__name__, {key: getattr(strategy, f"_{key}", None) for key in ddp})
    if not isinstance(strategy, FullyShardedStrategy):
        return
    if trainer.precision == "16-mixed":
        raise SettingError(
            "trainer.precision is 16-mixed, but with trainer.strategy: fsdp2 each rank would skip "
            "steps by the overflows of its own shard; set bf16-mixed or 32-true"
        )
    if model["activation_checkpointing"] == "auto":
        raise SettingError(
            "model.activation_checkpointing: auto tries a copy of a decoder layer, and one that "
            "trainer.strategy: fsdp2 has split cannot be copied; set full, every_2, every_3 or none"
        )
    for key, value, plain in (
        ("language.quantization", model["language"]["quantization"], None),
        ("optimizer.name", model["optimizer"]["name"], "adamw"),
        ("compile", model["compile"], "none"),
    ):
        if value != plain:
            raise SettingError(
                f"model.{key} is {value}, untested with trainer.strategy: fsdp2; set "
                f"model.{key}: {plain or 'null'}, or trainer.strategy: ddp"
            )


def _check_class(name: str, arguments: Mapping[str, Any]) -> None:
    reason = None if name in TESTED else REASONS.get(name, "nobody has tested it here")
    if arguments.get("start_method") not in (None, "popen"):
        reason = (
            f"start_method {arguments['start_method']} makes copies of this process, whose signals "
            "and trained weights Lightning handles in ways of its own"
        )
    elif any(arguments.get(key) for key in ("ddp_comm_hook", "model_averaging_period")):
        reason = (
            "ddp_comm_hook and model_averaging_period change what ranks exchange: sums over "
            "tokens, which are divided only after all of them"
        )
    if reason is not None:
        raise SettingError(
            f"trainer.strategy: {name} is refused: {reason}; set ddp, or {FSDP2} to split weights, "
            "gradients and optimizer over the GPUs"
        )
