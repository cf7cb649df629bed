import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskgil_jax.models.token_models import platforms, rope
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.models.token_models.llama_config import PRESETS, LlamaConfig
from tests.helpers import golden
from tests.helpers.tiny_llama import TINY, built, inputs

pytestmark = pytest.mark.gpu

RULES = golden.arrays("sampling_rules")


SIZES = {"b": (12, 768, 12), "l": (24, 1024, 16), "xl": (36, 1280, 20), "xxl": (48, 1536, 24)}
RELEASED = {"b": 110_889_984, "l": 342_913_024, "xl": 774_702_080, "xxl": 1_410_975_744}
PAPER = {"b": 110_910_720, "l": 342_967_296, "xl": 774_802_176, "xxl": 1_411_133_952}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset, counts", [("maskgil_released", RELEASED), ("paper", PAPER)])
def test_parameter_counts_are_the_published_ones(size, preset, counts):
    """Paper mode adds QK-norms and post-norms to the released code and drops the mask's column."""
    layers, dim, heads = SIZES[size]
    config = LlamaConfig(
        layers=layers,
        dim=dim,
        heads=heads,
        codebook_size=16384,
        num_classes=1000,
        grid=(16, 16),
        **PRESETS[preset],
    )
    model = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == counts[size]


def test_the_file_configs_have_these_sizes():
    import importlib

    for name, (layers, dim, heads) in SIZES.items():
        model = importlib.import_module(f"configs.{name}").get_config().model
        assert (model.layers, model.dim, model.heads) == (layers, dim, heads)
        assert model.preset == "paper" and model.num_classes == 1000


def test_rope_2d_equals_the_official_table():
    table = rope.rotation_table(rope.rope_2d(16, 16, 64), 1, "zero")
    np.testing.assert_allclose(table, RULES["rope2d_16_hd64_cls1"], atol=1e-6)


def test_rope_1d_equals_the_official_table():
    table = rope.rotation_table(rope.rope_1d(256, 64), 1, "zero")
    expected = RULES["rope1d_256_hd64_cls1_maskgil"]
    np.testing.assert_allclose(table[::4], expected, atol=2e-5)


def test_rotation_equals_the_official_one():
    table = rope.rotation_table(rope.rope_2d(4, 4, 16), 1, "zero")
    x_BHTK = rope.halved(jnp.asarray(RULES["rope_apply_in"]).transpose(0, 2, 1, 3))
    expected = rope.halved(jnp.asarray(RULES["rope_apply_out"]).transpose(0, 2, 1, 3))
    np.testing.assert_allclose(rope.rotate(x_BHTK, table), expected, atol=1e-6)


@pytest.mark.parametrize("position", ["first", "last"])
def test_2d_rope_turns_image_tokens_wherever_the_condition_stands(position):
    table = built(condition_position=position).rotations(3, 4)
    image = table[1:] if position == "first" else table[:-1]
    np.testing.assert_array_equal(image[0], [[1, 0]] * 8)  # row 0, column 0: no turn
    np.testing.assert_array_equal(table[0 if position == "first" else -1], 0)


SWITCHES = [
    dict(),
    dict(rope="1d"),
    dict(condition_rope="identity"),
    dict(rope_positions="interpolated", rope_grid=(2, 3)),
    dict(rope="1d", condition_position="last"),
    dict(joint_embedding=True),
    dict(mask_logit=True),
    dict(factors=(4, 5)),
    dict(qk_norm="rms"),
    dict(qk_norm="none"),
    dict(post_norm="output"),
    dict(post_norm="none"),
]


@pytest.mark.slow
def test_every_switch_changes_the_network():
    codes, classes = inputs()
    outputs = [np.asarray(built(**switch)(codes, classes)) for switch in SWITCHES]
    for i, output in enumerate(outputs):
        assert output.shape == (2, 12, 21 if "mask_logit" in SWITCHES[i] else 20)
        assert output.dtype == np.float32 and np.isfinite(output).all()
        for other in outputs[:i]:
            assert output.shape != other.shape or np.abs(output - other).max() > 1e-3


def test_the_place_of_the_condition_is_a_convention_with_2d_rope():
    """Attention is over a set, and every token keeps its rotation."""
    first, last = (built(condition_position=place)(*inputs()) for place in ("first", "last"))
    np.testing.assert_allclose(first, last, atol=1e-5)


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_token_sees_every_token_and_the_condition(switch):
    model, (codes, classes) = built(**switch), inputs(batch=1)

    def last_logit_of(embedding_noise):
        embed = model.embed

        def noisy(codes_BL, classes_B):
            parts = embed(codes_BL, classes_B)
            noise = jnp.split(embedding_noise, [parts[0].shape[1]], axis=1)
            return tuple(part + more for part, more in zip(parts, noise, strict=True))

        object.__setattr__(model, "embed", noisy)
        try:
            return model(codes, classes)[0, 5, 3]
        finally:
            object.__delattr__(model, "embed")

    grads = jax.grad(last_logit_of)(jnp.zeros((1, 13, 32)))
    assert (jnp.abs(grads).sum(axis=-1) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("switch", SWITCHES)
def test_in_parts_as_on_tpus_it_gives_the_same(switch, monkeypatch):
    model, (codes, classes) = built(**switch), inputs()

    def loss(model):
        return (model(codes, classes) ** 2).mean()

    together = jax.value_and_grad(loss)(model)
    split = dataclasses.replace(platforms.current(), splits_sequence=True)
    monkeypatch.setattr(platforms, "current", lambda: split)
    apart = jax.value_and_grad(loss)(model)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change", [dict(remat="none"), dict(remat="full"), dict(unroll=2)], ids=str
)
def test_neither_remat_nor_unrolling_changes_gradients(change):
    codes, classes = inputs()

    def loss(model):
        return (
            model.classify(model.normed(model.backbone(codes, classes, jax.random.key(3)))) ** 2
        ).mean()

    plain, saved = built(dropout=0.1), built(**change, dropout=0.1)
    a, b = (jax.tree.leaves(jax.grad(loss)(model)) for model in (plain, saved))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


@pytest.mark.parametrize("change", [dict(remat="some"), dict(unroll=0)], ids=str)
def test_unknown_policies_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} = .*, expected"):
        built(**change)


def test_dropout_acts_with_a_key_only():
    model, (codes, classes) = built(dropout=0.5), inputs()
    one, two = (model.backbone(codes, classes, jax.random.key(k)) for k in (0, 1))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(model.backbone(codes, classes), model.backbone(codes, classes))


def test_embedding_dropout_zeroes_a_share_of_the_embedded_tokens(monkeypatch):
    """LlamaGen's token dropout, the only dropout here: its share of zeros reaches the layers."""
    model, (codes, classes) = built(embedding_dropout=0.25, layers=1), inputs(batch=64)
    embedded = []
    monkeypatch.setattr(
        Llama, "in_one", lambda self, parts, *_: embedded.append(parts) or jnp.zeros((64, 13, 32))
    )
    model.backbone(codes, classes)
    model.backbone(codes, classes, jax.random.key(0))
    kept, dropped = (np.concatenate(parts, axis=1) for parts in embedded)
    assert (kept != 0).all() and abs((dropped == 0).mean() - 0.25) < 0.01
    np.testing.assert_allclose(dropped[dropped != 0], (kept / 0.75)[dropped != 0], rtol=1e-6)


def test_a_model_runs_on_grids_it_was_not_built_for():
    codes, classes = inputs(grid=(5, 2))
    assert built()(codes, classes).shape == (2, 10, 20)


def test_bfloat16_is_close_and_gives_float32_logits():
    codes, classes = inputs()
    exact, low = built()(codes, classes), built(dtype="bfloat16")(codes, classes)
    assert low.dtype == jnp.float32
    difference = np.abs(np.asarray(exact - low))
    assert 0 < difference.mean() < 0.05 * np.abs(np.asarray(exact)).mean()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(rope="3d"), "rope = '3d'"),
        (dict(qk_norm="batch"), "qk_norm = 'batch'"),
        (dict(heads=5), "dim = 32 over heads = 5"),
        (dict(dim=12, heads=2), "multiple of 4"),
    ],
)
def test_impossible_networks_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)
