import struct

import pytest

from maskgil_jax.interop import llama_cpp
from maskgil_jax.runtime.errors import InputError

gguf = pytest.importorskip("gguf", reason="needs the extra [text]")

MANY = 2**40
STRING, ARRAY, UINT8 = 8, 9, 0


def text(value, length=None):
    return struct.pack("<Q", len(value) if length is None else length) + value


def header(tensors=0, fields=0, body=b"", version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + body


def array(kind, count, body=b""):
    return text(b"key") + struct.pack("<IIQ", ARRAY, kind, count) + body


NESTED = struct.pack("<IQ", ARRAY, 1) * 20
HEADERS = {
    "of 2^40 tensors": header(tensors=MANY),
    "of 2^40 fields": header(fields=MANY),
    "of 2^64 - 1 fields": header(fields=2**64 - 1),
    "with 2^40 numbers": header(fields=1, body=array(UINT8, MANY)),
    "with 2^40 texts": header(fields=1, body=array(STRING, MANY)),
    "with 2^40 arrays": header(fields=1, body=array(ARRAY, MANY)),
    "with arrays in arrays": header(fields=1, body=array(ARRAY, 1, NESTED)),
    "with a text of 2^40": header(fields=1, body=text(b"key") + struct.pack("<IQ", STRING, MANY)),
    "with a name of 2^40": header(fields=1, body=text(b"key", MANY) + bytes(40)),
    "of an unknown type": header(fields=1, body=text(b"key") + struct.pack("<IQ", 77, 0)),
    "with a tensor of 2^31 axes": header(tensors=1, body=text(b"x") + struct.pack("<I", 2**31)),
    "that is cut": header(tensors=1, fields=1)[:20],
    "of another version": header(version=77),
    "of another kind": b"GGML" + bytes(100),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_true_is_refused_at_once(name, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(HEADERS[name] + bytes(64) * (name != "that is cut"))
    with pytest.raises(InputError, match="x.gguf"):
        llama_cpp.read(str(path))
