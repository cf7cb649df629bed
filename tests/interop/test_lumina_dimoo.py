"""Lumina-DiMOO through the public path: snapshot, import, load; and back."""

import copy
import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.decoding import masked_loop, masked_options, masked_plan
from maskgil_jax.interop import conversion, safetensors_files
from maskgil_jax.models.token_models import dimoo_sequence, kept_tokens
from maskgil_jax.models.token_models.conditions import Text
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime.errors import InputError
from tests.helpers import golden, random_weights, tiny_dimoo, tiny_lumina
from tests.helpers.tiny import SMALL_VQ


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    made = {}

    def one(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            source = tiny_dimoo.of_golden(name, folder / "snapshot")
            conversion.import_model("lumina-dimoo", str(source), str(folder / "model"), {})
            made[name] = folder / "model"
        return made[name]

    return one


def test_logits_are_the_official_ones(imported):
    name = "lumina_dimoo"
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    assert model.kind == "masked" and model.codebook_size == 8192 and model.grid == (64, 64)
    with jax.default_matmul_precision("highest"):
        for which in "abu":
            logits = np.asarray(model.token_logits(expected[f"ids_{which}"][None]))[0]
            found = {
                f"logits_{which}": logits[:, expected["columns"]],
                f"lse_{which}": np.log(np.exp(logits.astype(np.float64)).sum(axis=1)),
                f"lse_codes_{which}": np.log(np.exp(logits[:, 126356:], dtype=float).sum(axis=1)),
            }
            for output, value in found.items():
                golden.check(name, output, value, expected[output])
            sure = expected[f"argmax_codes_{which}_top2gap"] > 5e-4
            best = logits[:, 126356:].argmax(axis=1)
            np.testing.assert_array_equal(best[sure], expected[f"argmax_codes_{which}"][sure])
            labels = expected.get(f"labels_{which}")
            if labels is not None:
                places = np.flatnonzero(labels >= 0)
                losses = found[f"lse_{which}"][places] - logits[places, labels[places]]
                golden.check(name, f"loss_{which}", losses.mean(), expected[f"loss_{which}"][0])


NAME = "lumina_dimoo_sampling"
EXPECTED = golden.arrays(NAME)


def given(run):
    """Conditions, codes to begin with and options of a run of the official sampler."""
    spec = golden.spec(NAME)["runs"][run]
    start = EXPECTED[f"{run}_grid_start"][None]
    options = dict(guidance=spec["cfg"], steps=spec["steps"], temperature=spec["temperature"])
    if spec["cache"]:
        names = dict(cache_ratio=0.9, cache_warmup=0.3, cache_refresh=5)
        theirs = dict(cache_warmup="warmup_ratio", cache_refresh="refresh_interval")
        options |= {ours: spec.get(theirs.get(ours, ours), x) for ours, x in names.items()}
    return spec, np.where(start < 0, 8192, start), options


def test_what_some_tokens_give_beside_kept_ones_is_the_official(imported):
    name = "lumina_dimoo"
    model, expected = maskgil_jax.load(imported(name)), golden.arrays(name)
    text, later = (
        Text(jnp.asarray(expected[ids][None]), jnp.ones((1, 39), bool))
        for ids in ("ids_b", "ids_b2")
    )
    places = jnp.asarray(np.flatnonzero(expected["to_compute"]))[None]
    with jax.default_matmul_precision("highest"):
        kept = kept_tokens.everything(model.network, text)
        found = kept_tokens.run(model.network, later, kept, places).outputs_BTD[:, places[0]]
        logits = np.asarray(model.network.classify_ids(found))[0]
    golden.check(name, "logits_partial", logits[:, expected["columns"]], expected["logits_partial"])


@pytest.mark.parametrize("run", ["r0", "r2"])
def test_greedy_draws_are_the_official_ones(run, imported):
    """With their cache between steps, and without."""
    model = maskgil_jax.load(imported(NAME))
    spec, _, options = given(run)
    prompt, none = [EXPECTED[f"{run}_prompt"]], [EXPECTED[f"{run}_uncond"]]
    with jax.default_matmul_precision("highest"):
        codes = model.sample(prompt, 0, negative=none, grid=tuple(spec["grid"]), **options)
    np.testing.assert_array_equal(codes[0], EXPECTED[f"{run}_codes"])


def official_noise(spec, masked_S):
    """Gumbel noise of each step, as the official code draws it: [S, L, 8192] and [S, L].

    It is of the cells that are still masked, in raster order; 0 elsewhere.
    """
    seed, calls = spec["noise_seed"], 0

    def gumbel(*shape):
        nonlocal calls
        u = np.random.default_rng([seed, calls]).random(shape, dtype=np.float32)
        calls += 1
        tiny = np.float32(1e-20)
        return -np.log(-np.log(u + tiny) + tiny)

    of_codes = np.zeros((len(masked_S), masked_S[0].size, 8192), np.float32)
    of_cells = np.zeros(of_codes.shape[:2], np.float32)
    for step, masked in enumerate(masked_S):
        of_codes[step, masked] = gumbel(1, masked.sum(), 8192)[0]
        of_cells[step, masked] = gumbel(1, masked.sum())[0]
    return jnp.asarray(of_codes), jnp.asarray(of_cells)


class Run:
    """A run of the official sampler, with its noise, on our network."""

    def __init__(self, run, model):
        self.run, self.network = run, model.network
        spec, start, options = given(run)
        self.start, self.grid = start, start.shape[1:]
        self.temperature = options["temperature"]
        rule = {**masked_options.PRESETS["lumina_dimoo"].__dict__, **options}
        self.plan, self.numbers = masked_plan.plan(int((start == 8192).sum()), **rule)
        pair = [EXPECTED[f"{run}_prompt"], EXPECTED[f"{run}_uncond"]]
        text = model._text(model.ids(pair, self.grid), self.grid, 256)
        self.text = text if any(self.plan.guided) else jax.tree.map(lambda x: x[:1], text)
        masked = EXPECTED[f"{run}_codes_before"] == -1
        self.of_codes, self.of_cells = official_noise(spec, masked)

    def jitted(self, function):
        """`function(run, ...)` as a program that takes the arrays of this run.

        As constants of the program, 250 MB are hashed, compiled and compressed.
        """
        names = ("network", "text", "of_codes", "of_cells")

        @jax.jit
        def program(arrays, *arguments):
            run = copy.copy(self)
            vars(run).update(zip(names, arrays, strict=True))
            return function(run, *arguments)

        return functools.partial(program, [getattr(self, name) for name in names])

    @property
    def keep(self):
        ratio = self.plan.cache_ratio
        return masked_loop.keeping(self.network, self.text, self.grid, ratio) if ratio else None

    def predict(self, codes_BL, positions, guidance):
        grid = codes_BL.reshape(self.start.shape)
        backbone = self.network.backbone
        return masked_loop.logits_at(self.network, backbone, grid, self.text, positions, guidance)

    def sample(self, step, logits, positions, divisor):
        tokens = (logits / divisor + self.of_codes[step][positions]).argmax(axis=-1)
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        return tokens, jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1)), chosen

    def gumbel(self, step):
        return self.of_cells[step][None]


@pytest.fixture(scope="module", params=["r1", "r3", "r4"])
def official(request, imported):
    with jax.default_matmul_precision("highest"):
        yield Run(request.param, maskgil_jax.load(imported(NAME)))


@pytest.mark.slow
def test_the_loop_with_the_official_noise_draws_the_official_codes(official):
    """With guidance; with their cache; and without guidance, half of the image being known."""
    run, start = official.run, official.start
    after = np.array(official.plan.masked) - official.numbers.counts_SB[:, 0]
    np.testing.assert_array_equal(after, EXPECTED[f"{run}_masked_after"])

    @official.jitted
    def decode(run, codes, numbers):
        rank = jnp.zeros((1, start.size))
        loop = masked_loop.Model(run.predict, run.sample, run.gumbel, rank, 8192, run.keep)
        return masked_loop.decode(loop, codes, numbers, run.plan)[-1]

    codes = decode(jnp.asarray(start.reshape(1, -1)), official.numbers)
    np.testing.assert_array_equal(codes.reshape(official.grid), EXPECTED[f"{run}_codes"])


def test_each_step_shows_the_official_draws(official):
    """From the official state before it: draws, probabilities, guided logits, what a cache runs."""
    run, plan, keep = official.run, official.plan, official.keep
    positions = jnp.arange(official.start.size)[None]
    kept = keep.state if keep else None

    @official.jitted
    def predict(run, codes, guidance, kept, all_tokens):
        scale = guidance if any(plan.guided) else None
        if run.keep:
            return run.keep.predict(codes, positions, scale, kept, all_tokens)
        return run.predict(codes, positions, scale), None

    for step, before in enumerate(EXPECTED[f"{run}_codes_before"]):
        codes = jnp.asarray(np.where(before < 0, 8192, before)[None])
        if keep:
            assert plan.all_tokens[step] == EXPECTED[f"{run}_refresh"][step]
            if not plan.all_tokens[step]:
                check_runs(run, step, official.text.mask_BT, kept, 1 - plan.cache_ratio)
        logits, kept = predict(
            codes, official.numbers.guidance_S[step], kept, plan.all_tokens[step]
        )
        tokens, confidence, _ = official.sample(step, logits, positions, official.temperature)
        masked = before == -1
        drawn, conf = (EXPECTED[f"{run}_{x}"][step, : masked.sum()] for x in ("drawn", "conf"))
        np.testing.assert_array_equal(np.asarray(tokens)[0, masked], drawn)
        golden.check(NAME, f"{run}_conf", np.asarray(confidence)[0, masked], conf)
        expected = EXPECTED.get(f"{run}_guided_step{step}")
        if expected is not None:
            rows = np.asarray(logits)[0, masked][: len(expected)]
            columns = rows[:, EXPECTED[f"{run}_columns"]]
            golden.check(NAME, f"{run}_guided_step*", columns, expected)


def check_runs(run, step, mask_BT, kept, share):
    """The tokens that a cache runs are the official ones, of both sequences."""
    T = kept.largest_BT.shape[1]
    mask_BT = np.pad(mask_BT, ((0, 0), (0, T - mask_BT.shape[1])), constant_values=True)
    runs_BT = np.asarray(kept_tokens.unsure(kept.largest_BT, jnp.asarray(mask_BT), share))
    for row, name in enumerate(("cond", "uncond")):
        expected = EXPECTED[f"{run}_compute_{name}"][step].astype(bool)
        found = runs_BT[row, mask_BT[row]]
        np.testing.assert_array_equal(found, expected[: len(found)])
        assert not expected[len(found) :].any() and found.sum() < len(found)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("keep_")])
def test_cells_stay_masked_as_the_official_schedule_says(name):
    """The official loop ends early where there are more steps than cells."""
    cells, steps = map(int, name.split("_")[1:])
    plan, numbers = masked_plan.plan(cells, rule="dimoo", schedule="cosine", steps=steps)
    after, expected = (
        cells - numbers.counts_SB[:, 0].cumsum(),
        EXPECTED[name.replace("keep", "after")],
    )
    np.testing.assert_array_equal(after[: len(expected)], expected)
    assert not after[len(expected) :].any() and len(plan.masked) == steps


@pytest.mark.parametrize("name", ["skeleton_512x512", "skeleton_384x672", "skeleton_672x384"])
def test_answers_are_the_official_ones(name):
    width, height = (int(side) // 16 for side in name.removeprefix("skeleton_").split("x"))
    codes = np.arange(height * width).reshape(1, height, width) % 8192
    (found,) = dimoo_sequence.answer(codes)
    np.testing.assert_array_equal(np.where(EXPECTED[name] < 0, -1, found), EXPECTED[name])
    assert len(found) == dimoo_sequence.answer_length((height, width))
    assert (dimoo_sequence.answer(np.full_like(codes, 8192)) == dimoo_sequence.MASK).sum() == (
        height * width
    )


def test_export_gives_the_same_tensors(tmp_path):
    """In bfloat16, as the released ones."""
    state = {k: x.astype(ml_dtypes.bfloat16) for k, x in golden.weights(NAME).items()}
    config = golden.spec(NAME)["config"]
    source = tiny_lumina.snapshot(tmp_path / "s", state, config | dict(model_type="llada"), 3)
    conversion.import_model("lumina-dimoo", str(source), str(tmp_path / "model"), {})
    conversion.export_model(
        "lumina-dimoo", str(tmp_path / "model"), str(tmp_path / "x.safetensors")
    )
    written, _ = safetensors_files.read(str(tmp_path / "x.safetensors"))
    assert set(written) == set(state)
    for name, tensor in state.items():
        assert written[name].tobytes() == tensor.tobytes() and written[name].dtype == tensor.dtype


@pytest.mark.parametrize(
    "format_name, message",
    [("lumina-mgpt", "causal"), ("maskgil", "vocabulary"), ("llamagen-gpt", "vocabulary|causal")],
)
def test_no_other_format_holds_it(format_name, message, imported, tmp_path):
    with pytest.raises(InputError, match=message):
        conversion.export_model(format_name, str(imported(NAME)), str(tmp_path / "x.safetensors"))


@pytest.fixture(scope="module")
def state():
    return golden.weights(NAME)


def refused(state, folder, change=None, arguments=None, **settings):
    config = golden.spec(NAME)["config"] | dict(model_type="llada") | settings
    source = tiny_lumina.snapshot(folder / "snapshot", state, config, 2)
    if change:
        change(source)
    with pytest.raises(InputError) as caught:
        conversion.import_model("lumina-dimoo", str(source), str(folder / "model"), arguments or {})
    assert not (folder / "model").exists()
    return str(caught.value)


def test_half_a_snapshot_is_named(state, tmp_path):
    def lose(source):
        (source / "model-00002-of-00002.safetensors").unlink()

    assert "names model-00002-of-00002.safetensors, which" in refused(state, tmp_path, lose)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(n_layers=3), "settings say 3: some are missing"),
        (dict(model_type="chameleon"), "has model_type = 'chameleon', expected 'llada'"),
        (dict(rope_theta=None), "has no rope_theta, which tensors do not show"),
        (dict(n_kv_heads=1), "the tensors have n_kv_heads = 2, but its settings 1"),
    ],
)
def test_other_settings_are_named(settings, message, state, tmp_path):
    assert message in refused(state, tmp_path, **settings)


def test_another_vocabulary_is_named(state, tmp_path):
    """LLaDA's own has no codes."""
    short = dict(state)
    for name in ("wte", "ff_out"):
        short[f"model.transformer.{name}.weight"] = state[f"model.transformer.{name}.weight"][:999]
    assert "vocabulary = 999, expected 134548" in refused(short, tmp_path)


def test_a_tokenizer_of_another_model_is_named(state, tmp_path):
    def other(source):
        (source / "tokenizer.json").write_bytes(tiny_dimoo.vocabulary("<none>"))

    message = refused(state, tmp_path, other)
    assert "tokenizer.json is of another model: <uncondition> has the ids" in message
    assert "expected [126351], as in Lumina-DiMOO" in message


def test_a_vq_of_other_codes_is_named(state, tmp_path):
    config = VQConfig(**SMALL_VQ)
    network = random_weights.network(lambda: VQTokenizer(config, jax.random.key(0)))
    Tokenizer(network).save(tmp_path / "vq")
    message = refused(state, tmp_path, arguments={"tokenizer": str(tmp_path / "vq")})
    assert "has 64 codes, but lumina-dimoo has 8192" in message


def test_a_pipeline_is_not_its_tokenizer(tmp_path):
    (tmp_path / "vqvae").mkdir()
    with pytest.raises(InputError, match="is a pipeline of several networks, expected its .*vqvae"):
        conversion.import_model("diffusers-vq", str(tmp_path), str(tmp_path / "model"), {})
    (tmp_path / "vqvae" / "config.json").write_text('{"mid_block_add_attention": true}')
    with pytest.raises(InputError, match="mid_block_add_attention = True, expected False"):
        conversion.import_model("diffusers-vq", f"{tmp_path}/vqvae", str(tmp_path / "model"), {})
