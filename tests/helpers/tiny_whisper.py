"""Whisper of the smallest size, and the same network of transformers."""

import pytest
import torch

from maskgil_jax.models.encoders.whisper import WhisperConfig

transformers = pytest.importorskip("transformers", reason="needs the extra [test]")

TINY = WhisperConfig(
    dim=64,
    heads=4,
    mlp_dim=96,
    encoder_layers=2,
    decoder_layers=3,
    mel_bins=20,
    vocabulary=50,
    speech_positions=30,
    text_positions=24,
    suppressed=(4, 5, 6, 7, 35),
    suppressed_first=(9, 10, 11, 12, 32),
)
START, NO_TIMES, END = 1, 49, 32  # ids above that of no times are times


def torch_model(config, state):
    """Transformers' Whisper of these sizes with these weights."""
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            d_model=config.dim,
            encoder_attention_heads=config.heads,
            decoder_attention_heads=config.heads,
            encoder_ffn_dim=config.mlp_dim,
            decoder_ffn_dim=config.mlp_dim,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            num_mel_bins=config.mel_bins,
            vocab_size=config.vocabulary,
            max_source_positions=config.speech_positions,
            max_target_positions=config.text_positions,
            decoder_start_token_id=START,
            pad_token_id=END,
            bos_token_id=END,
            eos_token_id=END,
        )
    )
    tensors = {name: torch.tensor(x) for name, x in state.items()}
    misfits = model.load_state_dict(tensors, strict=False)
    assert misfits.missing_keys == ["proj_out.weight"] and not misfits.unexpected_keys  # tied
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=START,
        no_timestamps_token_id=NO_TIMES,
        pad_token_id=END,
        bos_token_id=END,
        eos_token_id=END,
        suppress_tokens=list(config.suppressed),
        begin_suppress_tokens=list(config.suppressed_first),
        max_length=config.text_positions,
        is_multilingual=False,
        return_timestamps=False,
    )
    return model.eval()
