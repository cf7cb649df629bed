"""The description of a model beside its tensors, in the files that we write.

It is the content of model.json. Files that have room for strings have it under `KEY`, so that an
exported model can be imported again as it was.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from maskgil_jax.pretrained import networks
from maskgil_jax.pretrained.generators import Generator
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import check_object, to_json

KEY = "maskgil_jax"
# What a generator was trained with, and the JSON types of it.
PROVENANCE = {"tokenizer": dict, "class_names": list, "encoder": dict}
OF_TRAINING = ("remat", "unroll")  # of arguments, as in `loading.load`
# Arguments of which each unit has tensors of its own.
COUNTS = (
    *("layers", "encoder_layers", "decoder_layers", "res_blocks"),
    *("image_layers", "text_layers"),
)


class Description(NamedTuple):
    """The description of a network in a file.

    Attributes:
      config: of the network.
      provenance: what a Generator is made with beside its network.
    """

    config: Any
    provenance: dict[str, Any]


def of(model: Any) -> str:
    """The description of a model, as JSON."""
    config = model.network.config
    provenance = (
        {name: getattr(model, name) for name in PROVENANCE} if isinstance(model, Generator) else {}
    )
    arguments = dataclasses.asdict(config)
    return to_json({"class": networks.class_of(config), "arguments": arguments} | provenance)


def read(metadata: Mapping[str, Any], kind: type, tensors: int) -> Description | None:
    """The description among a file's strings, None where there is none.

    Args:
      metadata: of the file.
      kind: of config that the format has.
      tensors: how many the file has; a network of more layers is not built.

    Raises:
      InputError: it is damaged, or of another kind of network; the message follows "source X".
    """
    if KEY not in metadata:
        return None
    where = f"has a damaged description ({KEY})"
    try:
        content = json.loads(metadata[KEY])
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: {error}") from None
    try:
        check_object(content, {"class": str, "arguments": dict}, KEY)
        check_object(
            content, {name: PROVENANCE[name] for name in PROVENANCE if name in content}, KEY
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    arguments = {k: v for k, v in content["arguments"].items() if k not in OF_TRAINING}
    config = networks.config_of(content["class"], arguments, where)
    if not isinstance(config, kind):
        raise InputError(f"holds a {content['class']}, which is not of this format")
    for name in COUNTS:
        if (count := getattr(config, name, 0)) > tensors:
            raise InputError(f"{where}: {name} = {count} in a file of {tensors} tensors")
    provenance = {name: content[name] for name in PROVENANCE if name in content}
    provenance["class_names"] = tuple(map(str, provenance.get("class_names", ())))
    return Description(config, provenance)
