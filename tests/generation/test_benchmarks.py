"""Images where the programs of GenEval and DPG-Bench look for them.

What these programs do to find images is written again here, from their sources.
"""

import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.generation import benchmarks, samples
from maskgil_jax.generation.placing import Devices
from maskgil_jax.runtime.errors import InputError
from tests.helpers import commands, tiny_text
from tests.helpers.plain_tokenizer import Tokenizer, names

METADATA = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a bench"},
    {"tag": "counting", "include": [], "exclude": [], "prompt": "two naïve cats"},
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a bench"},
]
TEXTS = {"10": "ten\nlines", "COCOval2014000000003": "three", "b": "bee", "a_1": "one"}


@pytest.fixture
def prompts(tmp_path):
    """The files of prompts of both, by the names of the layouts."""
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in METADATA))
    (tmp_path / "prompts").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "prompts" / f"{name}.txt").write_text(f"{text}\n")
    (tmp_path / "prompts" / "notes.md").write_text("")
    return {"geneval": str(path), "dpg": str(tmp_path / "prompts")}


class Sampler:
    """Image i is of the level i; stops after so many batches."""

    def __init__(self, stop=None):
        self.drawn, self._stop = [], stop

    def __call__(self, labels, indices):
        if len(self.drawn) == self._stop:
            raise KeyboardInterrupt
        self.drawn.append(indices.tolist())
        return np.repeat(indices % 256, 4).reshape(-1, 2, 2)


def draw(output, layout, sampler=None, **settings):
    layout, texts = layout
    samples.write_samples(
        sampler or Sampler(),
        Tokenizer(),
        output,
        settings=settings,
        size=(4, 4),
        labels=np.arange(len(texts)),
        names=texts,
        per_label=4,
        devices=Devices(None, 3),
        removes_unfinished=False,
        layout=layout,
    )


def level(path):
    """Of an image of one level."""
    with Image.open(path) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (4, 4, 3) and len(np.unique(pixels)) == 1
    return int(pixels.max())


def content(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def scored_by_geneval(directory):
    """(metadata, levels) of each prompt, as evaluate_images.py finds them."""
    found = []
    for folder in sorted(directory.iterdir()):
        if not folder.is_dir() or not folder.name.isdigit():
            continue
        with open(folder / "metadata.jsonl") as file:
            metadata = json.load(file)
        there = (path for path in sorted((folder / "samples").iterdir()) if path.is_file())
        images = [path for path in there if re.match(r"\d+\.png", path.name)]
        found.append((metadata, list(map(level, images))))
    return found


def scored_by_dpg(directory, resolution):
    """Levels of each prompt, by its name, as compute_dpg_bench.py cuts them out."""
    found = {}
    corners = [(0, 0), (resolution, 0), (0, resolution), (resolution, resolution)]
    for path in directory.iterdir():
        name = path.name.split(".")[0]
        if path.suffix != ".png":
            continue  # it fails, which the program says and goes on
        with Image.open(path) as image:
            crops = [
                image.crop((left, top, left + resolution, top + resolution))
                for left, top in corners
            ]
            assert image.size == (2 * resolution, 2 * resolution)
        found[name] = [int(np.unique(np.asarray(crop)).item()) for crop in crops]
    return found


def test_geneval_finds_the_images_of_each_prompt_with_its_line(prompts, tmp_path):
    layout = benchmarks.of_benchmark("geneval", prompts["geneval"], 4)
    assert layout[1] == ["a bench", "two naïve cats", "a bench"]
    draw(tmp_path / "out", layout)
    expected = [(METADATA[i], list(range(4 * i, 4 * i + 4))) for i in range(3)]
    assert scored_by_geneval(tmp_path / "out") == expected
    assert names(tmp_path / "out") == ["00000", "00001", "00002", "samples.json"]
    assert names(tmp_path / "out" / "00001") == ["grid.png", "metadata.jsonl", "samples"]
    first = [f"000{i}.png" for i in range(4)]
    assert names(tmp_path / "out" / "00001" / "samples") == first
    with Image.open(tmp_path / "out" / "00001" / "grid.png") as image:
        grid = np.asarray(image)
    assert grid.shape == (8, 26, 3) and not grid[:2].any() and not grid[:, -2:].any()
    assert grid[4, [4, 10, 16, 22], 0].tolist() == [4, 5, 6, 7]


def test_dpg_cuts_out_the_images_of_each_prompt(prompts, tmp_path):
    layout = benchmarks.of_benchmark("dpg", prompts["dpg"], 4)
    assert layout[1] == ["ten lines", "three", "one", "bee"]
    draw(tmp_path / "out", layout)
    order = ["10", "COCOval2014000000003", "a_1", "b"]
    expected = {name: list(range(4 * i, 4 * i + 4)) for i, name in enumerate(order)}
    assert scored_by_dpg(tmp_path / "out", 4) == expected
    assert names(tmp_path / "out") == [*(f"{name}.png" for name in order), "samples.json"]


@pytest.mark.parametrize("name", ["geneval", "dpg"])
@pytest.mark.parametrize("batches", [0, 1, 3])
def test_a_draw_that_was_stopped_goes_on_to_the_same_files(
    name, batches, prompts, tmp_path, caplog
):
    layout = benchmarks.of_benchmark(name, prompts[name], 4)
    draw(tmp_path / "whole", layout)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "out", layout, Sampler(stop=batches))
    assert "unfinished.json" in names(tmp_path / "out")
    if batches:
        with pytest.raises(InputError, match="another run, which was stopped .* differs in seed"):
            draw(tmp_path / "out", layout, seed=1)
    rest = Sampler()
    with caplog.at_level(logging.INFO, "maskgil_jax"):
        draw(tmp_path / "out", layout, rest)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert rest.drawn[0][0] == 3 * batches  # images that were drawn are not drawn again
    assert "images are there" in caplog.text


@pytest.mark.parametrize("name", ["geneval", "dpg"])
def test_a_finished_draw_is_there_again_and_another_one_takes_its_place(name, prompts, tmp_path):
    layout, output = benchmarks.of_benchmark(name, prompts[name], 4), tmp_path / "out"
    draw(output, layout)
    before, again = content(output), Sampler()
    draw(output, layout, again)
    assert not again.drawn and content(output) == before
    (output / "mine.txt").write_text("mine")
    other = "dpg" if name == "geneval" else "geneval"
    draw(output, benchmarks.of_benchmark(other, prompts[other], 4))
    draw(tmp_path / "fresh", benchmarks.of_benchmark(other, prompts[other], 4))
    expected = content(tmp_path / "fresh") | {"mine.txt": b"mine"}
    assert content(output) == expected
    assert "parts" not in names(output)  # nor any folder without files
    assert {"00000", "a_1.png"} & {*names(output)} != {"00000", "a_1.png"}


@pytest.mark.parametrize("name, file", [("geneval", "00001/samples/0002.png"), ("dpg", "a_1.png")])
def test_files_of_others_are_not_written_over(name, file, prompts, tmp_path):
    path = tmp_path / "out" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"of another program")
    layout = benchmarks.of_benchmark(name, prompts[name], 4)
    with pytest.raises(InputError, match=f"out holds 1 files that would be .*, as {file}"):
        draw(tmp_path / "out", layout)
    assert path.read_bytes() == b"of another program"


@pytest.mark.parametrize("name", ["geneval", "dpg"])
def test_what_a_kill_left_half_written_is_removed(name, prompts, tmp_path):
    layout, output = benchmarks.of_benchmark(name, prompts[name], 4), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        draw(output, layout, Sampler(stop=3))
    half = output / f"{layout[0].image(1)}.0123abcd.tmp"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    draw(output, layout)
    draw(tmp_path / "whole", layout)
    assert content(output) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    "lines, message",
    [
        ("", "line 1: its JSON is broken"),
        ('{"tag": "x", "prompt": "a"}\n\n{"tag": "x", "prompt": "a"}\n', "line 2: its JSON"),
        ('{"tag": "x", "prompt": "a"}\n{"tag": "x", "pro', "line 2: its JSON is broken"),
        ('{"prompt": "a"}', "line 1 has no field 'tag'"),
        ('{"tag": "x", "prompt": 3}', "line 1: field 'prompt' is an integer"),
        ('{"tag": "x", "prompt": " "}', "line 1: it has no caption"),
        ("[1]", "line 1 holds a list, expected an object"),
    ],
)
def test_lines_that_geneval_could_not_use_are_refused(lines, message, tmp_path):
    (tmp_path / "x.jsonl").write_text(lines)
    with pytest.raises(InputError, match=f"x.jsonl: {message}"):
        benchmarks.of_benchmark("geneval", str(tmp_path / "x.jsonl"), 4)


def test_prompts_that_dpg_could_not_use_are_refused(prompts, tmp_path, caplog):
    def read(count=4):
        return benchmarks.of_benchmark("dpg", prompts["dpg"], count)

    with caplog.at_level(logging.INFO, "maskgil_jax"):
        assert len(read()[1]) == 4
    assert "4 prompts; 1 other files are not used" in caplog.text
    with pytest.raises(InputError, match="num=8 images of a prompt: layout=dpg takes 4, or 1"):
        read(8)
    (tmp_path / "prompts" / "c.txt").write_text("\n \n")
    with pytest.raises(InputError, match="prompts/c.txt: it has no caption"):
        read()
    (tmp_path / "prompts" / "c.txt").rename(tmp_path / "prompts" / "a.b.txt")
    with pytest.raises(InputError, match="a.b.txt has a dot in its name"):
        read()
    for missing, message in (("none", "no such folder"), ("", "goes with prompts=FOLDER of NAME")):
        with pytest.raises(InputError, match=message):
            benchmarks.of_benchmark("dpg", missing and str(tmp_path / missing), 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no NAME.txt in it"):
        benchmarks.of_benchmark("dpg", str(tmp_path / "empty"), 4)


def test_sizes_that_do_not_fit_are_refused_before_weights_are_read(built_once, prompts, tmp_path):
    model = built_once("of_text", tiny_text.save)
    options = [f"--model={model}/model", "--num=4", f"--output={tmp_path}/out"]
    for more, message in (
        (
            ["--layout=dpg", f"--prompts={prompts['dpg']}", "--size=16x8"],
            "16 x 8, expected squares",
        ),
        (["--layout=geneval", "--classes=1"], "goes with --prompts=evaluation_metadata.jsonl"),
        (["--layout=geneval", f"--prompts={prompts['dpg']}"], "--prompts="),
    ):
        done = commands.call("sample", *options, *more)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.slow(seconds=15)
def test_a_generator_of_text_draws_both(built_once, prompts, tmp_path):
    model = built_once("of_text", tiny_text.save)
    options = [f"--model={model}/model", "--num=4", "--steps=2"]
    for name in ("geneval", "dpg"):
        more = [f"--layout={name}", f"--prompts={prompts[name]}", f"--output={tmp_path / name}"]
        done = commands.call("sample", *options, *more)
        assert done.returncode == 0, done.stderr
    folders = [path for path in (tmp_path / "geneval").iterdir() if path.is_dir()]
    assert len(folders) == 3 and all(len(names(f / "samples")) == 4 for f in folders)
    for name in TEXTS:
        with Image.open(tmp_path / "dpg" / f"{name}.png") as image:
            assert image.size == (16, 16)
