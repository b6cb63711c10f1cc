"""A LLaVA of transformers, the outside twin, and its weights in every layout that people publish.

Names are written out here as the formats' own code has them, not taken from ours.
"""

import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
)

import published
from lightning_llava.batch import IMAGE_TOKEN_INDEX
from lightning_llava.data.collate import collate_padded
from lightning_llava.models.interop.importing import import_weights
from lightning_llava.models.interop.source import Request
from lightning_llava.models.interop.weight_files import write_json
from lightning_llava.models.trained import build_trained, read_trained
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.tiling import Tiling
from published import SPREAD
from tiny import IMAGE_SIZE, VISION, row, tiled_row

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MM_FIELDS = {
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_hidden_size": 32,
    "use_mm_proj": True,
    "image_aspect_ratio": "pad",
    "tokenizer_padding_side": "right",
}
SIZES = [(70, 70), (200, 40), (31, 90), (5, 9), (20, 20)]
"""Of pictures that are cut into tiles; the last one fits two grids as well."""


@cache
def tokenizer():
    return published.tokenizer()


class Twin:
    """transformers' LLaVA with random weights, its LLM and its tower as folders of their own.

    With grids, rows and columns of tiles, it is LLaVA 1.6.
    """

    def __init__(self, root: Path, text: str, width: int = 48, grids=()) -> None:
        torch.manual_seed(5)
        self.root, self.text, self.tokenizer = root, text, tokenizer()
        self.image_token = self.tokenizer.convert_tokens_to_ids("<image>")
        settings = {
            "model_type": text,
            "hidden_size": width,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(self.tokenizer) + 7,  # padded, as llava-hf pads it
        }
        self.tiling = Tiling(tuple(grids), IMAGE_SIZE, 4) if grids else None
        pinpoints = [[IMAGE_SIZE * rows, IMAGE_SIZE * columns] for rows, columns in grids]
        self.pinpoints = {"image_grid_pinpoints": pinpoints} if grids else {}
        config = (LlavaNextConfig if grids else LlavaConfig)(
            vision_config=VISION | {"model_type": "clip_vision_model"},
            text_config=settings,
            image_token_index=self.image_token,
            image_seq_length=16,
            **self.pinpoints,
        )
        model = LlavaNextForConditionalGeneration if grids else LlavaForConditionalGeneration
        self.model = model(config).eval()
        for name, parameter in self.model.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1 if "layers" in name else SPREAD)
        self.tower = root / "tower"
        self.model.model.vision_tower.save_pretrained(self.tower)
        pixels().save_pretrained(self.tower)
        self.base = root / "base"
        save_language(self.language(), self.base, self.tokenizer)

    def language(self):
        """The LLM alone, with weights of its own."""
        language = AutoModelForCausalLM.from_config(self.model.config.text_config).eval()
        state = {
            name.replace("model.language_model.", "model."): value.clone()
            for name, value in self.model.state_dict().items()
            if "language_model" in name or name.startswith("lm_head")
        }
        language.load_state_dict(state)
        return language

    def adopt(self, language) -> None:
        """Take another LLM's weights."""
        self.model.model.language_model.load_state_dict(language.model.state_dict())
        self.model.lm_head.load_state_dict(language.lm_head.state_dict())

    def renamed(self, *pairs: tuple[str, str]) -> dict[str, torch.Tensor]:
        """Weights with the fronts of their names exchanged, by the first pair that fits."""
        state = {}
        for name, value in self.model.state_dict().items():
            old, new = next(pair for pair in pairs if name.startswith(pair[0]))
            state[new + name.removeprefix(old)] = value.clone()
        return state

    def original_weights(self, tower: bool) -> dict[str, torch.Tensor]:
        state = self.renamed(
            ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
            ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
            ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
            ("model.language_model.", "model."),
            ("model.image_newline", "model.image_newline"),
            ("lm_head.", "lm_head."),
        )
        # Buffers that checkpoints of that time have.
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(6)
        position_ids = "model.vision_tower.vision_tower.vision_model.embeddings.position_ids"
        state[position_ids] = torch.arange(17)[None]
        return {k: v for k, v in state.items() if tower or "vision_tower" not in k}

    def hugging_face_weights(self, old: bool) -> dict[str, torch.Tensor]:
        if not old:
            return self.renamed(("model.", "model."), ("lm_head.", "lm_head."))
        return self.renamed(
            ("model.vision_tower.", "vision_tower.vision_model."),
            ("model.multi_modal_projector.", "multi_modal_projector."),
            ("model.language_model.", "language_model.model."),
            ("model.image_newline", "image_newline"),
            ("lm_head.", "language_model.lm_head."),
        )

    def projector(self, front: str) -> dict[str, torch.Tensor]:
        weights = self.original_weights(tower=False)
        parts = ("mm_projector", "image_newline")
        return {f"{front}{k}": v for k, v in weights.items() if any(part in k for part in parts)}

    def original_config(self) -> dict:
        text = self.model.config.text_config.to_dict()
        newer = ("dtype", "layer_types", "id2label", "label2id", "transformers_version")
        for name in (*newer, "_name_or_path"):
            text.pop(name, None)
        text |= {"rope_theta": text.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
        return (
            text
            | MM_FIELDS
            | self.original_pictures()
            | {
                "model_type": f"llava_{self.text}",
                "architectures": [f"Llava{self.text.title()}ForCausalLM"],
                "mm_vision_tower": str(self.tower),
            }
        )

    def original_pictures(self) -> dict:
        """The fields of LLaVA 1.6, whose code has width before height."""
        if self.tiling is None:
            return {}
        turned = [[width, height] for height, width in self.pinpoints["image_grid_pinpoints"]]
        return {
            "image_aspect_ratio": "anyres",
            "mm_patch_merge_type": "spatial_unpad",
            "image_grid_pinpoints": turned,
        }

    def save_original(self, folder: Path, tower: bool = False, shards: int = 0) -> Path:
        """As liuhaotian/llava-v1.5-* are published: `.bin`, in shards with an index."""
        folder.mkdir()
        self.tokenizer.save_pretrained(folder)
        write_json(folder / "config.json", self.original_config())
        save_bins(folder, self.original_weights(tower), shards)
        return folder

    def save_hugging_face(self, folder: Path, old: bool, pad: bool = True) -> Path:
        folder.mkdir()
        self.model.config.save_pretrained(folder)
        settings = {"num_additional_image_tokens": 1, "chat_template": "{{ messages }}"}
        if self.tiling:
            made = pixels(LlavaNextImageProcessorPil, **self.pinpoints)
        else:
            made = pixels(LlavaImageProcessorPil, do_pad=True) if pad else pixels()
        (LlavaNextProcessor if self.tiling else LlavaProcessor)(
            made,
            self.tokenizer,
            patch_size=VISION["patch_size"],
            vision_feature_select_strategy="default",
            **settings,
        ).save_pretrained(folder)
        save_file(self.hugging_face_weights(old), folder / "model.safetensors")
        return folder

    def save_lora(self, folder: Path, targets=TARGETS, safe: bool = False, **settings) -> Path:
        """As the official finetune_lora.sh leaves it; the twin takes the adapted LLM over."""
        self.adopt(save_adapter(self.language(), folder, self.base, targets, safe, **settings))
        write_json(folder / "config.json", self.original_config())
        torch.save(self.projector("base_model.model."), folder / "non_lora_trainables.bin")
        return folder

    def batches(self) -> list:
        """One picture each."""
        if self.tiling is None:
            return [example()]
        rows = [tiled_row("a", 14, [size], 5, self.tiling) for size in SIZES]
        return [collate_padded([one], 16, IMAGE_SIZE) for one in rows]

    @torch.no_grad()
    def logits(self, batch) -> torch.Tensor:
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (pixels().image_mean, pixels().image_std)
        )
        ids = torch.where(batch.input_ids == IMAGE_TOKEN_INDEX, self.image_token, batch.input_ids)
        inputs = {"pixel_values": (batch.pixel_values / 255 - mean) / std}
        if self.tiling:
            inputs["pixel_values"] = inputs["pixel_values"][None]
            inputs["image_sizes"] = torch.tensor([size[::-1] for size in batch.image_sizes])
        return self.model(input_ids=ids, **inputs, use_cache=False).logits


def example(images: int = 1):
    return collate_padded([row("a", 14, images, 5, seed=3)], 16, IMAGE_SIZE)


def pixels(kind=CLIPImageProcessorPil, **more):
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return kind(size={"shortest_edge": IMAGE_SIZE}, crop_size=side, **more)


def save_language(language, folder: Path, words) -> None:
    language.save_pretrained(folder)
    words.save_pretrained(folder)


def save_bins(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    if not shards:
        torch.save(weights, folder / "pytorch_model.bin")
        return
    places = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = dict(list(weights.items())[number::shards])
        torch.save(part, folder / file)
        places |= dict.fromkeys(part, file)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})


@contextmanager
def peft_as_it_is():
    """peft asks transformers for what it calls deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def save_adapter(language, folder: Path, base: Path, targets, safe: bool, **settings):
    """Let PEFT write random adapters of an LLM; return the LLM with them merged by PEFT."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        **{"r": 4, "lora_alpha": 8, "lora_dropout": 0.05, "target_modules": targets} | settings,
    )
    with peft_as_it_is():
        adapted = get_peft_model(language, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder, safe_serialization=safe)
    return adapted.merge_and_unload()


def take_over(source: Path, output: Path, **settings):
    """Import, as the tool does, under the template that the tests' tokenizer does not tell."""
    output.mkdir()
    return import_weights(
        Request(str(source), **{"template": "vicuna_v1"} | settings), output, output
    )


def load(output: Path):
    trained = read_trained(output / "weights.ckpt", "--model")
    return build_trained(trained, ConversationEncoder(trained.language, 16)).eval(), trained


def assert_equals_twin(output: Path, twin):
    model, _ = load(output)
    for batch in twin.batches():
        with torch.no_grad():
            ours = model.logits(batch)
        theirs = twin.logits(batch)
        assert theirs.std() > 0.1  # or else anything would be close
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
