"""The demo page: what waits is drawn together, and a visitor's browser."""

import concurrent.futures
import shutil
import urllib.error
import urllib.request

import numpy as np
import pytest
import soundfile
from PIL import Image

import maskgil_jax
from maskgil_jax.generation.pipelines import Pipeline
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.workflows import demo_draw, demo_edit, demo_page
from maskgil_jax.workflows.demo_artist import Artist, DrawingRequest, frames
from tests.helpers import tiny_llama

LOG_MEL = {"path": "log_mel", "fingerprint": "log_mel", "width": 80}
GRID = (4, 4)


@pytest.fixture(scope="module")
def tokenizer(finished):
    return maskgil_jax.load_tokenizer(finished / "tokenizer" / "model")


def pipeline_of(tokenizer, encoder=None, **changes):
    generator = tiny_llama.masked(codebook_size=64, grid=GRID, **changes)
    generator.encoder = encoder or {}
    return Pipeline(generator, tokenizer)


@pytest.fixture(scope="module")
def both(tokenizer):
    """Of classes, trained on masked tokens and token by token."""
    return pipeline_of(tokenizer, causal_prefix=True)


@pytest.fixture(scope="module")
def artist(both):
    return Artist(both, most=4)


def request(condition=1, num=2, seed=0, grid=GRID, method="masked", prefix=0, **options):
    options = {"steps": 3} | options if method != "autoregressive" else options
    return DrawingRequest(
        condition, num, seed, grid, method, tuple(sorted(options.items())), prefix
    )


@pytest.mark.slow
def test_what_is_drawn_together_is_what_sample_draws_for_each(both, artist):
    wanted = [request(1), request(4, num=3, seed=7), request(2, seed=7, guidance=1.0)]
    drawings = artist.draw(wanted)
    assert [drawing.together for drawing in drawings] == [5, 5, 2]
    for one, drawing in zip(wanted, drawings, strict=True):
        alone = both([one.condition], num=one.num, seed=one.seed, **dict(one.options))
        np.testing.assert_array_equal(drawing.pictures, [np.asarray(image) for image in alone])
        assert drawing.masked.shape == (3, one.num, *GRID) and not drawing.masked[-1].any()


@pytest.mark.parametrize(
    ("method", "options"),
    [("autoregressive", {}), ("hybrid", dict(prefix=6, prefix_guidance=2.0))],
)
def test_every_method_draws_what_sample_does(both, artist, method, options):
    guidance = {"guidance": 2.0}
    [drawing] = artist.draw(
        [request(3, method=method, prefix=options.get("prefix", 0), **guidance)]
    )
    steps = {} if method == "autoregressive" else {"steps": 3}
    alone = both(3, num=2, method=method, **guidance, **steps, **options)
    np.testing.assert_array_equal(drawing.pictures, [np.asarray(image) for image in alone])
    left = drawing.masked.sum(axis=(2, 3))
    assert (np.diff(left, axis=0) <= 0).all() and (left[0] > 0).all() and (left[-1] == 0).all()


def test_masked_tokens_are_gray_until_they_are_drawn(artist):
    [drawing] = artist.draw([request()])
    shown = frames(drawing)
    assert shown.shape == (4, *drawing.pictures.shape) and (shown[0] == 128).all()
    np.testing.assert_array_equal(shown[-1], drawing.pictures)


def test_what_is_wrong_with_one_request_is_its_own_answer(artist):
    wrong = request(99)
    first, error, last = artist.draw([request(1), wrong, request(2)])
    assert isinstance(error, InputError) and "99" in str(error)
    [alone] = artist.draw([request(1)])
    np.testing.assert_array_equal(first.pictures, alone.pictures)
    assert len(last.pictures) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num=0), "num = 0, expected 1 to 4"),
        (dict(seed=None), "seed = None, expected a whole number"),
        (dict(width=13), "size=13x8, expected multiples of 2"),
        (dict(width=1600), "at most four times the area"),
        (dict(method="magic"), "method = magic, expected one of masked, autoregressive, hybrid"),
    ],
)
def test_fields_that_cannot_be_drawn_are_named(artist, change, message):
    fields = dict(
        condition=1, num=1, seed=0, width=8, height=8, method="masked", prefix=2, steps=8,
        guidance=3.0, temperature=1.0,
    )  # fmt: skip
    assert isinstance(demo_draw.request_of(artist, fields), DrawingRequest)
    refused = demo_draw.request_of(artist, fields | change)
    assert isinstance(refused, InputError) and message in str(refused)


def test_an_editor_without_a_picture_or_paint_is_refused(artist, both):
    picture = Image.new("RGBA", (8, 8), "white")
    clear = Image.new("RGBA", (8, 8))
    edit = demo_edit.function_of(artist, both, ["editor", "condition", "margin", "num", "seed"])
    for editor, message in (
        (None, "no picture is given"),
        (dict(background=clear, layers=[]), "no picture is given"),
        (dict(background=picture, layers=[clear]), "nothing is painted over"),
    ):
        status, edited = edit(editor, 1, 0, 1, 0)
        assert message in status and edited is None
    status, edited = edit(dict(background=picture, layers=[clear]), 1, 4, 2, 0)
    assert "2 images" in status and [image.size for image in edited] == [(16, 16)] * 2


def test_the_page_begins_with_the_options_of_a_bundle(tokenizer):
    gradio = pytest.importorskip("gradio", reason="needs the extra [demo]")
    pipeline = pipeline_of(tokenizer)
    pipeline.generator.decoding = dict(steps=100, guidance=0.5, temperature=2.5)
    fields = demo_draw.decoding(gradio, Artist(pipeline))
    assert {name: field.value for name, field in fields.items()} == pipeline.generator.decoding
    assert all(field.minimum <= field.value <= field.maximum for field in fields.values())


@pytest.fixture
def browser():
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium to open the page in")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra [test]")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A function that serves the page of a pipeline and gives its address."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    gradio = pytest.importorskip("gradio", reason="needs the extra [demo]")
    pages = []

    def serve(pipeline, most=8):
        artist = Artist(pipeline, most)
        pages.append(demo_page.page(gradio, artist, pipeline, str(tmp_path)))
        demo_page.launch(gradio, pages[-1], "127.0.0.1", 0)
        return f"http://127.0.0.1:{pages[-1].server_port}"

    yield serve
    for page in pages:
        page.close()


def wait_for(page, element, text):
    page.locator(element).get_by_text(text).wait_for(timeout=60_000)


@pytest.mark.slow
def test_a_visitor_draws_edits_and_sees_what_is_wrong(browser, served, both, tmp_path):
    address = served(both)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(picture)
    page, outside = browser.new_page(viewport=dict(width=1300, height=1300)), []
    page.on("request", lambda r: r.url.startswith(("http:", "https:")) and outside.append(r.url))
    page.goto(address)
    page.click("#draw")
    wait_for(page, "#status", "images in")
    page.wait_for_selector("#steps img")
    assert page.locator("#pictures img").count() >= 4
    page.get_by_label("Width, pixels").fill("13")
    page.click("#draw")
    wait_for(page, "#status", "expected multiples of 2")

    page.get_by_role("tab", name="Edit").click()
    page.click("#redraw")
    wait_for(page, "#edit_status", "no picture is given")
    page.set_input_files("#editor input[type=file]", str(picture))
    box = page.locator("#editor canvas").last.bounding_box(timeout=30_000)
    page.wait_for_timeout(1500)  # the editor draws the picture
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.click("#redraw")
    wait_for(page, "#edit_status", "images in")
    page.wait_for_selector("#edited img")
    assert not [url for url in outside if not url.startswith(address)]


@pytest.mark.slow
def test_a_visitor_speaks(browser, served, tokenizer, tmp_path):
    pipeline = pipeline_of(tokenizer, LOG_MEL, num_classes=0, feature_dim=160, condition_tokens=8)
    recording = tmp_path / "said.wav"
    soundfile.write(recording, 0.3 * np.sin(np.arange(8000) / 9), 16_000)
    page = browser.new_page()
    page.goto(served(pipeline))
    page.click("#draw")
    wait_for(page, "#status", "no speech is given")
    page.get_by_label("Upload file").click()
    page.set_input_files("input[type=file]", str(recording))
    page.wait_for_selector("#draw:not([disabled])")
    page.wait_for_timeout(1500)  # the upload
    page.click("#draw")
    wait_for(page, "#status", "images in")


@pytest.mark.slow
def test_ten_visitors_at_once_lose_nothing_and_reach_no_other_file(served, both, tmp_path):
    from gradio_client import Client

    address = served(both)
    small = dict(num=1, width=8, height=8, method="masked", prefix=0, steps=3)
    fields = dict(guidance=3.0, temperature=1.0)

    def visit(i):
        client = Client(address, verbose=False, download_files=str(tmp_path / "there"))
        given = [i % 5, *list(small.values())[:1], i, *list(small.values())[1:], *fields.values()]
        status, shown, _, grid = client.predict(*given, api_name="/draw")
        return status, np.asarray(Image.open(grid))[::24, ::24]

    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(visit, range(10)))
    for i, (status, picture) in enumerate(answers):
        assert "images in" in status
        [alone] = both(i % 5, seed=i, steps=3)
        np.testing.assert_array_equal(picture, np.asarray(alone))
    assert any("for others who were waiting" in status for status, _ in answers)

    for path in ("/etc/passwd", str(tmp_path.parent)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)
    boundary = "x" * 10
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="large"\r\n\r\n'
    ).encode() + bytes(11 * 2**20) + f"\r\n--{boundary}--\r\n".encode()  # fmt: skip
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    upload = urllib.request.Request(f"{address}/gradio_api/upload", body, kind)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(upload)
    assert refused.value.code == 413
