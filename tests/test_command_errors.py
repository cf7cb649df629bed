"""What each command says of input that it cannot use: one clear message, exit code 1."""

import pytest

from tests.helpers.commands import call

BAD = {
    "no flags": (("sample",), "--model is missing"),
    "no model": (("sample", "--model=/no", "--classes=1", "--output=/tmp/x"), "/no is not a model"),
    "class": (("sample", "--model=M", "--classes=77", "--output=O"), "class ids from 77 to 77"),
    "null class": (
        ("sample", "--model=M", "--classes=10", "--output=O"),
        "class ids from 10 to 10",
    ),
    "no name": (
        ("sample", "--model=M", "--classes=cat", "--output=O"),
        "--classes: class 'cat' is none of the 10 names of classes; the first are 0, 1, 2",
    ),
    "range": (
        ("sample", "--model=M", "--classes=3-10", "--output=O"),
        "--classes: classes 3-10, expected ids from 0 to 9",
    ),
    "no image": (
        ("edit", "--model=M", "--classes=1", "--image=/no", "--mask=/no", "--output=O"),
        "--image=/no: there is no such file or folder",
    ),
    "swapped": (("sample", "--model=T", "--classes=1", "--output=O"), "holds a tokenizer"),
    "method": (
        ("sample", "--model=M", "--classes=1", "--method=autoregressive", "--output=O"),
        "--method=autoregressive needs a causal model",
    ),
    "prefix": (
        ("sample", "--model=M", "--classes=1", "--prefix=3", "--output=O"),
        "--prefix=3 is an option of --method=hybrid, not of --method=masked",
    ),
    "two masked": (
        ("sample", "--model=M", "--classes=1", "--method=hybrid", "--prefix=3", "--output=O")
        + ("--prefix_model=M",),
        "hybrid decoding of models ('masked', 'masked')",
    ),
    "vary": (
        ("sweep", "--model=M", "--vary=speed=1,2", "--reference=embedded", "--output=O"),
        "--vary=speed=1,2: expected NAME=VALUE,VALUE with one of method, preset",
    ),
    "vary what": (
        ("sweep", "--model=M", "--vary=steps=1,many", "--reference=embedded", "--output=O"),
        "--vary=steps=1,many",
    ),
    "preset": (
        ("sample", "--model=M", "--classes=1", "--preset=best", "--output=O"),
        "--preset=best: expected one of maskgil, maskgil_paper, maskgit",
    ),
    "size": (
        ("sample", "--model=M", "--classes=1", "--size=16x7", "--output=O"),
        "--size=16x7, expected multiples of 2",
    ),
    "flag": (("sample", "--modle=M"), "--modle: there is no such option; did you mean --model?"),
    "word": (("sample", "M"), "unexpected arguments ['M']"),
    "metric": (
        ("evaluate", "--samples=S", "--reference=embedded", "--metrics=fid", "--output=O/m.json"),
        "metric 'fid' needs --inception=DIR",
    ),
    "no npz": (
        ("evaluate", "--samples=/no.npz", "--reference=embedded", "--output=O/m.json"),
        "/no.npz is not an npz",
    ),
    "config key": (
        ("main", "--config=configs/b.py", "--config.model.width=3", "--workdir=O"),
        "--config.model.width=3: the config has no such field",
    ),
    "config type": (
        ("main", "--config=configs/b.py", "--config.batch_size=many", "--workdir=O"),
        "error: --config.batch_size=many: expected a whole number",
    ),
    "config file": (("main", "--config=configs/none.py", "--workdir=O"), "configs/none.py"),
    "workdir": (("main", "--config=configs/b.py"), "--workdir is missing"),
    "source": (
        ("main", "--config=configs/vq16.py", "--config.data.source=folder:/no", "--workdir=O"),
        "folder:/no: there is no such folder",
    ),
    "verb": (("convert", "--format=maskgil-gpt"), "expected one of import, export"),
    "format": (
        ("convert", "import", "--format=onnx", "--source=/no", "--output=O/m"),
        "--format=onnx: expected one of llamagen-vq, taming-vqgan,",
    ),
    "crops": (
        ("tokenize", "--tokenizer=T", "--data=embedded", "--crops=3", "--output=O"),
        "crops = '3'",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_message_and_exit_code_1(case, finished, tmp_path):
    (module, *options), message = BAD[case]
    places = {
        "--model=M": f"--model={finished}/model",
        "--prefix_model=M": f"--prefix_model={finished}/model",
        "--model=T": f"--model={finished}/tokenizer/model",
        "--tokenizer=T": f"--tokenizer={finished}/tokenizer/model",
        "--samples=S": f"--samples={finished}/samples",
        "--output=O": f"--output={tmp_path}/out",
        "--output=O/m": f"--output={tmp_path}/out",
        "--output=O/m.json": f"--output={tmp_path}/m.json",
        "--workdir=O": f"--workdir={tmp_path}/out",
    }
    done = call(module, *(places.get(option, option) for option in options))
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "m.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, message",
    [
        (["--image_size=9"], "--image_size=9, expected a multiple of 2"),
        (["--data=folder:/nowhere"], "there is no such folder"),
        (["--tokenizers="], "--tokenizers is missing"),
        (["--tokenizers=a,other/a"], "expected names that differ"),
    ],
)
def test_reconstruct_names_bad_input(options, message, finished, tmp_path):
    given = [f"--tokenizers={finished}/tokenizer/model", "--data=embedded:test"]
    done = call("reconstruct", *given, f"--output={tmp_path}/out", *options)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
