"""maskgil_jax.report: the page, what it refuses, and what a browser makes of it."""

import html
import html.parser
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.reporting import collect, facts, figures, inline, page, results
from maskgil_jax.runtime.errors import InputError
from tests.helpers import commands

PIXELS = "pixels, averaged to 8x8 RGB (no network: not comparable with FID)"
EVALUATION = {
    "samples": {"path": "/samples", "count": 500, "protocol": ""},
    "reference": {"path": "embedded", "count": 1437, "protocol": ""},
    "features": [PIXELS],
    "metrics": {"pixel_frechet_distance": 0.90571, "fid": {"value": 3.5, "low": 3.0, "high": 4.0}},
    "real_to_real": {"pixel_frechet_distance": 0.16489},
    "protocol": {"frechet": PIXELS, "real_to_real": "halves of the reference"},
    "seed": 7,
    "code": "0.1.0+abcdef0",
    "warnings": ["fid of 500 images: too few for 2,048 features"],
}
TABLES = {
    "tokenizers.json": {
        "protocol": {"images": "embedded, first 20", "rounding": "half_up"},
        "tokenizers": [{"tokenizer": "vq", "codes": 16384, "grid": "4x4", "psnr": 20.789}],
    },
    "generators.json": {
        "protocol": {"samples": "40 images, default decoding", "real_to_real": "halves"},
        "generators": [{"generator": "b", "kind": "masked", "pixel_recall": 0.12345}],
        "real_to_real": {"pixel_recall": 0.9011},
    },
    "sweep.json": {
        "protocol": {"samples": "30 images"},
        "rows": [{"rule": "halton", "guidance": 3.0, "seconds_per_image": 0.00123456}],
    },
    "any_name.json": {
        "notes": {"counted": "parameters and FLOPs"},
        "plans": [
            {
                "config": "configs/xxl.py",
                "topology": "v5p:4x4x4",
                "chips": 64,
                "mesh": {"data": 1, "fsdp": 64, "tensor": 1},
                "parameters": 1411133952,
                "fits": True,
                "mfu": 0.46123,
                "sampler": {"chips": 1, "parameters": 1411133952, "fits": False},
            }
        ],
    },
    "scaling.json": {
        "notes": {"intervals": "95%, by a parametric bootstrap"},
        "runs": [{"run": "1x16-400", "parameters": 30032, "validation_loss": 4.98297}],
        "fits": [
            {
                "loss_against": "parameters",
                "runs": 12,
                "exponent": {"value": 0.6895, "low": 0.0712, "high": 2.0884},
                "determined": False,
            }
        ],
        "plans": [],
    },
}


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    """A directory of all tables, and a picture beside them."""
    pictures = ["plot.png", "00000.png"]
    return with_files(tmp_path_factory.mktemp("tables") / "tabled", TABLES, pictures)


@pytest.fixture(scope="module")
def shown(finished, tabled, tmp_path_factory):
    """The page of a run and of all tables, as the command writes it."""
    output = tmp_path_factory.mktemp("shown") / "page"
    done = commands.run("report", f"--runs={finished},{tabled}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in output.iterdir()] == ["index.html"]
    return output / "index.html"


def with_files(directory, contents, pictures=()):
    directory.mkdir(parents=True)
    for name, content in contents.items():
        written = content if isinstance(content, str) else json.dumps(content)
        (directory / name).write_text(written)
    for name in pictures:
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(directory / name)
    return directory


def lines(*steps, **values):
    return "".join(
        json.dumps({"step": step, "loss": 5.0 / step, **values}) + "\n" for step in steps
    )


def written(directories, tmp_path):
    return page.write([str(directory) for directory in directories], str(tmp_path / "page"))


class Elements(html.parser.HTMLParser):
    """The attributes of all elements, and the text outside style."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if self.tags[-1:] != ["style"]:
            self.text += data


def test_the_command_writes_one_page_of_a_run(finished, tabled, shown):
    elements = Elements(shown.read_text())
    for title in (
        *("Directories", "Training curves", "Training loss", "Norms", "Learning rate and speed"),
        *("What was trained", "Metrics", "Samples and reconstructions", "Comparisons"),
        *("Scaling and plans", "About this page"),
    ):
        assert title in elements.text, title
    for fact in (
        *("62,240", "247,111"),  # parameters of generator and tokenizer
        *("layers 2, dim 32, heads 2", "label_smoothing 0.1", "decay of the averaged weights"),
        *("Against embedded, 1,437 images", PIXELS, results.FLOOR_NAME, "halves of the reference"),
        *("samples/grid.png", "samples/reconstructions.png", "plot.png"),
        *(f"python -m maskgil_jax.report --runs={finished},{tabled}", "matplotlib", " UTC"),
    ):
        assert fact in elements.text, fact
    assert "00000.png" not in elements.text
    assert "parameters–" not in elements.text and "not recorded" not in elements.text


def test_the_page_needs_nothing_else(shown):
    text = shown.read_text()
    assert "url(" not in text and "@import" not in text
    elements = Elements(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(elements.tags)
    for name, value in elements.attributes:
        assert not name.startswith("on") and name not in ("srcset", "background", "action", "style")
        if name == "src":
            assert value.startswith("data:image/")
        if name == "href":
            assert value.startswith("#")


def test_every_table_has_its_numbers_and_its_protocol(shown):
    text = shown.read_text()
    for cells in (
        ["vq", "16,384", "4x4", "20.79"],
        ["b", "masked", "0.1235"],
        [results.FLOOR_NAME, "", "0.9011"],
        ["halton", "3", "0.001235"],
        ["configs/xxl.py", "training step", "1,411,133,952", "v5p:4x4x4", "64", "1x64x1", "yes"],
        ["configs/xxl.py", "sampler", "1,411,133,952", "v5p:4x4x4", "1", "", "no"],
        ["1x16-400", "30,032", "4.9830"],
        ["parameters", "12", "0.690 (0.071 to 2.088)", "no"],
    ):
        assert "".join(cells) in re.sub(r"<[^>]*>", "", text).replace("\n", ""), cells
    for note in ("half_up", "default decoding", "30 images", "parameters and FLOPs", "bootstrap"):
        assert note in text
    assert "<td class=n>20.79</td>" in text and "<td class=short>masked</td>" in text


def test_metrics_measured_alike_share_a_table(tmp_path):
    first = with_files(tmp_path / "a", {"metrics.json": EVALUATION})
    other = EVALUATION | {"samples": {"path": "/other", "count": 50}, "metrics": {"fid": 9.0}}
    second = with_files(tmp_path / "b", {"fid.json": other | {"warnings": []}})
    against = EVALUATION | {"reference": {"path": "elsewhere", "count": 9}}
    third = with_files(tmp_path / "c", {"metrics.json": against})
    one, two = page.metrics(collect.gather([str(first), str(second), str(third)]))
    assert one.header == ["of", "images", "pixel frechet distance", "fid"]
    assert one.rows == [
        ["a", "500", "0.9057", "3.5 (3 to 4)"],
        ["b: fid.json", "50", "", "9"],
        [results.FLOOR_NAME, "", "0.1649", ""],
    ]
    assert one.floor and one.numeric == [False, True, True, True]
    notes = dict(one.notes)
    assert notes["code"] == "0.1.0+abcdef0" and notes["seed"] == "7"
    assert ("path", "/other") in dict(notes["b: fid.json"])["samples"]
    assert [row[0] for row in two.rows] == ["c", results.FLOOR_NAME]


def test_metrics_of_tokenizers_and_of_condition_match_are_known(tmp_path):
    match = {"preferred": 0.914, "interval": [0.88, 0.94], "protocol": {"masks": 8}, "images": 349}
    summary = {"reference": {"path": "P", "count": 20}, "protocol": "ADM centre crop", "psnr": 17.0}
    run = with_files(tmp_path / "run", {"match.json": match, "metrics.json": summary})
    found = {table.title: table for table in page.metrics(collect.gather([str(run)]))}
    assert found["run: match.json"].rows == [["run: match.json", "0.914", "0.88 to 0.94", "349"]]
    assert found["Against P, 20 images"].rows == [["run", "17"]]


def test_warnings_come_first(tmp_path):
    log = lines(1, 2, skipped_steps=3.0, unreadable_images=1) + '{"step": 3, "lo'
    contents = {"training.jsonl": log, "config.json": {"stage": "generator", "steps": 9}}
    run = with_files(tmp_path / "run", contents | {"metrics.json": EVALUATION})
    text = Elements(written([run], tmp_path).read_text()).text
    for warning in (
        "metrics.json: fid of 500 images: too few for 2,048 features",
        "training is not finished: step 2 of 9",
        "the last line of training.jsonl is half-written and left out",
        "3 steps were skipped",
        "1 images could not be read",
    ):
        assert 0 < text.index("Warnings") < text.index(warning) < text.index("Directories")


def test_values_that_are_not_finite_leave_gaps(tmp_path):
    log = '{"step": 1, "loss": NaN}\n{"step": 2, "loss": 1.5}\n{"step": 3, "loss": Infinity}\n'
    log += '{"step": 4, "loss": 1e308}\n'
    log += json.dumps({"step": 5, "loss": 10**400, "psnr": None, "accuracy": float("nan")})
    run = with_files(tmp_path / "run", {"training.jsonl": log})
    with_files(tmp_path / "other", {"metrics.json": '{"protocol": "", "psnr": NaN}'})
    found, every = figures.points(collect.gather([str(run)])[0].log, "loss")
    np.testing.assert_array_equal(
        found, [[step, 1.5 if step == 2 else np.nan] for step in range(1, 6)]
    )
    assert every == 1
    text = Elements(written([run, tmp_path / "other"], tmp_path).read_text()).text
    assert "values that are not finite: accuracy, loss, psnr" in text and "nan" in text


def test_long_logs_are_thinned_and_keep_their_last_step():
    log = [{"step": step, "loss": 1.0} for step in range(1, 2502)]
    found, every = figures.points(log, "loss")
    assert every == 3 and len(found) == 834 and found[-1, 0] == 2501
    assert figures.points(log, "psnr")[0].shape == (0, 2)


def test_lines_of_many_runs_differ():
    styles = [json.dumps(figures.style(i)) for i in range(35)]
    assert len(set(styles)) == 35
    for one, next_one in zip(range(34), range(1, 35), strict=True):
        one, next_one = figures.style(one), figures.style(next_one)
        assert one["color"] != next_one["color"] and one["linestyle"] != next_one["linestyle"]


def test_numbers_are_short():
    values = [0.123456, 13164.2, 2e12, 16384, True, None, float("nan"), [1, 2.5], {"a": 1}]
    expected = ["0.1235", "13,164", "2e+12", "16,384", "yes", "–", "nan", "1, 2.5", "a 1"]
    assert [results.text(value) for value in values] == expected


def test_time_is_that_of_the_logged_steps():
    log = [{"step": 10, "step_seconds": 2.0}, {"step": 30, "step_seconds": 1.5}, {"step": 40}]
    assert facts.time_in_steps(log) == 50.0
    written = [facts.duration(seconds) for seconds in (12, 240, 7500, 273600)]
    assert written == ["12.0 s", "4.0 min", "2 h 5 min", "3 d 4 h"]


HOSTILE = "<img src=x onerror=alert(1)>&\"'"


def test_text_from_files_is_escaped(tmp_path):
    evaluation = EVALUATION | {
        "metrics": {f"{HOSTILE} a": 1.0},
        "reference": {"path": HOSTILE, HOSTILE: [HOSTILE]},
        "warnings": [HOSTILE, {"x": HOSTILE}],
        "seed": "\ud800",
    }
    contents = {
        "training.jsonl": lines(1, 2),
        "config.json": {"stage": "generator", "tokenizer": HOSTILE, "model": {HOSTILE: [HOSTILE]}},
        "metrics.json": evaluation,
        "sweep.json": {"protocol": {HOSTILE: HOSTILE}, "rows": [{HOSTILE: HOSTILE, "y": "</td>"}]},
    }
    runs = [
        with_files(tmp_path / HOSTILE, contents, [f"{HOSTILE}.png"]),
        with_files(tmp_path / r"_$\frac{$", {"training.jsonl": lines(1, 2)}),
        with_files(tmp_path / os.fsdecode(b"\xff"), {"training.jsonl": lines(1, 2)}),
    ]
    elements = Elements(written(runs, tmp_path).read_text())
    assert elements.text.count(HOSTILE) > 10
    assert not any(name == "onerror" or value == "x" for name, value in elements.attributes)


def test_runs_are_told_apart(tmp_path):
    for name in ("a/vq", "b/vq", "b/c"):
        with_files(tmp_path / name, {"training.jsonl": lines(1)})
    runs = collect.gather([f"{tmp_path}/{name}" for name in ("a/vq", "b/vq", "b/c")])
    assert [run.name for run in runs] == ["a/vq", "b/vq", "c"]


def test_earlier_stages_follow_their_run(finished):
    runs = collect.gather([str(finished)])
    assert [run.stage for run in runs] == ["generator", "tokenizer"]
    assert [run.name for run in runs] == [finished.name, f"{finished.name}/tokenizer"]
    given = collect.gather([str(finished), str(finished / "tokenizer")])
    assert [run.stage for run in given] == ["generator", "tokenizer"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"notes.txt": "x"}, "holds nothing that a report shows (it has notes.txt)"),
        ({"x.png": ""}, "holds nothing that a report shows"),
        ({"grid.png": "no picture"}, "grid.png is broken"),
        ({"metrics.json": '{"protocol": '}, "metrics.json is not readable JSON: Expecting value"),
        ({"other.json": "[" * 100000}, "other.json is not readable JSON"),
        ({"metrics.json": {"psnr": 1.0}}, "metrics.json has ['psnr'], expected protocol and numb"),
        ({"sweep.json": {"protocol": {}, "rows": "x"}}, 'rows is "x", expected a list of rows'),
        ({"tokenizers.json": [1]}, "tokenizers.json has list, expected protocol, tokenizers"),
        ({"config.json": {"stage": "x"}}, "its stages are ['x'], expected some of tokenizer"),
        ({"training.jsonl": "{\n" + lines(2)}, "training.jsonl, line 1 is '{', expected {"),
        ({"training.jsonl": lines(1) + "3\n"}, "training.jsonl, line 2 is '3', expected {"),
        ({"training.jsonl": lines(1) + '{"loss": 1}\n'}, "line 2 is '{\"loss\": 1}'"),
    ],
)
def test_unusable_directories_are_refused_before_anything_is_written(contents, message, tmp_path):
    run = with_files(tmp_path / "run", contents)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        written([run], tmp_path)
    assert str(run) in str(caught.value) and not (tmp_path / "page").exists()


def test_flags_that_do_not_fit_are_refused(tmp_path):
    run = with_files(tmp_path / "run", {"training.jsonl": lines(1)})
    for directories, message in (
        ([tmp_path / "gone"], "gone is not there, expected a directory"),
        ([run / "training.jsonl"], "is a file, expected a directory"),
        ([run, f"{run}/../run"], "names .* twice"),
        ([tmp_path], "runs in it, to be named one by one: run"),
    ):
        with pytest.raises(InputError, match=message):
            written(directories, tmp_path)
    (tmp_path / "page").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        written([run], tmp_path)


def test_a_page_is_replaced_only_by_a_whole_one(tmp_path):
    run = with_files(tmp_path / "run", {"training.jsonl": lines(1)})
    path = written([run], tmp_path)
    before = path.read_text()
    (run / "sweep.json").write_text("{")
    with pytest.raises(InputError):
        written([run], tmp_path)
    assert path.read_text() == before
    (run / "sweep.json").write_text(json.dumps(TABLES["sweep.json"]))
    written([run], tmp_path)
    assert "halton" in path.read_text() and os.listdir(tmp_path / "page") == ["index.html"]


def test_large_pictures_are_shrunk(tmp_path):
    picture = np.zeros((6000, 2000, 3), np.uint8)
    picture[:400] = np.random.default_rng(0).integers(0, 256, (400, 2000, 3))
    Image.fromarray(picture).save(tmp_path / "grid.png")
    found = inline.picture(tmp_path / "grid.png")
    assert found.width == 1600 and found.uri.startswith("data:image/jpeg;base64,")
    assert found.note == "shrunk from 2,000 x 6,000 pixels, the upper 83% of it, as JPEG"
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "small.png")
    found = inline.picture(tmp_path / "small.png")
    assert found == (inline.data_uri((tmp_path / "small.png").read_bytes(), "image/png"), 9, "")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_very_large_pictures_are_shrunk_or_only_named(mode, tmp_path):
    Image.new("1", (13_000, 13_000)).save(tmp_path / "grid.png")
    found = inline.picture(tmp_path / "grid.png")
    assert found.uri == "" and "too large to be shown: " in found.note
    assert "13000 x 13000 pixels" in found.note
    Image.new("RGB", (8000, 80), "red").convert(mode).save(tmp_path / "wide.png")
    found = inline.picture(tmp_path / "wide.png")
    assert found.width == 1600 and found.note == "shrunk from 8,000 x 80 pixels"


def test_what_is_no_file_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "grid.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("grid.png", "zero.png"):
        with pytest.raises(InputError, match=f"{name} is broken"):
            inline.picture(tmp_path / name)


PROBE = """<script>addEventListener("load", () => {
  const found = {
    pictures: [...document.images].map(i => [i.alt, i.complete ? i.naturalWidth : 0]),
    headings: [...document.querySelectorAll("h2, h3")].map(h => h.textContent),
    width: innerWidth, content: document.documentElement.scrollWidth,
    fetched: performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
  };
  const probe = document.createElement("pre");
  probe.id = "probe"; probe.textContent = JSON.stringify(found); document.body.append(probe);
})</script>"""


def test_a_browser_shows_all_of_it(shown, tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium to open the page in")
    text = shown.read_text()
    policy = "default-src 'none'; "
    assert policy in text  # which keeps all scripts out, and so this one
    text = text.replace(policy, f"{policy}script-src 'unsafe-inline'; ") + PROBE
    (tmp_path / "probed.html").write_text(text)
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--disable-sync"),
            *("--disable-component-update", f"--user-data-dir={tmp_path}/profile"),
            *("--window-size=1200,3000", "--dump-dom", f"file://{tmp_path}/probed.html"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    probe = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert probe, done.stderr
    found = json.loads(html.unescape(probe[1]))
    assert {"Training curves", "Metrics", "Comparisons", "Training loss"} <= set(found["headings"])
    names = [name for name, _ in found["pictures"]]
    assert {"Training loss", "Norms", "samples/grid.png", "plot.png"} <= set(names)
    assert all(width > 0 for _, width in found["pictures"]), found["pictures"]
    assert found["width"] == 1200 and found["content"] <= 1200
    assert found["fetched"] == []
