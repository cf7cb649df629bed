"""Parquet and Arrow as the `datasets` library of Hugging Face writes them."""

import io
import json
import pickle
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskgil_jax.data import order, sources
from maskgil_jax.data.formats import parquet, tables
from maskgil_jax.data.records import image_records
from maskgil_jax.runtime.errors import InputError, Unreadable

ROWS = 23
NAMES = ["cat", "dog", "cow"]


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two Parquet shards, and a saved dataset in two Arrow files, of the real library."""
    datasets = pytest.importorskip("datasets", reason="needs the extra [test]")
    datasets.disable_progress_bars()
    path = tmp_path_factory.mktemp("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=NAMES),
            "text": datasets.Value("string"),
            "captions": datasets.Sequence(datasets.Value("string")),
            "width": datasets.Value("int32"),
        }
    )
    columns = {
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in range(ROWS)],
        "label": [i % 3 for i in range(ROWS)],
        "text": [None if i == 4 else f"image {i}" for i in range(ROWS)],
        "captions": [["more", f"of {i}"] if i % 2 else [] for i in range(ROWS)],
        "width": [8] * ROWS,
    }
    whole = datasets.Dataset.from_dict(columns, features=features)
    for number in range(2):
        shard = whole.shard(2, number)
        shard.to_parquet(path / f"train-{number:05}-of-00002.parquet", batch_size=5)
    whole.save_to_disk(path / "saved", num_shards=2)
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(path / "splits")
    return path


def spec_of(kind, path):
    return {"parquet": f"parquet:{path}/train-*.parquet", "hf": f"hf:{path}/saved"}[kind]


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_what_datasets_writes_is_read_with_classes_and_captions(kind, written):
    source = sources.open_source(spec_of(kind, written))
    assert len(source) == ROWS and source.class_names == tuple(NAMES)
    assert source.census.captioned is None and source.census.missed() == 0
    assert source.census.notes == [
        "columns that are read: image, label, captions, text",
        "columns that are not read: width",
    ]
    for i in np.random.default_rng(0).permutation(ROWS).tolist():
        record = source[i]
        assert image_records.image_of(record).getpixel((0, 0)) == (i, 0, 0)
        assert record.label == i % 3 and record.id.endswith(f"arquet[{i % 12}]") or kind == "hf"
        texts = (("more", f"of {i}") if i % 2 else ()) + ((f"image {i}",) if i != 4 else ())
        if texts:
            assert image_records.captions_of(record) == texts
        else:
            with pytest.raises(Unreadable, match="it has no caption"):
                image_records.captions_of(record)
    assert [source[i].id for i in range(ROWS)] == list(source.names())
    copy = pickle.loads(pickle.dumps(source))  # as worker processes get it
    assert copy[7].image == source[7].image


def test_several_splits_are_named(written):
    with pytest.raises(InputError, match="several splits: expected hf:.*/splits/train, hf:.*/test"):
        sources.open_source(f"hf:{written}/splits")
    assert len(sources.open_source(f"hf:{written}/splits/test")) == ROWS


def table(path, schema_of_classes=None, row_group_size=4, **columns):
    """A Parquet file of these columns, of images where no other column is given."""
    count = len(next(iter(columns.values()))) if columns else 4
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": png(i), "path": None} for i in range(count)]
    columns = {"image": pa.array(images, struct)} | columns
    metadata = None
    if schema_of_classes:
        feature = {"_type": "ClassLabel", "names": schema_of_classes}
        metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    content = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(content, path, row_group_size=row_group_size)
    return f"parquet:{path}"


def labels_of(source):
    records = [source[i] for i in range(len(source))]
    return [record.fault or source.class_names[record.label] for record in records]


@pytest.mark.parametrize(
    "labels, names, expected",
    [
        (
            ["dog", "cat", None, "dog"],
            None,
            ["dog", "cat", "no class, as other images have", "dog"],
        ),
        ([2, 0, 1, 1], None, ["2", "0", "1", "1"]),
        ([1, 0, -1, 2], ["a", "b"], ["b", "a", "its class -1 is no whole", "its class is 2, exp"]),
        ([None] * 4, None, ["x.parquet"] * 4),
    ],
)
def test_classes_are_numbers_or_names(labels, names, expected, tmp_path):
    source = sources.open_source(table(tmp_path / "x.parquet", names, label=labels))
    for found, start in zip(labels_of(source), expected, strict=True):
        assert found.startswith(start)


def test_images_may_be_missing_or_bytes_alone(tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": png(0), "path": None}, None, {"bytes": None, "path": "/etc/passwd"}]
    source = sources.open_source(table(tmp_path / "a.parquet", image=pa.array(images, struct)))
    faults = [source[i].fault for i in range(3)]
    assert faults[0] == "" and faults[1] == faults[2] == tables.NO_BYTES
    source = sources.open_source(table(tmp_path / "b.parquet", image=[png(3)]))
    assert image_records.image_of(source[0]).getpixel((0, 0)) == (3, 0, 0)
    pq.write_table(pa.table({"img": pa.array(images[:1], struct)}), tmp_path / "c.parquet")
    assert image_records.image_of(sources.open_source(f"parquet:{tmp_path}/c.parquet")[0]).size


def test_a_damaged_row_group_is_its_images_and_the_others_are_read(tmp_path):
    spec = table(tmp_path / "a.parquet", label=[0] * 12)
    group = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    start = group.dictionary_page_offset or group.data_page_offset
    content[start : start + 20] = b"\xff" * 20
    (tmp_path / "a.parquet").write_bytes(content)
    source = sources.open_source(spec)
    faults = [bool(source[i].fault) for i in range(12)]
    assert faults == 4 * [False] + 4 * [True] + 4 * [False]
    assert source[5].fault.startswith("its row group is damaged")


def test_files_that_cannot_be_used_are_refused_by_name(tmp_path, monkeypatch):
    pq.write_table(pa.table({"url": ["x"], "label": [0]}), tmp_path / "none.parquet")
    with pytest.raises(
        InputError, match="none.parquet has no column image.*are url: string, label"
    ):
        sources.open_source(f"parquet:{tmp_path}/none.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "none.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match="cut.parquet cannot be read as Parquet"):
        sources.open_source(f"parquet:{tmp_path}/cut.parquet")
    with pytest.raises(InputError, match="is a folder, expected a pattern of files"):
        sources.open_source(f"parquet:{tmp_path}")
    table(tmp_path / "x0.parquet", label=[0] * 4)
    table(tmp_path / "x1.parquet", ["cat"], label=[0] * 4)
    with pytest.raises(InputError, match="x1.parquet has names of classes .'cat',., but .*x0"):
        sources.open_source(f"parquet:{tmp_path}/x*.parquet")
    table(tmp_path / "list.parquet", label=[[0]] * 4)
    with pytest.raises(InputError, match="its column label is list<.*>, expected numbers or names"):
        sources.open_source(f"parquet:{tmp_path}/list.parquet")
    with pytest.raises(InputError, match="no state.json there; expected a directory that save_to"):
        sources.open_source(f"hf:{tmp_path}")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for spec in (f"parquet:{tmp_path}/x0.parquet", f"hf:{tmp_path}"):
        with pytest.raises(InputError, match="needs pyarrow: pip install pyarrow"):
            sources.open_source(spec)


def test_shuffled_training_decodes_each_row_group_once_an_epoch(tmp_path, monkeypatch):
    spec = table(tmp_path / "a.parquet", label=[i % 2 for i in range(240)], row_group_size=10)
    source = sources.open_source(spec)
    size = int(source.blocks.sizes.max())
    monkeypatch.setattr(order, "WINDOW", 4 * size)
    monkeypatch.setattr(parquet, "CACHE", 10 * size)
    monkeypatch.setattr(order, "SHORT_ROUND", 6)
    read, decoded = parquet._read, []
    monkeypatch.setattr(parquet, "_read", lambda f, n: decoded.append(n) or read(f, n))
    monkeypatch.setattr(parquet, "_row_groups", parquet._RowGroups())
    # Two buckets of one source go through its blocks side by side.
    numbers = np.array([i % 3 == 0 for i in range(240)], int)
    examples = order.Order(order.pools_of([numbers], blocks=[source.blocks]), 8, seed=0)
    drawn = [i for step in range(1, 31) for i in examples.examples(step)]
    labels = [source[i].label for i in drawn]
    assert sorted(drawn) == list(range(240)) and labels == [i % 2 for i in drawn]
    assert len(decoded) == len(set(decoded)) == 24
    assert len({i // 10 for i in drawn[:16]}) > 3 and drawn[:80] != sorted(drawn[:80])
    # The order is a function of the step, in another epoch another one.
    again = order.Order(order.pools_of([numbers], blocks=[source.blocks]), 8, seed=0)
    assert again.examples(17) == examples.examples(17)
    later = [i for step in range(31, 61) for i in again.examples(step)]
    assert sorted(later) == list(range(240)) and later != drawn


def test_the_memory_of_row_groups_is_bounded(tmp_path, monkeypatch):
    spec = table(tmp_path / "a.parquet", label=[0] * 40)
    source = sources.open_source(spec)
    size = max(parquet._read(source._files[0], number).nbytes for number in range(10))
    monkeypatch.setattr(parquet, "CACHE", 3 * size)
    monkeypatch.setattr(parquet, "_row_groups", groups := parquet._RowGroups())
    for i in range(40):
        assert source[i].fault == "" and len(groups._kept) <= 3
    monkeypatch.setattr(parquet, "CACHE", 0)
    assert source[0].fault == "" and len(groups._kept) == 2
