"""llama.cpp's GGUF files: tensors, header and vocabulary, through its library."""

from typing import Any

from maskgil_jax.errors import InputError
from maskgil_jax.interop.files import Content, check_file
from maskgil_jax.text_encoders import VOCABULARY


def read(path: str) -> Content:
    """The tensors, dequantised to float32, by llama.cpp's names; the header; the vocabulary.

    Raises:
      InputError: no such file, not GGUF, or another vocabulary than sentencepiece's.
    """
    gguf, _ = _libraries()
    check_file(path)
    try:
        reader = gguf.GGUFReader(path)
        header = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {x.name: gguf.dequantize(x.data, x.tensor_type) for x in reader.tensors}
    except Exception as error:  # the library reports damage in many ways, numpy's among them
        raise InputError(f"--source={path} is not readable GGUF: {error}") from None
    return Content(tensors, header, {VOCABULARY: _vocabulary(path, header)})


def _vocabulary(path: str, header: dict[str, Any]) -> bytes:
    """The sentencepiece model that the header was made from; its types of pieces are the same."""

    def told(name: str, default: Any = None) -> Any:
        return header.get(f"tokenizer.ggml.{name}", default)

    if told("model") != "llama":
        raise InputError(
            f"--source={path} has a vocabulary {told('model')!r}, expected 'llama' (sentencepiece)"
        )
    _, pb2 = _libraries()
    # llama.cpp spells the spaces of pieces that users defined as spaces.
    model, pieces = pb2.ModelProto(), [piece.replace(" ", "\u2581") for piece in told("tokens")]
    for piece, score, kind in zip(pieces, told("scores"), told("token_type"), strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size, spec.byte_fallback = spec.BPE, len(pieces), True
    for ours, theirs in (("pad", "padding"), ("eos", "eos"), ("bos", "bos"), ("unk", "unknown")):
        index = told(f"{theirs}_token_id")
        setattr(spec, f"{ours}_id", index)
        setattr(spec, f"{ours}_piece", pieces[index])
    model.pieces[spec.unk_id].type = pb2.ModelProto.SentencePiece.UNKNOWN
    normalizer = model.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = told("add_space_prefix", True)
    normalizer.remove_extra_whitespaces = False
    return model.SerializeToString(deterministic=True)


def _libraries() -> tuple[Any, Any]:
    try:
        import gguf
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise InputError("GGUF files need gguf: pip install 'maskgil_jax[text]'") from None
    return gguf, sentencepiece_model_pb2
