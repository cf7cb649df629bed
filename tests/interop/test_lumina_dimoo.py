"""Lumina-DiMOO through the public path: snapshot, import, load; and back."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import maskgil_jax
from maskgil_jax.decoding import masked_loop, masked_options, masked_plan, schedules
from maskgil_jax.interop import conversion, safetensors_files
from maskgil_jax.models.token_models import dimoo_sequence
from maskgil_jax.models.tokenizers.vq import VQConfig, VQTokenizer
from maskgil_jax.pretrained.loading import Tokenizer
from maskgil_jax.runtime.errors import InputError
from tests.helpers import golden, tiny_dimoo, tiny_lumina
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
    return spec, np.where(start < 0, 8192, start), options


def test_greedy_draws_are_the_official_ones(imported):
    model = maskgil_jax.load(imported(NAME))
    spec, _, options = given("r0")
    prompt, none = [EXPECTED["r0_prompt"]], [EXPECTED["r0_uncond"]]
    with jax.default_matmul_precision("highest"):
        codes = model.sample(prompt, 0, negative=none, grid=tuple(spec["grid"]), **options)
    np.testing.assert_array_equal(codes[0], EXPECTED["r0_codes"])


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


@pytest.mark.parametrize("run", ["r1", "r4"])
def test_the_loop_with_the_official_noise_draws_the_official_codes(run, imported):
    """With guidance, and without it from an image of which half is known."""
    model = maskgil_jax.load(imported(NAME))
    spec, start, options = given(run)
    L = start.size
    rule = {**masked_options.PRESETS["lumina_dimoo"].__dict__, **options}
    plan, counts = masked_plan.plan(int((start == 8192).sum()), **rule)
    np.testing.assert_array_equal(
        np.array(plan.masked) - counts[:, 0], EXPECTED[f"{run}_masked_after"]
    )
    before = EXPECTED[f"{run}_codes_before"]
    of_codes, of_cells = official_noise(spec, before == -1)
    pair = [EXPECTED[f"{run}_prompt"], EXPECTED[f"{run}_uncond"]]
    text = model._text(model.ids(pair, start.shape[1:]), start.shape[1:], 256)
    network = model.network

    def predict(codes_BL, positions, guidance):
        conditions = jax.tree.map(lambda x: x if plan.guided else x[:1], text)
        grid = codes_BL.reshape(start.shape)
        return masked_loop.logits_at(
            network, network.backbone, grid, conditions, positions, guidance
        )

    def sample(step, logits, positions, divisor):
        tokens = (logits / divisor + of_codes[step][positions]).argmax(axis=-1)
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        confidence = jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1))
        return tokens, confidence, chosen

    loop = masked_loop.Model(
        predict, sample, lambda step: of_cells[step][None], jnp.zeros((1, L)), 8192
    )
    with jax.default_matmul_precision("highest"):
        codes = jax.jit(functools.partial(masked_loop.decode, loop, plan=plan))(
            jnp.asarray(start.reshape(1, L)), counts
        )
        np.testing.assert_array_equal(codes.reshape(start.shape)[0], EXPECTED[f"{run}_codes"])
        # A step of its own shows the official draws, their probabilities and guided logits.
        for name in (n for n in EXPECTED if n.startswith(f"{run}_guided_step")):
            step = int(name.removeprefix(f"{run}_guided_step"))
            state = np.where(before[step] < 0, 8192, before[step])[None]
            positions = jnp.asarray(np.flatnonzero(before[step] < 0))[None]
            scale = plan.guidance[step] if plan.guided else None
            logits = predict(jnp.asarray(state), positions, scale)
            tokens, confidence, _ = sample(step, logits, positions, options["temperature"])
            count = positions.size
            np.testing.assert_array_equal(tokens[0], EXPECTED[f"{run}_drawn"][step, :count])
            golden.check(NAME, f"{run}_conf", confidence[0], EXPECTED[f"{run}_conf"][step, :count])
            columns = np.asarray(logits)[0, : len(EXPECTED[name]), EXPECTED[f"{run}_columns"]].T
            golden.check(NAME, f"{run}_guided_step*", columns, EXPECTED[name])


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("keep_")])
def test_cells_stay_masked_as_the_official_schedule_says(name):
    """Steps beyond the cells, after which the official loop ends, are refused."""
    cells, steps = map(int, name.split("_")[1:])
    if steps > cells:
        with pytest.raises(ValueError, match=f"steps = {steps}, expected 1 to {cells}"):
            masked_plan.plan(cells, rule="dimoo", schedule="cosine", steps=steps)
        return
    counts = schedules.maskgit_counts("cosine", steps, cells)
    np.testing.assert_array_equal(cells - counts.cumsum(), EXPECTED[name.replace("keep", "after")])


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
    tokenizer = Tokenizer(VQTokenizer(VQConfig(**SMALL_VQ), jax.random.key(0)))
    tokenizer.save(tmp_path / "vq")
    message = refused(state, tmp_path, arguments={"tokenizer": str(tmp_path / "vq")})
    assert "has 64 codes, but lumina-dimoo has 8192" in message


def test_a_pipeline_is_not_its_tokenizer(tmp_path):
    (tmp_path / "vqvae").mkdir()
    with pytest.raises(InputError, match="is a pipeline of several networks, expected its .*vqvae"):
        conversion.import_model("diffusers-vq", str(tmp_path), str(tmp_path / "model"), {})
    (tmp_path / "vqvae" / "config.json").write_text('{"mid_block_add_attention": true}')
    with pytest.raises(InputError, match="mid_block_add_attention = True, expected False"):
        conversion.import_model("diffusers-vq", f"{tmp_path}/vqvae", str(tmp_path / "model"), {})
