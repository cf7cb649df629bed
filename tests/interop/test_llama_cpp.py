"""Headers of GGUF that lie are refused at once."""

import pathlib
import struct

import numpy as np
import pytest

from maskgil_jax.interop import gemma, llama_cpp, recognition
from maskgil_jax.runtime.errors import InputError


def gguf(settings=b"", tensors=0, count=0):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, count) + settings


def setting(kind, value, name=b"a"):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    "content",
    [
        gguf(count=2**40),
        gguf(tensors=2**40),
        gguf(bytes(2**20), tensors=2**40),
        gguf(setting(9, struct.pack("<IQ", 0, 2**40)), count=1),  # bytes
        gguf(setting(9, struct.pack("<IQ", 8, 2**40)), count=1),  # texts
        gguf(setting(9, struct.pack("<IQ", 9, 2**40)), count=1),  # arrays
        gguf(setting(8, struct.pack("<Q", 2**40)), count=1),  # a text
        gguf(setting(0, b"\1"), count=2**40),
        gguf(setting(9, struct.pack("<IQ", 0, 100) + bytes(50)), count=1),
    ],
)
def test_gguf_whose_header_lies_is_refused_at_once(content, tmp_path):
    pytest.importorskip("gguf")
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(InputError, match="x.gguf is not readable GGUF: (its header says|it ends)"):
        llama_cpp.read(str(tmp_path / "x.gguf"))


def write_gemma(path, block_count=2, layers=2):
    """A Gemma 1 of random weights, as llama.cpp's converter writes it."""
    library = pytest.importorskip("gguf")
    from sentencepiece import sentencepiece_model_pb2

    from tests.helpers.tiny_gemma import vocabulary

    D, H, G, K, F = 16, 2, 1, 8, 24
    pieces = sentencepiece_model_pb2.ModelProto.FromString(vocabulary()).pieces
    shapes = {"token_embd": (len(pieces), D), "output_norm": (D,)}
    block = dict(
        attn_norm=(D,), ffn_norm=(D,), attn_q=(H * K, D), attn_k=(G * K, D), attn_v=(G * K, D),
        attn_output=(D, H * K), ffn_gate=(F, D), ffn_up=(F, D), ffn_down=(D, F),
    )  # fmt: skip
    shapes |= {f"blk.{i}.{name}": shape for i in range(layers) for name, shape in block.items()}
    writer = library.GGUFWriter(path, "gemma")
    writer.add_key_length(K)
    writer.add_head_count(H)
    writer.add_block_count(block_count)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.piece for piece in pieces])
    writer.add_token_types([piece.type for piece in pieces])
    writer.add_token_scores([piece.score for piece in pieces])
    for i, name in enumerate(("pad", "eos", "bos", "unk")):
        getattr(writer, f"add_{name}_token_id")(i)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def read_gemma(path):
    content = gemma.read(path)
    return recognition.recognise("gemma", gemma, path, content, {}, "")[0]


def test_layers_are_counted_against_the_header(tmp_path):
    config = read_gemma(write_gemma(tmp_path / "complete.gguf"))
    assert (config.layers, config.heads, config.kv_heads) == (2, 2, 1)
    with pytest.raises(InputError, match="num_hidden_layers = 2, but its settings say 3"):
        read_gemma(write_gemma(tmp_path / "part.gguf", block_count=3))


def test_damage_anywhere_in_gguf_is_refused_or_does_no_harm(tmp_path):
    path, rng = write_gemma(tmp_path / "x.gguf"), np.random.default_rng(0)
    content = pathlib.Path(path).read_bytes()
    for case in range(60):
        data, at = bytearray(content), int(rng.integers(800 if case % 3 else len(content)))
        if case % 4:
            data[at] ^= 1 << int(rng.integers(8))
        else:
            del data[at:]
        pathlib.Path(path).write_bytes(data)
        try:
            read_gemma(path)
        except InputError as error:
            assert path in str(error)
