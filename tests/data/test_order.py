import numpy as np

from tests.helpers.orders import MIXED, SHAPES, order_of


def test_a_batch_is_of_one_bucket_and_buckets_come_in_proportion():
    buckets = np.array(57 * [0] + 30 * [2] + 3 * [7])
    steps = range(1, 226)  # 900 examples: ten times all 90
    found = [SHAPES.bucket(step) for step in steps]
    for step, bucket in zip(steps, found, strict=True):
        assert set(buckets[SHAPES.examples(step)]) == {bucket}
    # 57 and 3 are no multiples of the batch: what is left over is made up for in the next rounds.
    for bucket, share in ((0, 57), (2, 30), (7, 3)):
        assert abs(found.count(bucket) - 10 * share / 4) <= 1
    assert len(set(found[:20])) > 1 and found[:20] != sorted(found[:20])


def test_nothing_is_lost_of_what_is_left_over_in_a_bucket():
    seen = np.bincount(np.concatenate([SHAPES.examples(step) for step in range(1, 226)]))
    assert seen.shape == (90,) and seen.min() >= 7 and seen.max() <= 12


def test_sources_are_mixed_by_weight_and_each_is_shuffled_by_itself():
    examples = np.concatenate([MIXED.examples(step) for step in range(1, 501)])
    first, second = examples[examples < 30], examples[examples >= 30]
    assert abs(len(first) / 2000 - 0.75) < 0.01
    # Within a source all are drawn as often, whatever the bucket.
    for part, count in ((first, 30), (second - 30, 50)):
        seen = np.bincount(part, minlength=count) / (len(part) / count)
        assert seen.min() > 0.7 and seen.max() < 1.3
    mixed = [len(set(np.array(MIXED.examples(step)) < 30)) == 2 for step in range(1, 101)]
    assert sum(mixed) > 50  # of 4 examples, 1 - 0.75^4 - 0.25^4 = 68 %


def test_a_seed_has_orders_of_its_own():
    a, b = (order_of([57 * [0] + 30 * [2]], seed=seed) for seed in (0, 1))
    assert [a.bucket(s) for s in range(1, 20)] != [b.bucket(s) for s in range(1, 20)]
    assert a.examples(1) != b.examples(1)
