import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from flax import serialization, traverse_util

import maskgil_jax
from maskgil_jax.interop import conversion
from maskgil_jax.runtime.errors import InputError
from tests.helpers import golden, random_weights

# Format, golden, how the official file keeps the state dict.
TOKENIZERS = [
    ("llamagen-vq", "llamagen_vq16", "model"),
    ("llamagen-vq", "llamagen_vq8", "model"),
    ("taming-vqgan", "taming_vqgan_f16_1024", "state_dict"),
    ("chameleon-vq", "chameleon_vqgan", "state_dict"),
    ("open-magvit2", "open_magvit2_256", "state_dict"),
    ("open-magvit2", "open_magvit2_128", "state_dict"),
    ("maskgit-vq", "google_maskgit_vqgan", "msgpack"),
    ("diffusers-vq", "diffusers_vqmodel", "directory"),
]
GPT = ("maskgil-gpt", "maskgil_gpt", "model_state_dict")


def official_file(folder, name, layout):
    """The golden's weights as the official code saves them, with what else is in such files."""
    weights = golden.weights(name)
    if layout == "msgpack":
        path = folder / "tokenizer_imagenet256_checkpoint"
        tree = traverse_util.unflatten_dict(weights, sep="/")
        path.write_bytes(serialization.msgpack_serialize({**tree, "step": 3}))
        return path
    if layout == "directory":
        path = folder / "vqvae"
        path.mkdir()
        settings = golden.spec(name)["config"] | {"_class_name": "VQModel"}
        (path / "config.json").write_text(json.dumps(settings))
        safetensors.numpy.save_file(weights, path / "diffusion_pytorch_model.safetensors")
        return path
    state = {k: torch.from_numpy(v) for k, v in weights.items()}
    if layout == "state_dict":
        state["loss.perceptual_loss.lin0.model.1.weight"] = torch.ones(1, 64, 1, 1)
    if "magvit2" in name:
        # The averaged copies, whose names have lost their dots, are the ones to take.
        copies = {f"model_ema.{k.replace('.', '')}": v for k, v in state.items()}
        state = {k: v + 1 for k, v in state.items()} | copies
        state["model_ema.decay"] = torch.tensor(0.999)
    path = folder / "official.ckpt"
    torch.save({layout: state, "optimizer": {"lr": 1.0}, "steps": 3}, path)
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(format, golden, layout) -> model directory, made once."""

    @functools.cache
    def make(family, name, layout):
        folder = tmp_path_factory.mktemp(name)
        arguments = {"heads": 4} if family == "maskgil-gpt" else {}
        source = str(official_file(folder, name, layout))
        conversion.import_model(family, source, str(folder / "model"), arguments)
        return folder / "model"

    return make


@pytest.fixture(scope="module")
def gpt(imported):
    return imported(*GPT)


@pytest.mark.slow
@pytest.mark.parametrize("case", TOKENIZERS, ids=lambda case: case[1])
def test_a_tokenizer_gives_the_official_latents_codes_and_images(case, imported):
    name = case[1]
    expected = golden.arrays(name)
    model = maskgil_jax.load(imported(*case))
    images = expected["image_u8"].transpose(0, 2, 3, 1) / np.float32(127.5) - 1
    latents, codes = np.asarray(model.latents(images)), np.asarray(model.encode(images))
    count = len(expected["rec"])
    both = np.concatenate([expected["indices"][:count], expected["codes"]])  # one program
    decoded = np.asarray(model.decode(both))
    pixels = {"rec": decoded[:count], "dec": decoded[count:]}
    if case[0] in ("maskgit-vq", "diffusers-vq"):  # the official network works on [0, 1]
        pixels = {output: (x + 1) / 2 for output, x in pixels.items()}
    if case[0] != "maskgit-vq":
        expected |= {o: expected[o].transpose(0, 2, 3, 1) for o in ("latent", "rec", "dec")}
    golden.check(name, "latent", latents, expected["latent"])
    for output, ours in pixels.items():
        golden.check(name, output, ours, expected[output])
    report = golden.spec(name)["index_report"]
    if "index_gap" in expected:
        sure = expected["index_gap"] > report["compare_where_gap_above"]
    else:
        sure = (np.abs(expected["latent"]) > report["compare_where_abs_latent_above"]).all(axis=-1)
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(codes[sure], expected["indices"][sure])


@pytest.mark.slow
@pytest.mark.parametrize("case", TOKENIZERS + [GPT], ids=lambda case: case[1])
def test_export_after_import_is_bit_exact(case, imported, tmp_path):
    family, name, layout = case
    for suffix in ["msgpack"] if layout == "msgpack" else ["safetensors", "pt"]:
        output = tmp_path / f"out.{suffix}"
        conversion.export_model(family, str(imported(*case)), str(output))
        if suffix == "pt":
            written = torch.load(output, weights_only=True)
            written = written if layout == "directory" else written[layout]
            written = {k: v.numpy() for k, v in written.items()}
        elif suffix == "msgpack":
            tree = serialization.msgpack_restore(output.read_bytes())
            written = traverse_util.flatten_dict(tree, sep="/")
        else:
            written = safetensors.numpy.load_file(output)
        official = golden.weights(name)
        assert written.keys() == official.keys()
        for tensor in official:
            np.testing.assert_array_equal(written[tensor], official[tensor])


def test_raw_weights_are_taken_where_asked_or_alone(tmp_path):
    case = ("open-magvit2", "open_magvit2_128", "state_dict")
    source = str(official_file(tmp_path, *case[1:]))
    conversion.import_model(case[0], source, str(tmp_path / "raw"), {"weights": "model"})
    official = golden.weights(case[1])
    raw = maskgil_jax.load(tmp_path / "raw").network.encoder.conv_out.bias[...]
    np.testing.assert_array_equal(raw, official["encoder.conv_out.bias"] + 1)
    safetensors.numpy.save_file(official, tmp_path / "alone.safetensors")
    conversion.import_model(case[0], str(tmp_path / "alone.safetensors"), str(tmp_path / "a"), {})
    alone = maskgil_jax.load(tmp_path / "a").network.encoder.conv_out.bias[...]
    np.testing.assert_array_equal(alone, official["encoder.conv_out.bias"])


def test_averaged_weights_are_taken_where_asked(tmp_path):
    state = {k: torch.from_numpy(v) for k, v in golden.weights("llamagen_vq8").items()}
    ema = {k: v + 1 for k, v in state.items()}
    torch.save({"model": state, "ema": ema}, tmp_path / "both.pt")
    for weights in ("", "ema"):
        arguments = {"weights": weights} if weights else {}
        folder = tmp_path / f"m{weights}"
        conversion.import_model("llamagen-vq", str(tmp_path / "both.pt"), str(folder), arguments)
        bias = maskgil_jax.load(folder).network.quant_conv.bias[...]
        np.testing.assert_array_equal(bias, state["quant_conv.bias"] + (weights == "ema"))
    torch.save({"model": state}, tmp_path / "one.pt")
    with pytest.raises(InputError, match="weights=ema: .* holds \\['model'\\]"):
        arguments = {"weights": "ema"}
        conversion.import_model(
            "llamagen-vq", str(tmp_path / "one.pt"), str(tmp_path / "n"), arguments
        )


def test_a_tokenizer_of_another_family_is_not_exported(imported, tmp_path):
    with pytest.raises(InputError, match="llamagen-vq has quantizer = 'cosine', but this model 'e"):
        source = str(imported(*TOKENIZERS[3]))
        conversion.export_model("llamagen-vq", source, str(tmp_path / "out.pt"))


def test_maskgil_gpt_gives_the_official_logits(gpt):
    expected = golden.arrays("maskgil_gpt")
    model = maskgil_jax.load(gpt)
    assert model.mask_id == 64 and model.grid == (16, 16) and model.kind == "masked"
    null = np.asarray(model.null_condition(len(expected["label"])))
    condition = np.where(expected["drop"], null, expected["label"])
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(model.logits(expected["code"], condition))
    golden.check("maskgil_gpt", "logits", logits[:, ::2], expected["logits"])


def test_all_misfits_are_listed(tmp_path):
    state = golden.weights("maskgil_gpt")
    del state["norm.weight"]
    state["surprise"] = np.zeros(3, np.float32)
    state["layers.1.attention.wo.weight"] = np.zeros((2, 2), np.float32)
    safetensors.numpy.save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(InputError) as error:
        conversion.import_model(
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
        conversion.import_model("llamagen-vq", str(tmp_path / "evil.pt"), str(tmp_path / "m"), {})
    assert "ran code" not in capsys.readouterr().out


def test_a_model_is_not_exported_in_a_format_with_other_switches(tmp_path):
    from maskgil_jax.models.token_models.llama import Llama
    from maskgil_jax.models.token_models.llama_config import LlamaConfig
    from maskgil_jax.pretrained.loading import Generator

    config = LlamaConfig(
        layers=1, dim=16, heads=2, codebook_size=8, num_classes=2, grid=(2, 2), ffn_multiple=8
    )
    network = random_weights.network(lambda: Llama(config, jax.random.key(0)))
    Generator(network).save(tmp_path / "paper")
    with pytest.raises(InputError, match="maskgil-gpt has rope = '1d'"):
        conversion.export_model("maskgil-gpt", str(tmp_path / "paper"), str(tmp_path / "o.pt"))
