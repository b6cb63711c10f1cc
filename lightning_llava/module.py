"""Batch → model → loss → log, questions → answers → scores; all else lives in what it calls."""

from dataclasses import asdict
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_llava.batch import Batch
from lightning_llava.evaluation.batch_answers import answer_batch, gather_rows
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.loader import QuestionBatch
from lightning_llava.evaluation.report import Scores, benchmark_scalars, score_rows
from lightning_llava.layout import check_batch_complete, check_steps_left, rescale_progress
from lightning_llava.models.activations import Checkpointing
from lightning_llava.models.attention import choose_attention
from lightning_llava.models.build import build_llava
from lightning_llava.models.checkpoint import (
    checkpoint_names,
    init_from,
    load_checkpoint_state,
    with_defaults,
)
from lightning_llava.models.compilation import Compile
from lightning_llava.models.kernels import Kernels
from lightning_llava.models.llava import Llava
from lightning_llava.models.precision import (
    check_bf16,
    compute_type,
    drop_adapter_casts,
    frozen_type,
)
from lightning_llava.models.settle import settle
from lightning_llava.models.sharding import gather, shard
from lightning_llava.optim import StepSums, build_optimizer, build_schedule
from lightning_llava.settings import MODEL_KEYS, refuse_differences
from lightning_llava.specs import (
    GenerationSpec,
    LanguageSpec,
    LearningRates,
    LoraSpec,
    OptimizerSpec,
    ProjectorSpec,
    VisionSpec,
    as_spec,
    plain,
)
from lightning_llava.strategies import FullyShardedStrategy, check_strategy
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.preflight import check_vocabulary


class LlavaModule(LightningModule):
    """A LLaVA in training.

    Args:
        vision: the vision tower.
        projector: what joins tower and LLM.
        language: the LLM.
        learning_rate: which parts train, and how fast.
        optimizer: AdamW and its schedule.
        generation: how answers are generated.
        lora: adapters on the LLM; null for none.
        attention: what keeps the samples of a pack apart. `auto` takes flash-attn or torch's
            `varlen` kernel where GPU and precision allow, SDPA sample by sample (`segments`) on a
            CPU, else SDPA with a mask; before step 0 it is tried on the loaded LLM.
        activation_checkpointing: decoder layers that are recomputed in the backward pass. `full`,
            all of them, keeps about 8 KiB a token and layer instead of 180 to 370, for 47 % more
            FLOPs; `every_2` and `every_3` lie between; `auto` takes what fits into the GPU.
        compile: `layers` compiles each decoder layer with torch.compile before step 0: some minutes
            for fewer kernels and less memory. Needs LoRA without dropout where layers are
            recomputed, and other attention than `segments`.
        kernels: `liger` takes RMSNorm, RoPE and MLP from the package liger-kernel; NVIDIA and AMD
            GPUs only.
        init_from: a checkpoint of an earlier stage whose weights are taken over; the run itself
            starts at step 0.
    """

    llava: Llava

    def __init__(
        self,
        vision: VisionSpec,
        projector: ProjectorSpec,
        language: LanguageSpec,
        learning_rate: LearningRates,
        optimizer: OptimizerSpec,
        generation: GenerationSpec,
        lora: LoraSpec | None = None,
        attention: Literal[
            "auto", "flash_attention_2", "varlen", "segments", "sdpa", "eager"
        ] = "auto",
        activation_checkpointing: Checkpointing = "none",
        compile: Compile = "none",  # noqa: A002
        kernels: Kernels = "torch",
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        # Plain dictionaries only: a checkpoint must load without running code.
        self.save_hyperparameters(
            {k: plain(v) for k, v in locals().items() if k not in ("self", "__class__")}
        )
        self.vision, self.projector = as_spec(VisionSpec, vision), as_spec(ProjectorSpec, projector)
        self.language, self.lora = as_spec(LanguageSpec, language), lora and as_spec(LoraSpec, lora)
        self.learning_rate = as_spec(LearningRates, learning_rate)
        self.optimizer, self.generation = (
            as_spec(OptimizerSpec, optimizer),
            as_spec(GenerationSpec, generation),
        )
        self.attention, self.init_from = attention, init_from
        self.activation_checkpointing: Checkpointing = activation_checkpointing
        # Not `compile`, which is a method of every module.
        self.compilation: Compile = compile
        self.kernels: Kernels = kernels
        self.strict_loading = False  # `load_state_dict` below is strict in its own way
        self.rows: list[LedgerRow] = []
        self.scores: Scores = {}
        self._step = StepSums()

    def configure_model(self) -> None:
        """Load the parts; called again by Lightning, it does nothing."""
        if hasattr(self, "llava"):
            return
        trainer = self._trainer
        precision = "32-true" if trainer is None else str(trainer.precision)
        compute = compute_type(precision)
        if trainer is not None:
            check_strategy(trainer, self.hparams)
        # Lightning moves the module to its device only later.
        device = self.device if trainer is None else trainer.strategy.root_device
        check_bf16(compute, device)
        choose_attention(self.attention, device, compute)  # what cannot run is refused before
        self.encoder = ConversationEncoder(self.language, image_tokens=1)
        # Lightning calls this with the GPU for torch's default device, where the CPU's generators,
        # which the trial of the head takes, cannot draw.
        with torch.device("cpu"):
            self.llava = build_llava(
                self.vision,
                self.projector,
                self.language,
                self.lora,
                self.learning_rate,
                base_dtype=frozen_type(compute),
                # What is packed is settled in on_fit_start, where the next one may take over.
                attention="eager" if self.attention == "eager" else None,
                kernels=self.kernels,
                compute_dtype=compute,
                device=device,
            )
        table: Any = self.llava.language.get_input_embeddings()
        check_vocabulary(self.encoder, int(table.weight.shape[0]), self.language.name)
        if precision != "32-true":
            drop_adapter_casts(self.llava.language)
        if self.init_from is not None:
            fresh = init_from(self.llava, self.init_from, self.settings())
            rank_zero_info(
                f"model: weights taken from {self.init_from}; {len(fresh)} parameters start fresh"
            )
        if trainer is not None and isinstance(trainer.strategy, FullyShardedStrategy):
            shard(self.llava, trainer.strategy.device_mesh["data_parallel"])
        # Lightning keeps the mode that it finds, and in eval mode the adapters have no dropout.
        self.train(self.training)

    def on_fit_start(self) -> None:
        """Settle attention, recomputation and compilation on the loaded LLM, on its device."""
        tokens: int = self.trainer.datamodule.pack_tokens  # pyright: ignore[reportAttributeAccessIssue]
        settle(
            self.llava,
            self.attention,
            self.activation_checkpointing,
            self.compilation,
            tokens,
            self.device,
            compute_type(str(self.trainer.precision)),
            self.optimizer.name,
        )

    def configure_optimizers(self) -> Any:
        """Build AdamW over the trainable parts, its schedule over the steps of the whole run."""
        unscaled = bool(self.trainer.gradient_clip_val) or self.trainer.precision == "16-mixed"
        optimizer = build_optimizer(self.llava, self.learning_rate, self.optimizer, unscaled)
        schedule = build_schedule(
            optimizer, self.optimizer, int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train(self, mode: bool = True) -> "LlavaModule":
        """Switch to training, but for a frozen tower: dropout there would be silent noise."""
        super().train(mode)
        if hasattr(self, "llava") and self.learning_rate.vision is None:
            self.llava.vision_tower.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the summed loss, with Lightning's and DDP's divisions undone in advance."""
        if batch.rng_seed is not None:
            torch.manual_seed(batch.rng_seed)
        result = self.llava(batch)
        self._step.add(result.loss.detach(), result.supervised)
        # Lightning divides by accumulate_grad_batches and DDP averages over ranks; what counts is
        # the sum over all of them, which on_before_optimizer_step divides by the number of
        # supervised tokens.
        return result.loss * self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the supervised tokens of a step: all micro-batches, all ranks."""
        loss_sum, tokens = self._step.take(self.trainer.world_size)
        supervised = tokens.clamp(min=1)
        gradients = [p.grad for p in self.llava.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, float(1 / supervised))  # pyright: ignore[reportPrivateImportUsage]
        norm = gather(torch.nn.utils.get_total_norm(gradients))
        self.log("learning/loss", (loss_sum / supervised).float(), prog_bar=True)
        self.log("learning/grad_norm", norm)
        self.log("data/supervised_tokens", tokens.float())
        for group in optimizer.param_groups:
            self.log(
                f"learning/lr/{group['name']}",
                group["lr"],
                prog_bar="no_decay" not in group["name"],
            )

    def validation_step(self, batch: QuestionBatch, batch_idx: int) -> None:
        """Answer a batch of benchmark questions; the answers gather in `rows`."""
        self.rows += self._answer(batch)

    test_step = validation_step

    def predict_step(self, batch: QuestionBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Answer a batch of free questions.

        Returns:
            The ledger rows as dictionaries: Lightning copies field by field what it is given, which
            the rows themselves, being frozen, refuse.
        """
        rows = self._answer(batch)
        self.rows += rows
        return [asdict(row) for row in rows]

    def on_validation_epoch_start(self) -> None:
        """Forget the answers of the validation before, and their scores."""
        self.rows, self.scores = [], {}

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Score the answers of all ranks and log them."""
        self.rows = gather_rows(self.rows, self.trainer.world_size)
        if self.rows and not self.trainer.sanity_checking:
            self.scores = score_rows(self.rows)
            for name, value in benchmark_scalars(self.scores).items():
                self.log(name, value, rank_zero_only=True, sync_dist=False)

    on_test_epoch_end = on_validation_epoch_end

    def on_predict_epoch_end(self) -> None:
        """Gather the answers of all ranks."""
        self.rows = gather_rows(self.rows, self.trainer.world_size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trained, not the frozen base, and the settings it was trained with."""
        kept = {f"llava.{name}" for name in checkpoint_names(self.llava)}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        checkpoint["model_settings"] = self.settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose run had other settings; let one of a last step be continued.

        Raises:
            SettingError: naming the keys, both values and `model.init_from`.
        """
        training = self._trainer is not None and self.trainer.state.fn == "fit"
        saved, present = with_defaults(checkpoint["model_settings"]), self.settings()
        keys = (
            present.keys()
            if training
            else present.keys() - {"model.learning_rate", "model.optimizer"}
        )
        refuse_differences({k: saved[k] for k in keys}, {k: present[k] for k in keys})
        if not hasattr(self, "llava"):
            self.configure_model()
        if training:
            # With this set, Lightning takes the epoch, which is the whole run, for finished, and a
            # run that is to be longer now would stop without a step.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            progress["is_last_batch"] = False
            check_batch_complete(progress)
            check_steps_left(checkpoint["global_step"], self.trainer.max_steps)
            if state := checkpoint.get("ShardDataModule"):
                rescale_progress(progress, state["micro_batches"], self.trainer.world_size)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load what a checkpoint holds; everything that is missing must be frozen."""
        state = {key.removeprefix("llava."): value for key, value in state_dict.items()}
        load_checkpoint_state(self.llava, state)

    def settings(self) -> dict[str, Any]:
        """List what must not change when a run continues."""
        return {f"model.{key}": self.hparams[key] for key in MODEL_KEYS}

    def _answer(self, batch: QuestionBatch) -> list[LedgerRow]:
        return answer_batch(self.llava, batch, self.encoder, self.generation.max_new_tokens)
