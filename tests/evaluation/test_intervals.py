import numpy as np
import pytest
from scipy import stats

from lightning_llava.evaluation import intervals
from lightning_llava.evaluation.intervals import interval, mean_ratio, sum_by_cluster


def clustered(seed, clusters=60, each=6, concentration=2.0):
    """Scores of `each` questions about every image; some images are hard, some easy."""
    generator = np.random.default_rng(seed)
    ease = generator.beta(0.75 * concentration, 0.25 * concentration, clusters)
    scores = generator.random((clusters, each)) < ease[:, None]
    numbers = np.repeat(np.arange(clusters), each)
    return numbers, scores.ravel().astype(float)


def accuracy_sums(numbers, scores):
    parts = np.column_stack([scores, np.ones_like(scores)])
    return sum_by_cluster(numbers, np.zeros_like(numbers), parts)


def test_sums_and_mean_of_ratios_by_hand():
    clusters, groups = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    parts = np.array([[2.0, 3.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    sums = sum_by_cluster(clusters, groups, parts)
    assert sums.tolist() == [[[2, 3, 1], [1, 1, 1]], [[0, 1, 1], [0, 0, 1]]]
    assert mean_ratio(sums.sum(0)) == (2 / 4 + 1 / 1) / 2
    # Nothing was said and nothing was right is 0; a group that was not drawn does not count.
    assert mean_ratio(np.array([[0.0, 0.0, 4.0], [3.0, 4.0, 4.0]])) == 0.375
    assert mean_ratio(np.array([[0.0, 0.0, 0.0], [3.0, 4.0, 4.0]])) == 0.75


@pytest.mark.parametrize("cells", [intervals.CHUNK, 1000], ids=["at once", "in steps"])
@pytest.mark.parametrize("f1", [False, True], ids=["accuracy", "F1"])
def test_is_scipys_bca_interval(monkeypatch, cells, f1):
    monkeypatch.setattr(intervals, "CHUNK", cells)
    numbers, scores = clustered(seed=3, clusters=40)
    sums = accuracy_sums(numbers, scores)
    if f1:
        # Every second question has the label yes: right is a hit, wrong a miss or a false alarm.
        hit = scores * (np.arange(len(scores)) % 2 == 0)
        parts = np.column_stack([2 * hit, 2 * hit + 1 - scores])
        sums = sum_by_cluster(numbers, np.zeros_like(numbers), parts)
    found = interval(sums, mean_ratio, len(scores), resamples=999, seed=7)
    reference = stats.bootstrap(
        (np.arange(40),),
        lambda drawn, axis: mean_ratio(sums[drawn].sum(axis - 2)),
        n_resamples=999,
        method="BCa",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert found.low < found.value < found.high
    assert (found.images, found.questions) == (40, 240)


def test_width_is_that_of_cluster_robust_standard_errors():
    numbers, scores = clustered(seed=5, clusters=500)
    residuals = np.bincount(numbers, weights=scores - scores.mean())
    error = np.sqrt((residuals**2).sum()) / len(scores)
    independent = scores.std() / np.sqrt(len(scores))
    found = interval(accuracy_sums(numbers, scores), mean_ratio, len(scores), resamples=4000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert error > 1.3 * independent, "the simulated questions hang together"


def test_covers_the_truth_where_independent_rows_would_not():
    covered = {"images": 0, "rows": 0}
    for seed in range(200):
        numbers, scores = clustered(seed)
        for name, clusters in (("images", numbers), ("rows", np.arange(len(scores)))):
            sums = accuracy_sums(clusters, scores)
            found = interval(sums, mean_ratio, len(scores), resamples=400)
            covered[name] += found.low <= 0.75 <= found.high
    # Of 200, 190 are meant; two standard deviations are 6, and a bootstrap of 60 is a bit narrow.
    assert 180 <= covered["images"] <= 198
    assert covered["rows"] < 165


def test_same_seed_same_interval():
    sums = accuracy_sums(*clustered(seed=1))
    assert interval(sums, mean_ratio, 360) == interval(sums, mean_ratio, 360)
    assert interval(sums, mean_ratio, 360) != interval(sums, mean_ratio, 360, seed=1)


def test_no_interval_where_images_do_not_differ():
    for scores in (np.ones(12), np.tile([1.0, 0.0], 6)):
        found = interval(accuracy_sums(np.repeat(range(6), 2), scores), mean_ratio, 12)
        assert (found.value, found.low, found.high) == (scores.mean(), None, None)
    alone = interval(accuracy_sums(np.zeros(3, int), np.array([1.0, 0, 0])), mean_ratio, 3)
    assert (alone.low, alone.images) == (None, 1)
