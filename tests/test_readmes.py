"""What READMEs say: their commands run, and the flags, config keys, links and paths are there."""

import importlib
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from maskgil_jax import config as defaults
from maskgil_jax.runtime import options, usage

ROOT = pathlib.Path(__file__).parents[1]
TEMPORARY = "/tmp"  # where READMEs have the quickstart's work directory

# READMEs whose commands run in one directory, each list in its order; those that are named nowhere
# run after the first list.
TOGETHER = [
    [
        "README.md",
        *("configs/README.md", "maskgil_jax/pretrained/README.md"),
        *("maskgil_jax/decoding/README.md", "maskgil_jax/generation/README.md"),
        *("maskgil_jax/evaluation/README.md", "maskgil_jax/conditioning/README.md"),
    ],
    ["maskgil_jax/workflows/README.md"],
]

# Flags that make a command small, by the config file that it names or by its own name; they take
# the place of those that the README gives.
_RUN = dict(steps=2, batch_size=4, log_every=1, checkpoint_every=2, pictures_every=2)
_TOKENIZER = {
    **{"model.channels": 32, "model.channel_multipliers": "(1, 1)", "model.res_blocks": 1},
    **{"model.z_channels": 32, "model.attention": False, "discriminator.channels": 8},
    **{"discriminator.layers": 1},
    **{"codebook.usage_window": 64, "data.image_size": 32, "evaluation.count": 8},
    **{"model.dtype": "float32", "optimizer.warmup_steps": 0},
}
_GENERATOR = {
    **{"model.layers": 1, "model.dim": 16, "model.heads": 2, "model.dtype": "float32"},
    **{"data.image_size": 32, "samples.per_class": 1, "evaluation.per_class": 4},
    **{"samples.classes": 2, "samples.steps": 2, "optimizer.warmup_steps": 0},
}
_CAUSAL = {name: value for name, value in _GENERATOR.items() if name != "samples.steps"}


def _changes(*fields, stage=""):
    merged = {name: value for some in fields for name, value in some.items()}
    return {f"config.{stage}{name}": value for name, value in merged.items()}


TINY = {
    "configs/quickstart.py": {
        **_changes(_RUN, _TOKENIZER, {"data.image_size": 8}, stage="stages.tokenizer."),
        "config.stages.codes.image_size": 8,
        **_changes(_RUN, _GENERATOR, {"data.image_size": 8}, stage="stages.generator."),
    },
    "configs/vq16.py": _changes(_RUN, _TOKENIZER, {"model.codebook_size": 256}),
    "configs/b.py": _changes(_RUN, _GENERATOR),
    "configs/ar_b.py": _changes(_RUN, _CAUSAL),
    "configs/small_generators.py:tokenizer": _changes(_RUN, _TOKENIZER),
    "configs/small_generators.py:causal": _changes(_RUN, _CAUSAL),
    "configs/small_generators.py": _changes(_RUN, _GENERATOR),
    "sample": {"size": "48x32", "steps": 2, "num": 2},
    "evaluate": {"num": 24, "steps": 2},
    "reconstruct": {"image_size": 32},
    "compare": {"num": 24},
    "sweep": {"num": 24, "steps": 2},
}


class Block(NamedTuple):
    """A fenced block of a README.

    Attributes:
      readme: its path below ROOT.
      language: "bash" or "python".
      text: what stands in it.
      reason: why it is not run, or "".
    """

    readme: str
    language: str
    text: str
    reason: str

    @property
    def commands(self):
        """The words of each command, as bash expands them; nothing is run."""
        return expanded(self.text) if self.language == "bash" else []


FENCE = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def readmes():
    return sorted(
        str(path.relative_to(ROOT))
        for pattern in (
            "README.md",
            "[a-z]*/README.md",
            "configs/*/README.md",
            "maskgil_jax/*/README.md",
        )
        for path in ROOT.glob(pattern)
    )


def blocks_of(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    return [
        Block(readme, language.strip(), body, reason)
        for reason, language, body in FENCE.findall(text)
    ]


def spans_of(readme):
    """Inline code, `...`, outside of fenced blocks."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    return SPAN.findall(FENCE.sub("", text))


def expanded(script):
    """Commands of a script as lists of words, after all that bash does to them: loops, quotes, $x.

    No command is found, so that none runs; what bash itself can do (a loop, a variable) it does.
    """
    launchers = [f"launch/{path.name}" for path in (ROOT / "launch").glob("*.sh")]
    note = r"note() { printf '%s\x1f' " '"$@"; printf ' "'\\x1e'; }"
    handlers = ['command_not_found_handle() { note "$@" >&3; }']
    handlers += [f'function {name} {{ note {name} "$@" >&3; }}' for name in launchers]
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join([note, *handlers, "exec 3>&1 >/dev/null", script])],
        env={"PATH": "/nowhere"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert not done.stderr, f"{done.stderr}\nin\n{script}"
    return [call.split("\x1f")[:-1] for call in done.stdout.split("\x1e")[:-1]]


def own_command(words):
    """NAME of `python -m maskgil_jax.NAME ...`, or None."""
    named = words[:2] == ["python", "-m"] and re.fullmatch(r"maskgil_jax\.([a-z_]+)", words[2])
    return named[1] if named else None


def flags_of(name):
    """The flags of a command."""
    return options.flags_of(command(name).Options)


def command(name):
    """The module of a command."""
    return importlib.import_module(f"maskgil_jax.{name}")


def config_of(file):
    """The config of FILE or NAME, with :ARGUMENT or without, as --config names it."""
    path, _, argument = file.partition(":")
    path = path if "/" in path else f"configs/{path}.py"
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config(*filter(None, [argument]))


def has_key(config, key):
    for name in key.split("."):
        if not isinstance(config, ConfigDict) or name not in config:
            return False
        config = config[name]
    return True


def unknown_flags(name, words):
    """Those of the words --flag and --config.x.y that the command and its config do not have."""
    given = [word.partition("=") for word in words if word.startswith("--")]
    files = [value for flag, _, value in given if flag == "--config"]
    configs = [config_of(file) for file in files] or all_configs()
    known = {"help", "version", *flags_of(name)}
    unknown = []
    for flag in (flag.removeprefix("--") for flag, _, _ in given):
        if "config" in known and flag.startswith("config."):
            there = any(has_key(config, flag.removeprefix("config.")) for config in configs)
        else:
            there = flag in known or flag.removeprefix("no") in known
        unknown += [] if there else [flag]
    return unknown


def all_configs():
    made = (defaults.tokenizer, defaults.codes, defaults.generator, defaults.causal_generator)
    return [make() for make in made]


def all_flags():
    """Names of the flags of every command, launch script and benchmark."""
    names = {"help", "version", "noverify"}
    for name in usage.COMMANDS:
        names |= {*flags_of(name)}
    for path in (ROOT / "tests" / "benchmarks").glob("*.py"):
        names |= {*re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text())}
    for path in (ROOT / "launch").glob("*.sh"):
        names |= launch_options(path)
    return names


def launch_options(script):
    """Names of the options of a script of launch/, as it hands them to `parse`."""
    found = re.search(r'^parse "[^"]*"\s*\\?\s*"([^"]*)"', script.read_text(), re.MULTILINE)
    return {"dry-run", "help", *re.findall(r"[\w-]+", found[1] if found else "")}


def test_the_root_readme_fits_on_a_few_screens():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert not [line for line in lines if len(line) > 100 and not line.startswith("|")]


def rooms():
    package = (ROOT / "maskgil_jax").glob("*/__init__.py")
    return ["configs", "launch", *sorted(f"maskgil_jax/{path.parent.name}" for path in package)]


@pytest.mark.parametrize("room", rooms())
def test_a_room_has_a_readme_that_names_its_files(room):
    words = [word for span in spans_of(f"{room}/README.md") for word in span.split()]
    named = {word.partition(":")[0].rpartition("/")[2] for word in words}
    files = {path.name for kind in ("*.py", "*.sh") for path in (ROOT / room).rglob(kind)}
    assert not files - named - {"__init__.py"}


@pytest.mark.parametrize("readme", readmes())
def test_links_and_paths_exist(readme):
    folder = (ROOT / readme).parent
    text = (ROOT / readme).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in LINK.findall(FENCE.sub("", text))]
    missing = [link for link in links if ":" not in link and not (folder / link).exists()]
    for span in spans_of(readme):
        for word in span.split():
            path = word.partition(":")[0]
            inside = re.fullmatch(
                r"(tests|configs|launch|maskgil_jax|\.github|\.ci)/[\w./-]*", path
            )
            if inside or re.fullmatch(r"[\w/-]+\.(py|sh|md|jinja)", path):
                there = any((base / path).exists() for base in (folder, ROOT, ROOT / "maskgil_jax"))
                below = [*folder.rglob(path), *(ROOT / "tests" / folder.name).rglob(path)]
                missing += [] if there or below else [word]
            if module := re.fullmatch(r"tests\.benchmarks\.\w+", word):
                file = ROOT / f"{module[0].replace('.', '/')}.py"
                missing += [] if file.exists() else [word]
    assert not missing


@pytest.mark.parametrize("readme", readmes())
def test_flags_and_config_keys_exist(readme):
    """Those of commands in blocks, of commands in the text, and those that are named alone."""
    wrong = []
    commands = [words for block in blocks_of(readme) for words in block.commands]
    alone = []
    for span in spans_of(readme):
        words = re.sub(r"[…]|\.\.\.|^\w+=\S+ ", "", span).replace("'", '"')
        words = shlex.split(words, comments=True) if words.count('"') % 2 == 0 else words.split()
        if words and words[0] in usage.COMMANDS:
            words = ["python", "-m", f"maskgil_jax.{words[0]}", *words[1:]]
        if words[:1] == ["python"]:
            commands.append(words)
        elif words and words[0].startswith("--"):
            alone += [word.partition("=")[0] for word in words if word.startswith("--")]
        elif re.fullmatch(r"config(\.\w+)+", span) and span != "config.py":
            alone.append(f"--{span}")
    for words in commands:
        if name := own_command(words):
            assert name in usage.COMMANDS, words
            wrong += [(name, flag) for flag in unknown_flags(name, words[3:])]
        elif words[0].startswith("launch/"):
            own, training = words, []
            if "--" in words:
                own, training = words[: words.index("--")], words[words.index("--") + 1 :]
            given = [word.partition("=")[0][2:] for word in own if word.startswith("--")]
            wrong += [(words[0], o) for o in given if o not in launch_options(ROOT / words[0])]
            files = [word for word in own if word.startswith("--config=")]
            wrong += [("main", flag) for flag in unknown_flags("main", files + training)]
    known = all_flags() | {"config"}
    for flag in alone:
        name = flag.removeprefix("--")
        key = name.removeprefix("config.")
        if key != name:
            if key != "x.y" and not any(has_key(config, key) for config in all_configs()):
                wrong.append(("config", key))
        elif name not in known:
            wrong.append(("any command", name))
    assert not wrong


@pytest.mark.parametrize("readme", readmes())
def test_a_block_is_run_or_says_why_not(readme):
    for block in blocks_of(readme):
        assert block.language in ("bash", "python", ""), block  # what has none is output
        if block.language == "bash" and not block.reason:
            others = [words for words in block.commands if not is_run(words)]
            assert not others and block.commands, f"neither run nor marked: {others} in {block}"


def is_run(words):
    """Whether `test_commands_run` runs a command, or passes over it because it installs."""
    dry = words[0].startswith("launch/") and "--dry-run" in words
    return bool(own_command(words)) or dry or words[0] == "pip"


def groups():
    named = [name for group in TOGETHER for name in group]
    others = [name for name in readmes() if name not in named]
    return [[*TOGETHER[0], *others], *TOGETHER[1:]]


@pytest.mark.slow(seconds=130)
@pytest.mark.parametrize("group", groups(), ids=lambda group: group[0])
def test_commands_run(group, tmp_path, monkeypatch):
    """Every command and every Python example that is not marked, in order, on tiny settings."""
    monkeypatch.chdir(tmp_path)
    device = jax.devices()[:1]  # programs for one are compiled in half the time
    monkeypatch.setattr(jax, "devices", lambda *_: device)
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: device)
    make_inputs(tmp_path)
    for readme in group:
        for block in blocks_of(readme):
            if block.reason:
                continue
            if block.language == "python":
                exec(compile(block.text, readme, "exec"), {})
            for words in block.commands:
                if name := own_command(words):
                    argv = small(name, words[3:], tmp_path)
                    code = command(name).main([f"maskgil_jax.{name}", *argv])
                    assert code == 0, f"{readme}: python -m maskgil_jax.{name} {shlex.join(argv)}"
                elif words[0].startswith("launch/"):
                    subprocess.run([ROOT / words[0], *words[1:]], cwd=ROOT, check=True)


def whole_examples():
    """READMEs to their Python blocks in one, where these are no fragments: they import names."""
    texts = {
        readme: "\n".join(b.text for b in blocks_of(readme) if b.language == "python")
        for readme in readmes()
    }
    return {readme: text for readme, text in texts.items() if "import " in text}


@pytest.mark.slow
def test_type_checkers_accept_the_python_examples(tmp_path):
    """Those that are not run too."""
    assert "README.md" in whole_examples()
    files = []
    for number, (readme, text) in enumerate(whole_examples().items()):
        files.append(tmp_path / f"example_{number}.py")
        files[-1].write_text(f"# {readme}\n{text}", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file=pyproject.toml", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def small(name, argv, folder):
    """The words of a command with the changes of TINY, and /tmp in this folder."""
    config = next((word.partition("=")[2] for word in argv if word.startswith("--config=")), "")
    changes = TINY.get(config) or TINY.get(config.partition(":")[0]) if config else TINY.get(name)
    assert changes is not None or not config, f"TINY has no entry for {config}"
    given = {word.partition("=")[0].removeprefix("--") for word in argv}
    changes = {
        flag: value
        for flag, value in (changes or {}).items()
        if flag.startswith("config.") or flag in given
    }
    kept = [word for word in argv if word.partition("=")[0].removeprefix("--") not in changes]
    kept = [word.replace(f"{TEMPORARY}/", f"{folder}/") for word in kept]
    kept = [re.sub(r"^--vary=steps=.*", "--vary=steps=1,2", word) for word in kept]
    kept = [re.sub(r"^(--vary=\w+=[^,]+,[^,]+),.*", r"\1", word) for word in kept]  # two values
    return [*kept, *(f"--{flag}={value}" for flag, value in changes.items())]


def make_inputs(folder):
    """What READMEs call PHOTOS, CIFAR10, FEATURES, ..., of the smallest size."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    rng = np.random.default_rng(0)
    for name, classes in (("PHOTOS", 12), ("CIFAR10/train", 10), ("CIFAR10/val", 10)):
        for label in range(classes):
            (folder / name / f"{label:02}").mkdir(parents=True)
            for i in range(3):
                low = rng.integers(0, 256, (5, 6, 3), np.uint8)
                image = Image.fromarray(low).resize((40, 36))
                image.save(folder / name / f"{label:02}" / f"{label:02}{i}.png")
    for image in folder.glob("PHOTOS/*/*.png"):
        path = folder / "FEATURES" / image.parent.name / f"{image.stem}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.normal(size=(4, 8)).astype(np.float32))
    for name in ("A", "B"):
        np.save(folder / f"{name}.npy", rng.normal(size=(4, 8)).astype(np.float32))
    for name in ("SAMPLES", "REFERENCE"):
        features = rng.normal(size=(40, 16))
        np.savez(folder / f"{name}.npz", features=features, network="random numbers")
