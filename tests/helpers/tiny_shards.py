"""Small directories of code shards, made without a tokenizer."""

import numpy as np
from etils import epath

from maskgil_jax.data.shards import code_records, shard_files, shard_index

GRID = (4, 4)
CLASSES = 10
CODES = 64


def index(count=1, **changes):
    fields = dict(
        tokenizer=dict(path="/vq", fingerprint="0" * 16, codebook_size=CODES, downsample=2),
        source=dict(name="folder:images", images=0),
        image_size=8,
        buckets="",
        crops="center",
        views=1,
        seed=0,
        encoder={},
        caption_tokens=0,
        features="",
        grids=(GRID,),
        dtype="uint16",
        class_names=tuple(map(str, range(CLASSES))),
        shards=tuple(f"codes-{i:05}-of-{count:05}.array_record" for i in range(count)),
    )
    return shard_index.Index(**(fields | changes))


def record(number, grid=GRID, **changes):
    codes = np.random.default_rng(number).integers(0, CODES, (1, *grid)).astype(np.uint16)
    fields = dict(codes=codes, label=number % CLASSES, id=f"images/{number}.png", size=(9, 8))
    return code_records.CodeRecord(**(fields | changes))


def write(directory, count=2, each=64, records=None, **changes):
    """Shards of `each` records, or of these lists of records."""
    path = epath.Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    records = records or [[record(i * each + j) for j in range(each)] for i in range(count)]
    written = index(len(records), **changes)
    for name, of_shard in zip(written.shards, records, strict=True):
        shard_files.write_shard(path / name, of_shard, written.grids)
    counts = shard_files.counts_of(path, written)
    shard_index.write_index(path, written, counts | {"unreadable": 0, "complete": True})
    return path
