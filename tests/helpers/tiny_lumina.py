"""Snapshots of Lumina-mGPT as they are downloaded, of the smallest size."""

import json

import numpy as np
from safetensors.numpy import save_file

from maskgil_jax.models.token_models import lumina_sequence
from tests.helpers import golden

WORDS = ["Ġred", "Ġapple", "Ġgreen", "pear", "Ċ"]


def snapshot(folder, state, config, shards=1, **files):
    """A directory of this state dict; `files` are others, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(model_type="chameleon") | config))
    names = [sorted(state)[i::shards] for i in range(shards)]
    index = {}
    for i, part in enumerate(names, 1):
        file = f"model-{i:05}-of-{shards:05}.safetensors"
        save_file({name: np.ascontiguousarray(state[name]) for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def of_golden(name, folder, **settings):
    return snapshot(folder, golden.weights(name), golden.spec(name)["config"], 2, **settings)


def vocabulary():
    """A tokenizer.json of bytes, a few words and all names that Lumina-mGPT's has."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    names = {lumina_sequence.name_of_code(k): 4 + k for k in range(lumina_sequence.CODES)}
    names |= lumina_sequence.NAMES
    for number in range(8706, 8868):
        names.setdefault(f"<reserved{number:05}>", number + 4)
    rest = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *WORDS]
    vocabulary = names | {word: 8872 + i for i, word in enumerate(rest)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    return tokenizer.to_str().encode()
