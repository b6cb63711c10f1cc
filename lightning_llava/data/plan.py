"""Which samples make up which micro-batch: a pure function of (lengths, weights, seed, index).

Mixture → exact counts → shuffle → windows → best-fit-decreasing packs → groups of like cost →
shuffle. World size and workers have no part in it.
"""

import hashlib
import math
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from lightning_llava.errors import SettingError

WINDOW = 1024
"""Samples that compete for places in packs: enough to fill 96 % at 8192 tokens, few enough to
keep the shuffle a shuffle."""

BLOCK = 512
"""Packs that are sorted by cost together."""

GROUP = 32
"""Neighbours in that order that stay neighbours: ranks that take the packs in turn then wait for
none, for any number of ranks that divides it."""

IMAGE_COST, ATTENTION_SCALE = 13, 33_000
"""Cost of an image, and length at which attention costs as much as all else, in tokens through a
7B LLM with LoRA: 4 x 6.5e9 FLOPs a token, 6 x 4096 x 32 a token and position, 3.5e11 an image in
CLIP ViT-L/14-336."""


class Plan:
    """The endless sequence of micro-batches.

    Args:
        lengths: tokens per sample.
        sources: number of the source each sample belongs to.
        weights: how often a sample of each source is seen per epoch.
        pack_tokens: most tokens in a micro-batch.
        seed: of every shuffle.
        num_images: images per sample; None for none at all.
        identity: what else tells these samples from others (`Index.fingerprint`).
        names: of the sources, for the errors.

    Raises:
        SettingError: a sample longer than a pack, a weight that is no count, or weights under which
            no sample is left, of all or of a source whose weight is not 0.
    """

    def __init__(
        self,
        lengths: Int[np.ndarray, " samples"],
        sources: Int[np.ndarray, " samples"],
        weights: Sequence[float],
        pack_tokens: int,
        seed: int,
        num_images: Int[np.ndarray, " samples"] | None = None,
        identity: str = "",
        names: Sequence[str] = (),
    ) -> None:
        if lengths.max() > pack_tokens:
            raise SettingError(
                f"data.pack_tokens is {pack_tokens}, but the longest sample takes "
                f"{lengths.max()} tokens; raise it to that, "
                "or lower model.language.max_length so that long conversations lose turns"
            )
        _check_weights(sources, weights, names)
        self.lengths, self.sources, self.weights = lengths, sources, list(weights)
        self.pack_tokens, self.seed, self.identity = pack_tokens, seed, identity
        self.costs = sample_costs(lengths, 0 if num_images is None else num_images)
        self._cached: dict[int, list[np.ndarray]] = {}
        self._num_packs: list[int] = []
        if not self.epoch_samples(0).size:
            raise SettingError(
                f"data.sources: the weights {self.weights} leave no sample; raise one"
            )

    @property
    def fingerprint(self) -> str:
        """Hash of all that the order depends on."""
        settings = (self.weights, self.pack_tokens, self.seed, WINDOW, BLOCK, GROUP, self.identity)
        digest = hashlib.sha256(repr(settings).encode())
        for values in (self.lengths, self.sources, self.costs.round()):
            digest.update(np.ascontiguousarray(values, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]

    def epoch_samples(self, epoch: int) -> Int[np.ndarray, " seen"]:
        """Choose an epoch's samples.

        Every sample of a source is there floor(weight) times, and a rotating part once more.
        """
        chosen = []
        for number, weight in enumerate(self.weights):
            members = np.flatnonzero(self.sources == number)
            whole, part = divmod(round(weight * members.size), max(1, members.size))
            chosen += [members] * whole
            order = np.random.default_rng([self.seed, 1, number]).permutation(members)
            chosen.append(order[(epoch * part + np.arange(part)) % max(1, members.size)])
        return np.concatenate(chosen)

    def epoch_packs(self, epoch: int) -> list[Int[np.ndarray, " samples"]]:
        """Pack one epoch; the two epochs used last are kept."""
        if epoch not in self._cached:
            self._cached = dict([*self._cached.items()][-1:])
            self._cached[epoch] = self._pack(epoch)
        return self._cached[epoch]

    def _pack(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, 2, epoch])
        order = rng.permutation(self.epoch_samples(epoch))
        packs: list[np.ndarray] = []
        for start in range(0, order.size, WINDOW):
            window = order[start : start + WINDOW]
            fitted = best_fit_decreasing(self.lengths[window], self.pack_tokens)
            packs += [window[fitted[i]] for i in rng.permutation(len(fitted))]
        costs = np.asarray([self.costs[pack].sum() for pack in packs])
        return [packs[i] for i in group_by_cost(costs, rng)]

    def num_packs(self, epoch: int) -> int:
        """Count an epoch's micro-batches."""
        while len(self._num_packs) <= epoch:
            self._num_packs.append(len(self.epoch_packs(len(self._num_packs))))
        return self._num_packs[epoch]

    def micro_batch(self, index: int) -> Int[np.ndarray, " samples"]:
        """Return the samples of a micro-batch, counted from the start of the run."""
        epoch = 0
        while index >= self.num_packs(epoch):
            index -= self.num_packs(epoch)
            epoch += 1
        return self.epoch_packs(epoch)[index]


def _check_weights(
    sources: Int[np.ndarray, " samples"], weights: Sequence[float], names: Sequence[str]
) -> None:
    """Refuse weights that are no counts, and those that leave a source without a sample."""
    sizes = np.bincount(sources, minlength=len(weights)).tolist()
    for number, (weight, size) in enumerate(zip(weights, sizes, strict=True)):
        name = names[number] if names else f"source {number}"
        if not 0 <= weight < math.inf:
            raise SettingError(
                f"data.sources: the weight of {name} is {weight}; expected a number from 0 up"
            )
        if weight and not round(weight * size):
            raise SettingError(
                f"data.sources: the weight {weight} of {name} leaves none of its {size} samples; "
                "raise it, or set it to 0"
            )


def sample_costs(
    lengths: Int[np.ndarray, " samples"], num_images: Int[np.ndarray, " samples"] | int
) -> Float[np.ndarray, " samples"]:
    """Estimate what a training step spends on each sample, in tokens of no context."""
    return lengths * (1 + lengths / ATTENTION_SCALE) + IMAGE_COST * num_images


def group_by_cost(
    costs: Float[np.ndarray, " packs"], rng: np.random.Generator
) -> Int[np.ndarray, " packs"]:
    """Order packs so that `GROUP` neighbours cost about the same, and the groups come at random.

    What fills no group comes last, shuffled, so that the groups stay aligned.
    """
    groups: list[np.ndarray] = []
    for start in range(0, costs.size, BLOCK):
        order = start + np.argsort(costs[start : start + BLOCK], kind="stable")
        groups += np.split(order, range(GROUP, order.size, GROUP))
    full = [group for group in groups if group.size == GROUP]
    rest = [rng.permutation(group) for group in groups if group.size < GROUP]
    return np.concatenate([full[i] for i in rng.permutation(len(full))] + rest)


def best_fit_decreasing(
    lengths: Int[np.ndarray, " samples"], capacity: int
) -> list[Int[np.ndarray, " members"]]:
    """Pack samples, longest first, each into the fullest pack that still takes it."""
    room: list[tuple[int, int]] = []  # (room left, pack), sorted
    packs: list[list[int]] = []
    for sample in np.argsort(-lengths, kind="stable"):
        length = int(lengths[sample])
        place = bisect_left(room, (length, -1))
        if place < len(room):
            left, pack = room.pop(place)
        else:
            left, pack = capacity, len(packs)
            packs.append([])
        packs[pack].append(int(sample))
        insort(room, (left - length, pack))
    return [np.asarray(pack) for pack in packs]
