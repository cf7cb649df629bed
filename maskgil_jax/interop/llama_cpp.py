"""llama.cpp's GGUF files: tensors, header and vocabulary, through its library."""

from typing import Any

from maskgil_jax.errors import InputError
from maskgil_jax.interop import gguf_header
from maskgil_jax.interop.files import Content
from maskgil_jax.interop.sources import check_beginning
from maskgil_jax.text_encoders import VOCABULARY

# Of special pieces: sentencepiece's names and llama.cpp's.
IDS = {"pad": "padding", "eos": "eos", "bos": "bos", "unk": "unknown"}


def read(path: str) -> Content:
    """The tensors, dequantised to float32, by llama.cpp's names; the header; the vocabulary.

    Raises:
      InputError: no such file, not GGUF, or another vocabulary than sentencepiece's.
    """
    gguf, _ = _libraries()
    check_beginning(path)
    try:
        gguf_header.check(path)
        reader = gguf.GGUFReader(path)
        header = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {x.name: gguf.dequantize(x.data, x.tensor_type) for x in reader.tensors}
    except Exception as error:  # the library reports damage in many ways, numpy's among them
        raise InputError(f"--source={path} is not readable GGUF: {error}") from None
    parts = header.get("split.count", 1)
    if parts not in (0, 1):
        raise InputError(
            f"--source={path} is one of {parts} parts of a model: join them by llama.cpp's "
            "`llama-gguf-split --merge`"
        )
    return Content(tensors, header, {VOCABULARY: _vocabulary(path, header)})


def _vocabulary(path: str, header: dict[str, Any]) -> bytes:
    """The sentencepiece model that the header was made from; its types of pieces are the same."""
    kind = header.get("tokenizer.ggml.model")
    if kind != "llama":
        raise InputError(f"--source={path} has a vocabulary {kind!r}, expected 'llama'")
    _, pb2 = _libraries()
    model = pb2.ModelProto()
    spec, normalizer = model.trainer_spec, model.normalizer_spec
    try:
        # llama.cpp spells the spaces of pieces that users defined as spaces.
        texts = [text.replace(" ", "\u2581") for text in header["tokenizer.ggml.tokens"]]
        columns = (texts, *(header[f"tokenizer.ggml.{name}"] for name in ("scores", "token_type")))
        for text, score, kind in zip(*columns, strict=True):
            model.pieces.add(piece=text, score=score, type=kind)
        for ours, theirs in IDS.items():
            index = header[f"tokenizer.ggml.{theirs}_token_id"]
            setattr(spec, f"{ours}_id", index)
            setattr(spec, f"{ours}_piece", texts[index])
        spec.model_type, spec.vocab_size, spec.byte_fallback = spec.BPE, len(texts), True
        model.pieces[spec.unk_id].type = pb2.ModelProto.SentencePiece.UNKNOWN
        normalizer.name = "identity"
        normalizer.add_dummy_prefix = header.get("tokenizer.ggml.add_space_prefix", True)
        normalizer.remove_extra_whitespaces = False
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"--source={path} has no whole vocabulary: {error!r}") from None
    return model.SerializeToString(deterministic=True)


def _libraries() -> tuple[Any, Any]:
    try:
        import gguf
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise InputError("GGUF files need gguf: pip install 'maskgil_jax[text]'") from None
    return gguf, sentencepiece_model_pb2
