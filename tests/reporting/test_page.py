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

from maskgil_jax.reporting import collect, figures, page
from maskgil_jax.reporting.result_tables import FLOOR_NAME
from maskgil_jax.runtime.errors import InputError
from tests.helpers import commands
from tests.helpers.report_files import EVALUATION, PIXELS, TABLES, lines, with_files


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    """A directory of all tables, and a picture beside them."""
    pictures = ["plot.png", "00000.png"]
    return with_files(tmp_path_factory.mktemp("tables") / "tabled", TABLES, pictures)


@pytest.fixture(scope="module")
def report(finished, tabled, tmp_path_factory):
    """The page of a run and of all tables, as the command writes it."""
    output = tmp_path_factory.mktemp("report") / "page"
    done = commands.run("report", f"--runs={finished},{tabled}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in output.iterdir()] == ["index.html"]
    return output / "index.html"


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


def test_the_command_writes_one_page_of_a_run(finished, tabled, report):
    elements = Elements(report.read_text())
    for title in (
        *("Directories", "Training curves", "Training loss", "Norms", "Learning rate and speed"),
        *("What was trained", "Metrics", "Samples and reconstructions", "Comparisons"),
        *("Scaling and plans", "About this page"),
    ):
        assert title in elements.text, title
    for fact in (
        *("62,240", "247,111"),  # parameters of generator and tokenizer
        *("layers 2, dim 32, heads 2", "label_smoothing 0.1", "decay of the averaged weights"),
        *("Against embedded, 1,437 images", PIXELS, FLOOR_NAME, "halves of the reference"),
        *("samples/grid.png", "samples/reconstructions.png", "plot.png"),
        *(f"python -m maskgil_jax.report --runs={finished},{tabled}", "matplotlib", " UTC"),
    ):
        assert fact in elements.text, fact
    assert "00000.png" not in elements.text
    assert "parameters–" not in elements.text and "not recorded" not in elements.text


def test_the_page_needs_nothing_else(report):
    text = report.read_text()
    assert "url(" not in text and "@import" not in text
    elements = Elements(text)
    assert not {"script", "link", "iframe", "object", "base"} & set(elements.tags)
    for name, value in elements.attributes:
        assert not name.startswith("on") and name not in ("srcset", "background", "action", "style")
        if name == "src":
            assert value.startswith("data:image/")
        if name == "href":
            assert value.startswith("#")


def test_every_table_has_its_numbers_and_its_protocol(report):
    text = report.read_text()
    for cells in (
        ["vq", "16,384", "4x4", "20.79"],
        ["b", "masked", "0.1235"],
        [FLOOR_NAME, "", "0.9011"],
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
    points_N2, every = figures.points(collect.gather([str(run)])[0].log, "loss")
    np.testing.assert_array_equal(
        points_N2, [[step, 1.5 if step == 2 else np.nan] for step in range(1, 6)]
    )
    assert every == 1
    text = Elements(written([run, tmp_path / "other"], tmp_path).read_text()).text
    assert "values that are not finite: accuracy, loss, psnr" in text and "nan" in text


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
        ([run, f"{run}/../run"], "is given twice"),
        ([tmp_path], "runs in it, to be given one by one: run"),
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


PROBE = """<script>addEventListener("load", () => {
  const state = {
    pictures: [...document.images].map(i => [i.alt, i.complete ? i.naturalWidth : 0]),
    headings: [...document.querySelectorAll("h2, h3")].map(h => h.textContent),
    width: innerWidth, content: document.documentElement.scrollWidth,
    fetched: performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
  };
  const probe = document.createElement("pre");
  probe.id = "probe"; probe.textContent = JSON.stringify(state); document.body.append(probe);
})</script>"""


def test_a_browser_shows_all_of_it(report, tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium to open the page in")
    text = report.read_text()
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
    state = json.loads(html.unescape(probe[1]))
    assert {"Training curves", "Metrics", "Comparisons", "Training loss"} <= set(state["headings"])
    names = [name for name, _ in state["pictures"]]
    assert {"Training loss", "Norms", "samples/grid.png", "plot.png"} <= set(names)
    assert all(width > 0 for _, width in state["pictures"]), state["pictures"]
    assert state["width"] == 1200 and state["content"] <= 1200
    assert state["fetched"] == []
