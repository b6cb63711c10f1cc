"""Loaders for training and evaluation, and the one integer that is the training data's state."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from rich import get_console
from torch.utils.data import DataLoader

from lightning_llava.data.images import ImageMode, ImageTransform
from lightning_llava.data.index import Index, IndexedSample, build_index
from lightning_llava.data.loader import PackDataset, PositionSampler, training_loader
from lightning_llava.data.plan import Plan
from lightning_llava.data.preparation import Preparation
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import group_identical
from lightning_llava.evaluation.benchmarks import (
    Question,
    load_benchmark,
    load_predict_questions,
    subset,
)
from lightning_llava.evaluation.loader import QuestionDataset
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.settings import refuse_differences
from lightning_llava.specs import BenchmarkSpec, LanguageSpec, PredictSpec, SourceSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.preflight import Example, preflight, summary_table
from lightning_llava.text.template import load_template


class ShardDataModule(LightningDataModule):
    """Training packs from WebDataset shards, and questions of benchmarks.

    Args:
        language: tokenizer and template; filled from `model.language`.
        vision: image size and token count; filled from `model.vision`.
        seed: of every shuffle and of dropout; filled from `seed_everything`.
        sources: training shards by name.
        benchmarks: what `validate`, `test` and the validation inside `fit` ask, by name.
        predict: what `predict` answers.
        preparation: code that writes the shards first (the demo).
        prompt: `chat` writes the LLM's own template; `plain` image and caption alone, for the align
            stage.
        image_mode: `square` crops the centre, `pad` pads to a square.
        pack_tokens: most tokens in a packed micro-batch.
        epochs: how often the mixture is seen. `trainer.max_steps`, where given, ends the run
            instead and repeats the mixture as often as it takes.
        preflight: samples of each source that are checked before step 0; 0 checks none.
        sample_log: write which samples were trained on, a line per micro-batch, to
            `samples.rank{R}.jsonl` in the run folder.
        num_workers: processes that read and decode.
        eval_batch_size: questions answered at once.
        pin_memory: copy batches through pinned memory; null does so when a GPU is used.
    """

    def __init__(
        self,
        # "| None" alone makes jsonargparse take a whole dataclass from a link; None never comes.
        language: LanguageSpec | None,
        vision: VisionSpec | None,
        seed: int = 0,
        sources: dict[str, SourceSpec] | None = None,
        benchmarks: dict[str, BenchmarkSpec] | None = None,
        predict: PredictSpec | None = None,
        preparation: Preparation | None = None,
        prompt: Literal["chat", "plain"] = "chat",
        image_mode: ImageMode = "pad",
        pack_tokens: int = 4096,
        epochs: int = 1,
        preflight: int = 32,
        sample_log: bool = False,
        num_workers: int = 2,
        eval_batch_size: int = 16,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__()
        assert language is not None
        assert vision is not None
        self.language, self.vision, self.seed = language, vision, int(seed)
        self.sources, self.benchmarks, self.predict = sources or {}, benchmarks or {}, predict
        self.preparation, self.prompt = preparation, prompt
        self.image_mode: ImageMode = image_mode
        self.pack_tokens, self.epochs, self.num_workers = pack_tokens, epochs, num_workers
        self.eval_batch_size, self.pin_memory = eval_batch_size, pin_memory
        self.preflight, self.sample_log = preflight, sample_log
        self.consumed = 0
        self.asked: Sequence[Question] = ()
        self.dataset: PackDataset | None = None

    def prepare_data(self) -> None:
        """Let the preparation write its shards; runs on one process per machine."""
        if self.preparation is not None:
            self.preparation.prepare()

    def setup(self, stage: str) -> None:
        """Read the specs' tokenizer and processor; index and plan the training shards for `fit`.

        Raises:
            SettingError: something named is missing or unusable, or `trainer.max_epochs` above one.
        """
        epochs, steps = self._trainer.max_epochs, self._trainer.max_steps
        if stage == "fit" and epochs not in (None, 1) and not (epochs == -1 and steps > 0):
            raise SettingError(
                f"trainer.max_epochs is {epochs}, expected 1: the whole run is one Lightning epoch "
                f"(so that it can resume anywhere); set data.epochs: {epochs} instead"
            )
        self.geometry = vision_geometry(load_vision_config(self.vision), self.vision)
        self.transform = ImageTransform(self.vision, self.image_mode)
        self.chat = ConversationEncoder(self.language, self.geometry.image_tokens)
        # Read before the model is loaded: a wrong file shall not take minutes to be found.
        self._read_questions(stage)
        if stage == "fit" and self.dataset is None:
            self._setup_training()

    def _read_questions(self, stage: str) -> None:
        """Read benchmark or prediction questions; `test` asks benchmarks in full."""
        if stage == "predict":
            if self.predict is None or not self.predict.questions:
                raise SettingError(
                    "data.predict.questions is not set; give a JSON lines file with question_id, "
                    "text and image"
                )
            self.asked = load_predict_questions(self.predict)
            return
        if stage == "fit" and not self.benchmarks:
            rank_zero_info("data: no benchmarks are configured, so nothing is validated")
            self._trainer.limit_val_batches = 0
        elif not self.benchmarks:
            raise SettingError("data.benchmarks is empty; stack a file of configs/eval")
        if stage == "fit" and self._trainer.limit_val_batches == 0:
            return
        self.asked = [
            question
            for name, spec in self.benchmarks.items()
            for question in subset(
                load_benchmark(name, spec), None if stage == "test" else spec.subset, self.seed
            )
        ]

    def _setup_training(self) -> None:
        plain = load_template("plain") if self.prompt == "plain" else None
        encoder = (
            ConversationEncoder(self.language, self.geometry.image_tokens, plain)
            if plain
            else self.chat
        )
        index = build_index(self.sources, encoder)
        for reason, count in index.reasons.items():
            rank_zero_info(f"data: left out {count} samples of {reason}")
        if index.dropped_turns:
            rank_zero_info(
                f"data: {index.dropped_turns} turns cut from conversations over max_length"
            )
        self._fly_ahead(index, encoder)
        names = list(self.sources)
        plan = Plan(
            lengths=np.asarray([sample.length for sample in index.samples]),
            sources=np.asarray([names.index(sample.source) for sample in index.samples]),
            weights=[spec.weight for spec in self.sources.values()],
            pack_tokens=self.pack_tokens,
            seed=self.seed,
        )
        self.dataset = PackDataset(index, plan, encoder, self.transform, self.geometry)

    def _fly_ahead(self, index: Index, encoder: ConversationEncoder) -> None:
        """Check samples of every source, and show what they teach.

        Raises:
            SettingError: with the first bad sample.
        """
        if not self.preflight:
            return
        chosen = []
        for source in self.sources:
            own = [sample for sample in index.samples if sample.source == source]
            chosen += own[:: max(1, math.ceil(len(own) / self.preflight))]
        summaries = preflight(encoder, (_example(sample) for sample in chosen))
        if self._trainer.is_global_zero:
            get_console().print(summary_table(summaries))

    def total_micro_batches(self) -> int:
        """Count the micro-batches of the whole run on all ranks, a multiple of their number."""
        trainer = self._trainer
        assert self.dataset is not None
        world = trainer.world_size
        if trainer.max_steps > 0:
            return trainer.max_steps * trainer.accumulate_grad_batches * world
        packs = sum(self.dataset.plan.num_packs(epoch) for epoch in range(self.epochs))
        # Ranks must take the same number of steps; the last ones see a pack of the next epoch.
        return math.ceil(packs / world) * world

    def train_dataloader(self) -> DataLoader[Any]:
        """Make this rank's packs."""
        assert self.dataset is not None
        trainer = self._trainer
        total = self.total_micro_batches()
        sampler = PositionSampler(
            total, trainer.global_rank, trainer.world_size, lambda: self.consumed
        )
        return training_loader(self.dataset, sampler, self.num_workers, self._pin())

    def val_dataloader(self) -> DataLoader[Any]:
        """Ask the configured subset of every benchmark."""
        return self._question_loader(short_answer=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """Ask every benchmark in full."""
        return self._question_loader(short_answer=True)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Ask the questions of `data.predict`."""
        assert self.predict is not None  # _read_questions saw to it
        return self._question_loader(self.predict.short_answer)

    def _question_loader(self, short_answer: bool) -> DataLoader[Any]:
        trainer = self._trainer
        groups = group_identical(self.asked)
        if len(groups) < trainer.world_size:
            raise SettingError(
                f"{len(groups)} different questions for {trainer.world_size} processes, expected "
                f"at least one for each; set trainer.devices: {max(1, len(groups))} or fewer"
            )
        mine = groups[trainer.global_rank :: trainer.world_size]
        dataset = QuestionDataset(mine, self.chat, self.transform, self.geometry, short_answer)
        return DataLoader(
            dataset,
            # By name: Lightning builds the loader anew for `predict`.
            batch_size=self.eval_batch_size,
            num_workers=self.num_workers,
            collate_fn=dataset.collate,
            pin_memory=self._pin(),
        )

    def settings(self) -> dict[str, Any]:
        """List what the order and content of the training data depend on."""
        assert self.dataset is not None
        return {
            "data.sources": {name: asdict(spec) for name, spec in self.sources.items()},
            "data.pack_tokens": self.pack_tokens,
            "data.prompt": self.prompt,
            "data.image_mode": self.image_mode,
            "seed_everything": self.seed,
            "trainer.accumulate_grad_batches": self._trainer.accumulate_grad_batches,
            "number of processes (trainer.devices x num_nodes)": self._trainer.world_size,
            "data plan": self.dataset.plan.fingerprint,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the number of global micro-batches consumed, and what they were drawn from."""
        if self.dataset is None:
            return {}
        consumed = (
            self._trainer.fit_loop.epoch_loop.batch_progress.current.ready
            * self._trainer.world_size
        )
        return {"micro_batches": consumed, "settings": self.settings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a checkpoint stopped.

        Raises:
            SettingError: the data settings differ, and so would the order.
        """
        if self.dataset is not None and state_dict:
            refuse_differences(state_dict["settings"], self.settings())
            self.consumed = state_dict["micro_batches"]

    @property
    def _trainer(self) -> Any:
        assert self.trainer is not None
        return self.trainer

    def _pin(self) -> bool:
        return (
            self._trainer.strategy.root_device.type == "cuda"
            if self.pin_memory is None
            else self.pin_memory
        )


def _example(indexed: IndexedSample) -> Example:
    sample = indexed.read()
    name = f"shard {indexed.shard}, sample {indexed.key}"
    return Example(name, indexed.source, sample.language, sample.turns, len(sample.images))
