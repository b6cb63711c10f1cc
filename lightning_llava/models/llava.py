"""The composition: tower → projector → decoder, as in LLaVA 1.5 (llava_arch.py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig, PreTrainedModel

from lightning_llava.batch import IGNORE_INDEX, Batch
from lightning_llava.models.fusion import scatter_image_features, split_placeholders
from lightning_llava.models.head import caught_hidden_states, find_head
from lightning_llava.models.loss import (
    chunked_cross_entropy,
    shifted_targets,
    summed_cross_entropy,
)
from lightning_llava.models.packed_attention import packed_arguments
from lightning_llava.models.tiles import insert_newlines, reading_order
from lightning_llava.models.vision import VisionTower
from lightning_llava.tiling import NEWLINE, Size


@dataclass(frozen=True)
class LossSum:
    """Loss added up over the supervised tokens of a micro-batch, and their number."""

    loss: Float[Tensor, ""]
    supervised: Int[Tensor, ""]


class Llava(nn.Module):
    """A vision tower, a projector and a causal LLM.

    Args:
        vision_tower: pixels to patch features.
        projector: patch width to LLM width.
        language: any Hugging Face causal LLM.
        image_newline: any resolution: what stands after each row of tile features.
    """

    def __init__(
        self,
        vision_tower: VisionTower,
        projector: nn.Module,
        language: PreTrainedModel,
        image_newline: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.vision_tower = vision_tower
        self.projector = projector
        self.language = language
        self.image_newline = image_newline
        self._head = find_head(language)
        self.taken_over: set[str] = set()
        """Names of what came from a checkpoint. The next one holds it too, trained again or not:
        elsewhere it is nowhere."""
        self.grouping_obstacles: dict[str, str | None] = {}
        """Why questions cannot be answered together, by attention implementation, once it was
        tried (`grouped_probe`)."""

    def forward(self, batch: Batch) -> LossSum:
        """Compute the summed loss of a packed row or of padded rows.

        Only supervised positions reach the output head: at 12 % supervised tokens that is an eighth
        of the logits. Where their logits would be many they are made chunk by chunk, unless the
        decoder makes them in a way of its own.
        """
        targets = shifted_targets(batch.labels, batch.cu_seqlens)
        supervised = targets != IGNORE_INDEX
        if self._head is None:
            kept = supervised.any(dim=0).nonzero().squeeze(1)
            loss = summed_cross_entropy(self._decode(batch, logits_to_keep=kept), targets[:, kept])
        else:
            projection: Any = self.language.get_output_embeddings()
            nowhere = batch.position_ids.new_empty(0)
            with caught_hidden_states(self.language) as caught:
                self._decode(batch, logits_to_keep=nowhere)
            loss = chunked_cross_entropy(
                caught[-1][supervised],
                targets[supervised],
                partial(self._head.logits, projection),
                vocabulary=projection.weight.shape[0],
            )
        return LossSum(loss, supervised.sum())

    def logits(self, batch: Batch) -> Float[Tensor, "rows tokens vocabulary"]:
        """Compute the logits of all positions."""
        return self._decode(batch)

    def embed(self, batch: Batch) -> Float[Tensor, "rows tokens width"]:
        """Look up the tokens and put the image features where their placeholders stand."""
        if batch.pixel_values.shape[0] > 0:
            features = self.image_features(batch.pixel_values, batch.image_sizes)
            return self.place_features(batch.input_ids, features)
        # Without an image projector and newline still take part, by none of a blank's features:
        # every rank must have them in its graph. (Zero times a sum is NaN where fp16 overflows.)
        none = self._project(self.vision_tower(self._blank(batch)))[0, :0]
        if self.image_newline is not None:
            none = insert_newlines(none, self.image_newline, none.new_empty(0, dtype=torch.bool))
        return self.place_features(batch.input_ids, none)

    def image_features(
        self,
        pixel_values: UInt8[Tensor, "images 3 height width"],
        image_sizes: Sequence[Size] = (),
    ) -> Float[Tensor, "features llm_width"]:
        """Encode images and project them into the LLM's width.

        Args:
            pixel_values: of squares; with any resolution of overviews and tiles.
            image_sizes: of the images; needed with any resolution alone.
        """
        features, tiling = self.vision_tower(pixel_values), self.vision_tower.geometry.tiling
        if tiling is None:
            return self._project(features).flatten(0, 1)
        assert self.image_newline is not None
        order = reading_order(image_sizes, tiling, len(pixel_values))
        is_newline = order == NEWLINE
        kept, is_newline = order[~is_newline].to(features.device), is_newline.to(features.device)
        projected = self._project(features.flatten(0, 1)[kept])
        return insert_newlines(projected, self.image_newline, is_newline)

    def _project(self, features: Tensor) -> Tensor:
        weight = next(self.projector.parameters(), features)
        return self.projector(features.to(weight.dtype))

    def place_features(
        self,
        input_ids: Int[Tensor, "rows tokens"],
        image_features: Float[Tensor, "features width"],
    ) -> Float[Tensor, "rows tokens width"]:
        """Look up the tokens and put features that are there already at the placeholders."""
        token_ids, is_image = split_placeholders(input_ids)
        token_embeds = self.language.get_input_embeddings()(token_ids)
        return scatter_image_features(token_embeds, image_features, is_image)

    @torch.no_grad()
    def generate(
        self, batch: Batch, max_new_tokens: int, stop_ids: list[int], pad_id: int
    ) -> list[list[int]]:
        """Answer left-padded prompts greedily, with a KV cache.

        Returns:
            The new token ids of each row, a stop id included where one was reached.
        """
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=stop_ids,
            pad_token_id=pad_id,
        )
        language: Any = self.language  # Module's typing takes `generate` for a tensor
        output = language.generate(
            inputs_embeds=self.embed(batch),
            attention_mask=batch.attention_mask,
            generation_config=settings,
            # A rank whose answers are done must go on while others need its weights.
            synced_gpus=isinstance(self, FSDPModule),
        )
        return output.tolist()

    def _wake(self) -> None:
        """Do nothing; `shard` lets FSDP begin here."""

    def _blank(self, batch: Batch) -> Tensor:
        size = self.vision_tower.geometry.image_size
        return torch.zeros(1, 3, size, size, dtype=torch.uint8, device=batch.input_ids.device)

    def _decode(self, batch: Batch, **kwargs: Any) -> Float[Tensor, "rows positions vocabulary"]:
        """Run the decoder.

        No cache: with one, transformers lets the samples of a packed row see each other where a
        mask keeps them apart.
        """
        if batch.cu_seqlens is not None:
            implementation = self.language.config._attn_implementation or "eager"
            kwargs |= packed_arguments(implementation, batch.cu_seqlens, batch.longest)
        return self.language(
            inputs_embeds=self.embed(batch),
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
            **kwargs,
        ).logits
