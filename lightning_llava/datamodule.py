"""Loaders for training and evaluation, and the one integer that is the training data's state."""

from collections.abc import Sequence
from functools import cached_property
from multiprocessing.context import BaseContext
from typing import Any, Literal

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from rich import get_console
from torch.utils.data import DataLoader

from lightning_llava.data.images import ImageBackend, ImageMode, ImageTransform
from lightning_llava.data.index import Index, build_index
from lightning_llava.data.loader import PackDataset, PositionSampler, training_loader
from lightning_llava.data.preparation import Preparation
from lightning_llava.data.storage import ShardStorage
from lightning_llava.data.streaming import StreamDataset
from lightning_llava.data.training import (
    check_same_samples,
    check_samples,
    count_micro_batches,
    describe_mixture,
    describe_run,
    make_plan,
    refuse_other_samples,
    report_left_out,
)
from lightning_llava.data.workers import worker_context
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.loader import QuestionDataset, question_loader
from lightning_llava.evaluation.questions import read_questions, share_questions
from lightning_llava.geometry import VisionGeometry, load_geometry
from lightning_llava.layout import (
    check_length,
    check_step_complete,
    keep_step_size,
    step_size,
)
from lightning_llava.ranges import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)
from lightning_llava.settings import refuse_differences
from lightning_llava.specs import BenchmarkSpec, LanguageSpec, PredictSpec, SourceSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.template import Template, load_template


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
        image_mode: `square` crops the centre, `pad` pads to a square; with any resolution
            (`model.vision.any_resolution`) neither.
        pack_tokens: most tokens in a packed micro-batch.
        epochs: how often the mixture is seen. `trainer.max_steps`, where given, ends the run
            instead and repeats the mixture as often as it takes.
        preflight: samples of each source that are checked before step 0; 0 checks none.
        max_bad_fraction: a run stops when more than this share of the samples it has trained on (of
            1,000 in the beginning) could not be read and were replaced by blanks.
        read_attempts: how often a sample is read before that, with pauses of 0.2, 0.4, … seconds.
        mode: `planned` packs by an index, and resumes exactly; `streaming` reads whole shards one
            after another without an index, does not resume exactly, and takes a source's weight for
            a ratio of probabilities.
        image_backend: `pillow` gives the tower's own processor's pixels bit by bit; `fast` decodes
            JPEG with simplejpeg and differs by single levels.
        cache_dir: where parts of remote shards are kept; null takes the user's cache folder.
        cache_gb: most gigabytes that they take there.
        sample_log: write which samples were trained on, a line per micro-batch, to
            `samples.rank{R}.jsonl` in the run folder.
        num_workers: processes that read and decode.
        eval_batch_size: most questions about an image that are answered at once.
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
        pack_tokens: PositiveInt = 4096,
        epochs: PositiveInt = 1,
        preflight: NonNegativeInt = 32,
        max_bad_fraction: ClosedUnitInterval = 0.01,
        read_attempts: PositiveInt = 4,
        mode: Literal["planned", "streaming"] = "planned",
        image_backend: ImageBackend = "pillow",
        cache_dir: str | None = None,
        cache_gb: NonNegativeFloat = 10.0,
        sample_log: bool = False,
        num_workers: NonNegativeInt = 2,
        eval_batch_size: PositiveInt = 16,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__()
        assert language is not None
        assert vision is not None
        self.language, self.vision, self.seed = language, vision, int(seed)
        self.sources, self.benchmarks, self.predict = sources or {}, benchmarks or {}, predict
        self.preparation, self.prompt = preparation, prompt
        self.image_mode: ImageMode = image_mode
        self.image_backend: ImageBackend = image_backend
        # Plain numbers: a checkpoint, which holds some of them, must load without code of others.
        self.pack_tokens, self.epochs, self.num_workers = map(
            int, (pack_tokens, epochs, num_workers)
        )
        self.eval_batch_size, self.pin_memory = int(eval_batch_size), pin_memory
        self.preflight, self.sample_log = int(preflight), sample_log
        self.max_bad_fraction, self.read_attempts = float(max_bad_fraction), int(read_attempts)
        self.mode = mode
        self.storage = ShardStorage(cache_dir, cache_gb)
        self.consumed = 0
        self.asked: Sequence[Question] = ()
        self.index: Index | None = None
        self.dataset: PackDataset | StreamDataset | None = None

    def prepare_data(self) -> None:
        """Let the preparation write its shards, and index them; on one process per machine."""
        if self.preparation is not None:
            self.preparation.prepare()
        if self._trainer.state.fn == "fit":
            check_length(self._trainer, self.mode, self.epochs)
            if self.mode == "planned":
                self.index = self._build_index()

    def setup(self, stage: str) -> None:
        """Read the specs' tokenizer and processor; plan the training shards for `fit`.

        Raises:
            SettingError: something named is missing or unusable, or `trainer.max_epochs` above one.
        """
        # Before the weights are read: a fork server takes seconds of its own.
        self.worker_context = worker_context(self.num_workers, self._trainer.world_size)
        self.transform = ImageTransform(self.vision, self.image_mode, self.image_backend)
        # Read before the model is loaded: a wrong file shall not take minutes to be found.
        self.asked = read_questions(self._trainer, stage, self.benchmarks, self.predict, self.seed)
        if stage == "fit" and self.dataset is None:
            check_length(self._trainer, self.mode, self.epochs)
            self.configured = {
                "step_size": step_size(self._trainer),
                "accumulate_grad_batches": self._trainer.accumulate_grad_batches,
            }
            self.dataset = self._planned() if self.mode == "planned" else self._streaming()

    @cached_property
    def geometry(self) -> VisionGeometry:
        """Sizes of the tower."""
        return load_geometry(self.vision)

    @cached_property
    def chat(self) -> ConversationEncoder:
        """Writes conversations in the LLM's own template."""
        return self._encoder()

    def _training_encoder(self) -> ConversationEncoder:
        if self.prompt == "chat":
            return self.chat
        return self._encoder(load_template("plain"))

    def _encoder(self, template: Template | None = None) -> ConversationEncoder:
        image_tokens, tiling = self.geometry.image_tokens, self.geometry.tiling
        return ConversationEncoder(self.language, image_tokens, template, tiling)

    def _build_index(self) -> Index:
        return build_index(
            self.sources,
            self._training_encoder(),
            self.storage,
            self.num_workers,
            progress=self._trainer.is_global_zero,
        )

    def _planned(self) -> PackDataset:
        encoder = self._training_encoder()
        if self.index is None:  # on all but one process, which has left its sidecars
            self.index = self._build_index()
        check_same_samples(self._trainer, self.index)
        report_left_out(self.index)
        if self.preflight:
            table = check_samples(self.index, self.storage, encoder, self.preflight)
            if self._trainer.is_global_zero:
                get_console().print(table)
        tiling = self.geometry.tiling
        plan = make_plan(self.index, self.sources, self.pack_tokens, self.seed, tiling)
        parts = (encoder, self.transform, self.geometry)
        return PackDataset(self.index, self.storage, plan, *parts, self.read_attempts)

    def _streaming(self) -> StreamDataset:
        rank_zero_info(
            "data: streaming without an index: nothing is checked beforehand, and a resumed run "
            "draws other samples (data.mode: planned resumes exactly)"
        )
        parts = (self._training_encoder(), self.transform, self.geometry)
        layout = (self._trainer.global_rank, self._trainer.world_size, self.num_workers)
        return StreamDataset(
            self.sources, self.storage, *parts, self.pack_tokens, self.seed, *layout
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Make this rank's packs."""
        trainer, dataset = self._trainer, self.dataset
        if isinstance(dataset, StreamDataset):
            return training_loader(dataset, None, *self._processes())
        assert dataset is not None
        epochs, size = None if trainer.max_steps > 0 else self.epochs, step_size(trainer)
        total = count_micro_batches(dataset.plan, size, epochs, trainer.max_steps)
        rank_zero_info(describe_run(dataset.plan, total, size, epochs, self.prompt))
        sampler = PositionSampler(
            total, trainer.global_rank, trainer.world_size, lambda: self.consumed
        )
        return training_loader(dataset, sampler, *self._processes())

    def val_dataloader(self) -> DataLoader[Any]:
        """Ask the benchmarks: of each the configured subset, or in `test` the whole."""
        return self._question_loader(short_answer=True)

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> DataLoader[Any]:
        """Ask the questions of `data.predict`."""
        assert self.predict is not None  # read_questions saw to it
        return self._question_loader(self.predict.short_answer)

    def _question_loader(self, short_answer: bool) -> DataLoader[Any]:
        at_once = self.eval_batch_size
        mine, length = share_questions(self._trainer, self.asked, at_once)
        parts = (self.chat, self.transform, self.geometry)
        dataset = QuestionDataset(mine, *parts, short_answer, at_once, length)
        return question_loader(dataset, *self._processes())

    def settings(self) -> dict[str, Any]:
        """List what the order and content of the training data depend on; where they lie is not."""
        settings = {
            "data.mode": self.mode,
            "data.pack_tokens": self.pack_tokens,
            "data.prompt": self.prompt,
            "data.image_mode": self.image_mode,
            "data.image_backend": self.image_backend,
            "seed_everything": self.seed,
        }
        if isinstance(self.dataset, PackDataset):
            settings["data.sources"] = describe_mixture(self.dataset.index, self.sources)
            settings["data plan"] = self.dataset.plan.fingerprint
        return settings

    def state_dict(self) -> dict[str, Any]:
        """Return the number of global micro-batches consumed, and what they were drawn from."""
        if self.dataset is None:
            return {}
        progress = self._trainer.fit_loop.epoch_loop.batch_progress.current
        return {
            "micro_batches": progress.ready * self._trainer.world_size,
            "settings": self.settings(),
            "layout": self.configured | {"step_size": step_size(self._trainer)},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a checkpoint stopped.

        Raises:
            SettingError: the data settings differ, and so would the order; or the checkpoint was
                not written at the end of an optimizer step, whose gradients are lost.
        """
        if self.dataset is None or not state_dict:
            return
        if isinstance(self.dataset, PackDataset):
            before = state_dict["settings"].get("data.sources", {})
            refuse_other_samples(before, self.dataset.index)
        refuse_differences(state_dict["settings"], self.settings())
        keep_step_size(self._trainer, state_dict["layout"])
        self.consumed = state_dict["micro_batches"]
        check_step_complete(self.consumed, state_dict["layout"]["step_size"])
        if isinstance(self.dataset, StreamDataset):
            self.dataset.position = self.consumed
        step = self.consumed // state_dict["layout"]["step_size"]
        rank_zero_info(f"data: continues after step {step}, micro-batch {self.consumed}")

    @property
    def _trainer(self) -> Any:
        assert self.trainer is not None
        return self.trainer

    def _processes(self) -> tuple[int, bool, BaseContext | None]:
        """Say how loaders read: how many processes, into pinned memory or not, started how."""
        on_gpu = self._trainer.strategy.root_device.type == "cuda"
        pin = on_gpu if self.pin_memory is None else self.pin_memory
        return self.num_workers, pin, self.worker_context
