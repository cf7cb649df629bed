"""Which columns of a table hold images, classes and captions, in the layout of Hugging Face.

Source: `datasets`: an Image is a struct of bytes and path, and the schema's metadata names classes.
"""

import json
from typing import Any, NamedTuple

from maskgil_jax.data.records import captions, class_labels
from maskgil_jax.runtime.errors import InputError

_IMAGE = "image"
_BYTES = "bytes"


class Columns(NamedTuple):
    """The columns that are read.

    Attributes:
      image: name of the column of images.
      in_struct: whether its bytes are a field of a struct.
      label: name of the column of classes, or "".
      class_names: that the schema lists; None: it lists none.
      captions: names of columns of texts, or of lists of texts.
      unread: names of the others.
    """

    image: str
    in_struct: bool
    label: str
    class_names: tuple[str, ...] | None
    captions: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def beside_image(self) -> list[str]:
        """Those of classes and captions."""
        return [*filter(None, [self.label]), *self.captions]

    @property
    def read(self) -> list[str]:
        """All that are read, as Parquet names them."""
        return [f"{self.image}.{_BYTES}" if self.in_struct else self.image, *self.beside_image]


def columns_of(schema: Any, where: str) -> Columns:
    """The columns of a table.

    Args:
      schema: pyarrow.Schema.
      where: name of the table in messages.

    Raises:
      InputError: no images, or classes that are neither numbers nor names.
    """
    image = _image_column(schema, where)
    label = next((name for name in class_labels.FIELDS if name in schema.names), "")
    if label and not _says_classes(kind := schema.field(label).type):
        raise InputError(f"{where}: its column {label} is {kind}, expected numbers or names")
    texts = tuple(name for name in captions.FIELDS if name in schema.names)
    used = (image, label, *texts)
    return Columns(
        image,
        _is_struct(schema.field(image).type),
        label,
        _listed_names(schema, label, where) if label else None,
        texts,
        tuple(name for name in schema.names if name not in used),
    )


def image_bytes(column: Any, place: int, in_struct: bool) -> bytes | None:
    """The file in a row of a column of images, or None where there is none."""
    value = column[place].as_py()
    return value.get(_BYTES) if in_struct and value else value


def _says_classes(kind: Any) -> bool:
    from pyarrow import types

    of_classes = (types.is_integer, types.is_floating, types.is_string, types.is_large_string)
    nothing_or_few = (types.is_null, types.is_dictionary)
    return any(is_of(kind) for is_of in (*of_classes, *nothing_or_few))


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return any(
        is_of(kind)
        for is_of in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    )


def _image_column(schema: Any, where: str) -> str:
    found = [field.name for field in schema if _is_struct(field.type)]
    if _IMAGE in found or (_IMAGE in schema.names and _is_bytes(schema.field(_IMAGE).type)):
        return _IMAGE
    if len(found) == 1:
        return found[0]
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
    raise InputError(
        f"{where} has no column {_IMAGE} of files of images (a struct of {_BYTES} and path, as "
        f"Hugging Face's datasets writes them, or binary); its columns are {columns[:400]}"
    )


def _is_struct(kind: Any) -> bool:
    """Whether a column is a struct of bytes and path."""
    from pyarrow import types

    fields = [kind.field(i) for i in range(kind.num_fields)] if types.is_struct(kind) else []
    return any(field.name == _BYTES and _is_bytes(field.type) for field in fields)


def _listed_names(schema: Any, label: str, where: str) -> tuple[str, ...] | None:
    """The names of classes that the schema's metadata lists, or None where it lists none."""
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = content.get("info", {}).get("features", {}).get(label, {})
        names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    except (ValueError, AttributeError):
        raise InputError(f"{where}: its metadata 'huggingface' is broken") from None
    if names is None:
        return None
    if not isinstance(names, list) or not names:
        raise InputError(f"{where}: the classes of its column {label} are {names!r:.80}")
    return tuple(map(str, names))
