"""llama.cpp's GGUF files: tensors, header and vocabulary, through its library."""

from typing import Any

import numpy as np

from maskgil_jax.interop.files import Content
from maskgil_jax.interop.sources import check_beginning
from maskgil_jax.pretrained.text_encoder import VOCABULARY
from maskgil_jax.runtime.errors import InputError

MOST = 2**20  # tensors, settings or values of a setting: vocabularies have 2^18 and less
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
        reader = _reader(gguf, path)
        header = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {x.name: gguf.dequantize(x.data, x.tensor_type) for x in reader.tensors}
    except Exception as error:  # the library reports damage in many ways, numpy's among them
        raise InputError(f"source={path} is not readable GGUF: {error}") from None
    splits = header.get("split.count", 1)
    if splits not in (0, 1):
        raise InputError(
            f"source={path} is one of {splits} files of a model: merge them by "
            "llama-gguf-split of llama.cpp"
        )
    return Content(tensors, header, {VOCABULARY: _vocabulary(path, header)})


def _reader(gguf: Any, path: str) -> Any:
    """The library's reader, which ends where the file does instead of counting on without data."""
    array = int(gguf.GGUFValueType.ARRAY)

    class Reader(gguf.GGUFReader):
        data: np.ndarray

        def _get(self, offset: int, dtype: Any, count: int = 1, *order: Any, **options: Any) -> Any:
            end = int(offset) + int(count) * np.dtype(dtype).itemsize
            if not 0 <= int(offset) <= end <= len(self.data):
                raise ValueError(f"it ends at byte {len(self.data)}, but {end} are needed")
            self.data = np.asarray(self.data)  # each slice of a memmap takes 5 times as long
            return super()._get(int(offset), dtype, count, *order, **options)

        def _build_fields(self, offs: int, count: int) -> int:
            return super()._build_fields(offs, _plausible(count, "settings"))

        def _build_tensor_info(self, offs: int, count: int) -> Any:
            return super()._build_tensor_info(offs, _plausible(count, "tensors"))

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type == array:
                _plausible(self._get(orig_offs + 4, np.uint64)[0], "values in one setting")
            return super()._get_field_parts(orig_offs, raw_type)

    return Reader(path)


def _plausible(count: int, what: str) -> int:
    if count > MOST:
        raise ValueError(f"its header says that it has {count} {what}")
    return count


def _vocabulary(path: str, header: dict[str, Any]) -> bytes:
    """The sentencepiece model that the header was made from; its types of pieces are the same."""
    kind = header.get("tokenizer.ggml.model")
    if kind != "llama":
        raise InputError(f"source={path} has a vocabulary {kind!r}, expected 'llama'")
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
        raise InputError(f"source={path} has no complete vocabulary: {error!r}") from None
    return model.SerializeToString(deterministic=True)


def _libraries() -> tuple[Any, Any]:
    try:
        import gguf
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise InputError("GGUF files need gguf: pip install 'maskgil_jax[text]'") from None
    return gguf, sentencepiece_model_pb2
