"""JSON of ours that is damaged: one message that names the file, never a traceback."""

import functools
import json
import shutil

import numpy as np
import pytest
from etils import epath

import maskgil_jax
from maskgil_jax.data.shards import code_records, shard_index
from maskgil_jax.evaluation import stored_features
from maskgil_jax.pretrained import model_directory, networks
from maskgil_jax.reporting import collect, facts, figures, page, result_tables, results
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.training.unreadable_images import known_unreadable
from maskgil_jax.workflows import measured_images, scaling_tables
from maskgil_jax.workflows.run import keep_config, run_stages
from tests.helpers import tiny

DEEP = json.loads("[" * 300 + "]" * 300)
VALUES = ([], {}, None, "x", -1, 1e400, True, "\ud800", [[]], {"x": [1]}, DEEP)
MOST_CASES = 300  # of one file: a config has thousands
PLAN = {
    "notes": {},
    "plans": [
        {
            **dict(config="configs/b.py", topology="v5p:2x2x1", chips=4, parameters=100),
            **dict(steps=10, batch_size=2, tokens_per_example=16, model_flops_per_step=1e9),
            **dict(mfu=0.4, tokens_per_second=10.0, chip_hours=3),
        }
    ],
}
SETTING = {
    **dict(samples={"count": 4}, reference={"path": "x", "count": 4}, protocol={"name": "none"}),
    **dict(metrics={"fid": 3.0, "is": "NaN"}, real_to_real={"fid": 1}, warnings=[]),
    **dict(seconds_per_image=0.5),
}


@functools.cache
def shapes_of(config, where):
    return networks.shapes_of(config, where)


def read_codes(path):
    index, _ = shard_index.read_index(path.parent)
    code_records.Unpacker(index)


def read_tokenizer(path):
    found = model_directory.read_description(path.parent)
    return networks.config_of(found["class"], found["arguments"], str(path))


def read_generator(path):
    shapes_of(read_tokenizer(path), str(path))


def read_config(path):
    (path.parent / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
    keep_config(tiny.get_config(), epath.Path(path.parent))


def read_report(path):
    """All of a page but drawing its figures."""
    runs = collect.gather([str(path.parent)])
    page.facts_tables(runs)
    page.metrics(runs)
    for run in runs:
        facts.warnings(run)
        for file, result in run.results.items():
            if result.kind != results.METRICS:
                result_tables.tables_of(file, result)
        for key in ("loss", "accuracy"):
            figures.points(run.log or [], key)


# What is read, and by what.
READERS = {
    "index.json of codes": ("codes/index.json", read_codes),
    "model.json of a generator": ("model/model.json", read_generator),
    "model.json of a tokenizer": ("tokenizer/model/model.json", read_tokenizer),
    "config.json of a run": ("config.json", read_config),
    "config.json in a report": ("config.json", read_report),
    "metrics.json in a report": ("metrics.json", read_report),
    "a plan": (PLAN, lambda path: scaling_tables.read_plans(str(path))),
    "a plan in a report": (PLAN, read_report),
    "a setting of a sweep": (SETTING, lambda path: measured_images.read_measured(epath.Path(path))),
    "unreadable images": ([1, 5], lambda path: known_unreadable(epath.Path(path), 10)),
}


def with_other_values(content):
    """The same content with one value, at any depth, replaced or left out."""
    yield from VALUES
    places = content.items() if isinstance(content, dict) else enumerate(content)
    for place, value in list(places):
        copy = dict(content) if isinstance(content, dict) else list(content)
        del copy[place]
        yield copy
        inner = (
            with_other_values(value) if isinstance(value, dict | list) and value else iter(VALUES)
        )
        for other in inner:
            copy = dict(content) if isinstance(content, dict) else list(content)
            copy[place] = other
            yield copy


def damaged(data, rng):
    """Bytes that are cut, or of which some are changed."""
    for length in rng.integers(0, len(data), 10):
        yield data[:length]
    for _ in range(40):
        copy = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            copy[place] ^= 1 << rng.integers(8)
        yield bytes(copy)
    yield from (b"", b"\xff\xfe\x00", b"\x00" * 100, b"[" * 100_000, b"9" * 10_000, data + b"}")


@pytest.mark.parametrize("name", READERS)
def test_damage_is_one_message_that_names_the_file(name, finished, tmp_path):
    what, read = READERS[name]
    content = json.loads((finished / what).read_text()) if isinstance(what, str) else what
    path = tmp_path / (what.rpartition("/")[2] if isinstance(what, str) else "file.json")
    data = json.dumps(content).encode()
    path.write_bytes(data)
    read(path)
    # Long lists of names would be the same again and again.
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, list):
            content = content | {key: value[:2]}
    rng, cases = np.random.default_rng(0), [*with_other_values(content)]
    drawn = rng.permutation(len(cases))[:MOST_CASES]
    cases = [json.dumps(cases[i]).encode() for i in drawn] + [*damaged(data, rng)]
    refused = 0
    for case in cases:
        path.write_bytes(case)
        try:
            read(path)
        except InputError as error:
            assert str(path) in str(error) or str(path.parent) in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("class", "xlstm", "field 'class' is 'xlstm', this version knows vq, llama"),
        ("class", ["vq"], "field 'class' is a list, expected a text"),
        ("arguments", None, "field 'arguments' is null, expected an object"),
        ("arguments", {"layers": "2"}, "'arguments' has layers = '2', expected int"),
        ("arguments", {"depth": 2}, "'arguments' has depth = '2', expected one of"),
        ("arguments", {"layers": 2}, "missing"),
        ("class", "vq", "field 'arguments' has layers = '2', expected one of"),
        ("fingerprint", None, "field 'fingerprint' is null, expected a text"),
        ("tokenizer", {"path": "/vq"}, "field 'tokenizer' has no field 'fingerprint'"),
        ("class_names", {"a": 1}, "field 'class_names' is an object, expected a list"),
        ("encoder", [1], "field 'encoder' is a list, expected an object"),
    ],
)
def test_a_field_of_a_model_that_cannot_be_is_named(field, value, message, finished, tmp_path):
    shutil.copytree(finished / "model", tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {field: value}))
    with pytest.raises(InputError, match=f"{path}.*{message}"):
        maskgil_jax.load(tmp_path / "model")


LOG = b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": "NaN"}\n{"step": 3, "loss": 2.0}\n'


def test_a_damaged_log_is_shown_or_refused_by_name(tmp_path):
    path = tmp_path / "training.jsonl"
    rng = np.random.default_rng(0)
    lines = LOG.splitlines()
    values = [json.dumps({"step": 2, "loss": value}).encode() for value in VALUES[:-1]]
    values += [json.dumps({"step": value}).encode() for value in VALUES[:-1]]
    cases = [b"\n".join([lines[0], value, lines[2]]) + b"\n" for value in values]
    cases += (case for case in damaged(LOG, rng) if not case.startswith(b"[["))
    for case in [LOG, *cases]:
        path.write_bytes(case)
        try:
            read_report(path)
        except InputError as error:
            assert str(tmp_path) in str(error)


@pytest.mark.parametrize("about", ["{", "[]", '{"features": 3}', "[" * 100_000, "\ud800"])
def test_what_is_damaged_about_features_is_named(about, tmp_path):
    path = tmp_path / "features.npz"
    np.savez(path, features=np.ones((4, 2)), network="mine", about=about)
    with pytest.raises(InputError, match=f"{path}: about"):
        stored_features.read_features(str(path))


@pytest.mark.parametrize("content", ["{", "[]", "null", '"x"', "[" * 100_000, b"\xff\x00"])
def test_a_damaged_config_of_a_run_is_named(content, finished, tmp_path):
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"{path} "):
        run_stages(tiny.get_config(), epath.Path(tmp_path))
