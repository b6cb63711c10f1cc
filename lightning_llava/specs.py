"""The settings that YAML fills, one dataclass per part. The text under a field is its `--help`.

Nothing here is derived: widths and token counts follow from the parts that the names point to.
"""

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal, TypeVar

Quantization = Literal["nf4", "int8"]
BenchmarkKind = Literal["pope", "vqav2", "gqa", "gqa_ru", "textvqa", "ocr", "regions", "mt_bench"]
OptimizerName = Literal["adamw", "adamw_8bit"]

Spec = TypeVar("Spec")


@dataclass
class VisionSpec:
    """Which vision tower, and which of its features."""

    name: str = "openai/clip-vit-large-patch14-336"
    """Hub name or folder of a CLIP- or SigLIP-like model."""
    revision: str | None = None
    """Hub revision; None takes the newest."""
    layer: int = -2
    """Index into the hidden states (0 = embeddings, -1 = last layer). LLaVA 1.5 takes the last
    but one."""
    tokens: Literal["patch", "cls_patch"] = "patch"
    """`patch` drops the CLS feature, `cls_patch` keeps it."""
    any_resolution: bool = False
    """Show an image whole and in tiles, as LLaVA-1.6 does: up to 2928 features instead of 576. Such
    an image is neither cropped nor padded to a square, whatever `data.image_mode` says."""
    grids: list[list[int]] = field(default_factory=lambda: [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]])
    """Rows and columns of tiles that an image may be cut into, for any_resolution. What shows most
    of the image is taken."""


@dataclass
class ProjectorSpec:
    """What maps tower features into the LLM's embedding space."""

    type: str = "mlp2x_gelu"
    """`linear`, `mlpNx_gelu` (N linear layers) or `identity`."""


@dataclass
class LanguageSpec:
    """Which LLM, and how conversations are written for it."""

    name: str = "lmsys/vicuna-7b-v1.5"
    """Hub name or folder of any causal LLM."""
    revision: str | None = None
    """Hub revision; None takes the newest."""
    template: str = "vicuna_v1"
    """Conversation template: a name from lightning_llava/text/templates or the path of a YAML
    file like those."""
    system: str | None = None
    """System text; None takes the template's own, "" leaves it out."""
    max_length: int = 2048
    """Longest conversation in tokens, image features included; longer ones lose whole turns from
    their end."""
    allow_foreign_template: bool = False
    """Use a template although it was written for another family of tokenizers."""
    quantization: Quantization | None = None
    """Keep the frozen decoder's linear layers in 4 bits (`nf4`, with scales in 8 bits: 0.516 bytes
    a weight) or in 8 (`int8`) instead of 16, through bitsandbytes. Output head, embeddings, norms,
    tower, projector and adapters stay as they are."""


@dataclass
class LoraSpec:
    """LoRA on every linear layer of the LLM's decoder (never the tower, never lm_head)."""

    r: int = 128
    """Rank."""
    alpha: int = 256
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = 0.05
    """Dropout on the adapters' input."""


@dataclass
class LearningRates:
    """Peak learning rate per part; null freezes the part."""

    projector: float | None = 2e-5
    """Projector."""
    lora: float | None = 2e-4
    """LoRA adapters; needs `model.lora`."""
    language: float | None = None
    """The LLM's own weights, embeddings and lm_head included."""
    vision: float | None = None
    """Vision tower. LLaVA 1.5 never trains it."""


@dataclass
class OptimizerSpec:
    """AdamW and its schedule (LLaVA 1.5: cosine to zero after 3 % warmup, no weight decay)."""

    name: OptimizerName = "adamw"
    """`adamw_8bit` keeps Adam's two moments in 8 bits, through bitsandbytes: 2 bytes a trained
    parameter instead of 8. Tensors of less than 4096 elements keep theirs in fp32."""
    weight_decay: float = 0.0
    """Decoupled weight decay; never applied to biases and norms."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates."""
    eps: float = 1e-8
    """Adam's epsilon."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after warmup."""
    warmup_ratio: float = 0.03
    """Share of the optimizer steps in which the rate rises from zero (rounded up, as
    transformers does)."""


@dataclass
class GenerationSpec:
    """How answers are generated in validate, test and predict; always greedy."""

    max_new_tokens: int = 32
    """Longest answer. Short Russian answers need twice the tokens of English ones, hence 32 and
    not 16."""


@dataclass
class SourceSpec:
    """One source of training data."""

    shards: str | list[str] = ""
    """WebDataset tar files: a path, a glob, a brace range, a URL, or a list of those."""
    weight: float = 1.0
    """How often each of its samples is seen per epoch: 1 once, 0.5 every second one, 2 twice."""


@dataclass
class BenchmarkSpec:
    """One benchmark, from its published files."""

    kind: BenchmarkKind = "pope"
    """Format and scorer (docs/evaluation.md). `gqa` reads xGQA's files, too: with `language: ru`
    questions are Russian and answers English; in `gqa_ru` both are Russian."""
    files: dict[str, str] = field(default_factory=dict)
    """Question file per split, e.g. {random: coco_pope_random.json}."""
    annotations: dict[str, str] = field(default_factory=dict)
    """VQAv2: file of the right answers per split. A split without one is answered, not scored, and
    the server's result file is written."""
    submission: dict[str, str] = field(default_factory=dict)
    """VQAv2: per split without annotations, the question file whose every id the server's result
    file must hold, if there are more than are asked (test-dev: those of test). What was not asked
    gets an empty answer."""
    ocr_tokens: dict[str, str] = field(default_factory=dict)
    """TextVQA: Rosetta's OCR file per split, whose words then stand behind the question, as in
    LLaVA-1.5's paper."""
    coordinates: Literal["padded", "image"] = "padded"
    """Regions: what the boxes in answers are fractions of, as the model was trained: the picture
    padded to a square, or itself."""
    images: str = ""
    """Folder of the images that the question files name."""
    language: Literal["en", "ru"] = "en"
    """Language of the questions, and so of the short-answer prompt and of the answer that is
    expected."""
    subset: int | None = None
    """`validate` and `fit` ask this many questions per split, chosen by seed; None asks all.
    `test` always asks all."""


@dataclass
class PredictSpec:
    """What `predict` answers."""

    questions: str = ""
    """JSON lines with `question_id`, `text` and, unless text-only, `image`."""
    images: str = ""
    """Folder of the images that the question file names."""
    language: Literal["auto", "en", "ru"] = "auto"
    """Language of the questions and of the short-answer prompt; `auto` goes by their letters."""
    short_answer: bool = False
    """Append the template's short-answer prompt to every question."""


def plain(value: Any) -> Any:
    """Return a spec as a dictionary, which a checkpoint can hold; other values as they are."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def as_spec(kind: type[Spec], value: Any) -> Spec:
    """Accept a spec or the dictionary that a checkpoint holds of it."""
    return value if isinstance(value, kind) else kind(**value)
