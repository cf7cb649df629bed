import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

import maskgil_jax
from maskgil_jax import convert
from maskgil_jax.errors import InputError
from tests import golden


def torch_file(path, name, layout_key):
    state = {k: torch.from_numpy(v) for k, v in golden.weights(name).items()}
    torch.save({layout_key: state, "optimizer": {"lr": 1.0}, "steps": 3}, path)
    return str(path)


@pytest.fixture(scope="module")
def vq(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vq")
    source = torch_file(folder / "vq_ds16_c2i.pt", "llamagen_vq16", "model")
    convert.import_model("llamagen-vq", source, str(folder / "model"), {})
    return folder / "model"


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt")
    source = torch_file(folder / "current.pth", "maskgil_gpt", "model_state_dict")
    convert.import_model("maskgil-gpt", source, str(folder / "model"), {"heads": 4})
    return folder / "model"


def test_llamagen_vq16_gives_the_official_latents_codes_and_images(vq):
    name = "llamagen_vq16"
    expected = golden.arrays(name)
    model = maskgil_jax.load(vq)
    images = expected["image_u8"].transpose(0, 2, 3, 1) / np.float32(127.5) - 1
    with jax.default_matmul_precision("highest"):
        latents, codes = model.latents(images), model.encode(images)
        reconstructions = model.decode(expected["indices"][:2])
        decoded = model.decode(expected["codes"])
    assert model.codebook_size == 512 and model.downsample == 16
    golden.check(name, "latent", latents, expected["latent"].transpose(0, 2, 3, 1))
    sure = expected["index_gap"] > golden.spec(name)["index_report"]["compare_where_gap_above"]
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(codes)[sure], expected["indices"][sure])
    golden.check(name, "rec", reconstructions, expected["rec"].transpose(0, 2, 3, 1))
    golden.check(name, "dec", decoded, expected["dec"].transpose(0, 2, 3, 1))


def test_maskgil_gpt_gives_the_official_logits(gpt):
    expected = golden.arrays("maskgil_gpt")
    model = maskgil_jax.load(gpt)
    assert model.mask_id == 64 and model.grid == (16, 16) and model.kind == "masked"
    null = np.asarray(model.null_condition(len(expected["label"])))
    condition = np.where(expected["drop"], null, expected["label"])
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(model.logits(expected["code"], condition))
    golden.check("maskgil_gpt", "logits", logits[:, ::2], expected["logits"])


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("family", ["llamagen-vq", "maskgil-gpt"])
def test_export_after_import_is_bit_exact(family, suffix, vq, gpt, tmp_path):
    source, name, key = {
        "llamagen-vq": (vq, "llamagen_vq16", "model"),
        "maskgil-gpt": (gpt, "maskgil_gpt", "model_state_dict"),
    }[family]
    output = tmp_path / f"out.{suffix}"
    convert.export_model(family, str(source), str(output))
    if suffix == "pt":
        written = torch.load(output, weights_only=True)[key]
        written = {k: v.numpy() for k, v in written.items()}
    else:
        written = safetensors.numpy.load_file(output)
    official = golden.weights(name)
    assert written.keys() == official.keys()
    for tensor in official:
        np.testing.assert_array_equal(written[tensor], official[tensor])


def test_all_misfits_are_listed(tmp_path):
    state = golden.weights("maskgil_gpt")
    del state["norm.weight"]
    state["surprise"] = np.zeros(3, np.float32)
    state["layers.1.attention.wo.weight"] = np.zeros((2, 2), np.float32)
    safetensors.numpy.save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(InputError) as error:
        convert.import_model(
            "maskgil-gpt", str(tmp_path / "bad.safetensors"), str(tmp_path / "m"), {"heads": 4}
        )
    for line in ("missing: norm.weight", "unknown: surprise", "mis-shaped: layers.1.attention.wo"):
        assert line in str(error.value)
    assert not (tmp_path / "m").exists()


class _Code:
    def __reduce__(self):
        return (print, ("this pickle ran code",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"model": _Code()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="not a PyTorch file of tensors alone"):
        convert.import_model("llamagen-vq", str(tmp_path / "evil.pt"), str(tmp_path / "m"), {})
    assert "ran code" not in capsys.readouterr().out


def test_a_model_is_not_exported_in_a_format_with_other_switches(tmp_path):
    from maskgil_jax.api import Generator
    from maskgil_jax.models.llama import Llama, LlamaConfig

    config = LlamaConfig(
        layers=1, dim=16, heads=2, codebook_size=8, num_classes=2, grid=(2, 2), ffn_multiple=8
    )
    Generator(Llama(config, jax.random.key(0))).save(tmp_path / "paper")
    with pytest.raises(InputError, match="maskgil-gpt has rope = '1d'"):
        convert.export_model("maskgil-gpt", str(tmp_path / "paper"), str(tmp_path / "o.pt"))
