"""CLIP of the smallest size: transformers' network of random weights, and a snapshot of it."""

import functools
import json

import pytest
from tokenizers import pre_tokenizers

transformers = pytest.importorskip("transformers", reason="needs the extra [test]")

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>"), ("o", "n"), ("on", "e</w>")]
TEXT = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
VISION = dict(hidden_size=48, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3)


@functools.cache
def pieces():
    """The ids of a vocabulary: single bytes, those that end a word, what MERGES make, two signs."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [a + b for a, b in MERGES]
    names = [*letters, *(f"{letter}</w>" for letter in letters), *merged, START, END]
    return {name: i for i, name in enumerate(names)}


def official(**changes):
    """Transformers' network; every weight is random."""
    import torch

    torch.manual_seed(0)
    size, ids = changes.pop("image_size", 32), pieces()
    text = dict(
        TEXT,
        vocab_size=len(ids),
        max_position_embeddings=20,
        bos_token_id=ids[START],
        eos_token_id=changes.pop("end", ids[END]),
    )
    config = transformers.CLIPConfig(
        text_config=text | changes,
        vision_config=VISION | dict(image_size=size, patch_size=8) | changes,
        projection_dim=24,
    )
    model = transformers.CLIPModel(config)
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            parameter.data += 0.1 * torch.randn(parameter.shape)
    model.set_attn_implementation("eager")
    return model.eval()


def tokenizer():
    """Transformers' tokenizer of the vocabulary."""
    return transformers.CLIPTokenizer(pieces(), list(MERGES))


def processor(side=32):
    """Transformers' preparation of images."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )


def snapshot(folder, model=None):
    """A directory as one downloads it."""
    model = model or official()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    processor(model.config.vision_config.image_size).save_pretrained(folder)
    return folder


def old_pieces(folder):
    """In the place of tokenizer.json, the two files that older snapshots have."""
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(pieces()))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
