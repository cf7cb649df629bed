"""Audio files decoded to waveforms, and waveforms to the mel spectrograms of Whisper.

Letters: F frames of 10 ms, M mel bins.
"""

import functools
import io
import math
from types import ModuleType
from typing import Any

import numpy as np
from etils import epath

from maskgil_jax.data.sound import containers
from maskgil_jax.runtime import paths
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.regular_files import read_regular_file

RATE = 16_000  # samples per second of every waveform
LONGEST_SECONDS = 600  # longer files are refused by their header

WINDOW, HOP = 400, 160  # samples of a frame's Fourier transform, and from frame to frame
BLOCK = 1 << 16  # samples that are decoded at once
RATES = 1_000, 1_000_000  # samples a second that recordings may have
LOUDEST = 16.0  # 24 dB above full scale: what is above was not meant as floats
CANCELLED = 1e-3  # of the energy that independent channels leave in their mean


class UnreadableAudio(Unreadable):
    """The bytes are not audio that can be used."""


def decode(data: bytes) -> np.ndarray:
    """The waveform of an audio file, the mean of its channels.

    Where channels cancel each other, as those of a cable with swapped poles, the loudest is taken.

    Args:
      data: wav, flac, mp3, ogg or what else libsndfile reads, of any rate.

    Returns:
      float32 [samples], RATE a second, nominally in [-1, 1].

    Raises:
      UnreadableAudio: unknown, broken or truncated data, several files joined to one, no sound or
        more than LONGEST_SECONDS of it, or values that are not finite or above LOUDEST.
      InputError: soundfile or soxr is not installed.
    """
    _libraries()
    try:
        waveform = np.concatenate([_decoded(stream) for stream in containers.streams(data)])
    except ValueError as error:
        raise UnreadableAudio(str(error)) from None
    if not waveform.size:
        raise UnreadableAudio("0 s of audio")
    if not np.isfinite(waveform).all():
        raise UnreadableAudio("audio that is not finite")
    _check_seconds(len(waveform) / RATE)
    if (peak := np.abs(waveform).max()) > LOUDEST:
        raise UnreadableAudio(
            f"audio with a peak of {peak:,.0f}, expected floats within 1: integers that were not "
            "scaled?"
        )
    return waveform


def read_file(path: epath.PathLike) -> bytes:
    """The bytes of a recording, for `decode`.

    Raises:
      Unreadable: there is none, or something else than a regular file; does not say the name.
    """
    if not paths.is_remote(path):
        return read_regular_file(path)
    try:
        return epath.Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(str(error)) from None


def _decoded(data: bytes) -> np.ndarray:
    """The waveform of one stream."""
    soundfile, _ = _libraries()
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise UnreadableAudio(
                    f"{file.samplerate:,} samples a second, expected {RATES[0]:,} to {RATES[1]:,}"
                )
            _check_seconds(file.frames / file.samplerate)
            waveform, loudness, of_mix = _resampled(file, None)
            if of_mix < CANCELLED * loudness.mean() / len(loudness):
                file.seek(0)
                waveform, *_ = _resampled(file, int(loudness.argmax()))
            return waveform
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", error)
        raise UnreadableAudio(f"{len(data)} bytes that are not readable audio: {reason}") from None


def _resampled(file: Any, channel: int | None) -> tuple[np.ndarray, np.ndarray, float]:
    """A channel, or the mean of all, at RATE; the energies of all channels, and of that mean.

    Never all in memory at the file's own rate, whatever the header says.
    """
    _, soxr = _libraries()
    resampler = soxr.ResampleStream(file.samplerate, RATE, 1, dtype="float32")
    chunks, read = [], 0
    loudness, of_mix = np.zeros(file.channels), 0.0
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        read += len(block)
        mix = block.mean(axis=1)
        loudness += np.square(block, dtype=np.float64).sum(axis=0)
        of_mix += np.square(mix, dtype=np.float64).sum()
        mono = mix if channel is None else np.ascontiguousarray(block[:, channel])
        chunks.append(resampler.resample_chunk(mono))
    if read < file.frames:
        raise UnreadableAudio(f"truncated: {read} samples of {file.frames}")
    chunks.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(chunks), loudness, of_mix


def _check_seconds(seconds: float) -> None:
    if seconds > LONGEST_SECONDS:
        raise UnreadableAudio(f"{seconds:.0f} s of audio, expected {LONGEST_SECONDS} or less")


def log_mel(waveform: np.ndarray, seconds: float, bins: int = 80) -> np.ndarray:
    """Whisper's logarithmic mel spectrogram of a window.

    Args:
      waveform: floats [samples] at RATE; followed by silence up to the window's end, or cut there.
      seconds: of the window; whole hundredths. Whisper was trained on 30.
      bins: M.

    Returns:
      float32 [F, M], F = 100 seconds; at most 2 below its largest value.

    Raises:
      InputError: another shape, or a window that is shorter than a transform.

    Source: openai/whisper, audio.py, `log_mel_spectrogram`.
    """
    frames = round(100 * seconds)
    if np.ndim(waveform) != 1 or frames * HOP < WINDOW:
        raise InputError(
            f"a waveform {np.shape(waveform)} in a window of {seconds} s, expected [samples] and "
            f"{WINDOW / RATE} s or more"
        )
    samples = np.asarray(waveform[: frames * HOP], np.float32)
    samples = np.pad(samples, (0, frames * HOP - len(samples)))
    samples = np.pad(samples, WINDOW // 2, mode="reflect")
    windows_FW = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP][:frames]
    hann_W = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power_FN = np.abs(np.fft.rfft(windows_FW * hann_W)) ** 2
    log_FM = np.log10(np.maximum(power_FN @ mel_filters(bins), 1e-10))
    return ((np.maximum(log_FM, log_FM.max() - 8) + 4) / 4).astype(np.float32)


@functools.cache
def mel_filters(bins: int) -> np.ndarray:
    """Slaney's mel filters, triangles of equal area, of 0 to 8 kHz: float64 [N, M].

    Source: Slaney, Auditory Toolbox (1998), as in librosa.filters.mel.
    """
    # Linear up to 1 kHz, the 15th mel, then 27 mels to the factor 6.4.
    top = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    mels = np.linspace(0, top, bins + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hertz_N1 = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    rising, falling = (hertz_N1 - low) / (centre - low), (high - hertz_N1) / (high - centre)
    return np.maximum(np.minimum(rising, falling), 0) * 2 / (high - low)


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise InputError(
            f"reading audio needs {error.name}: pip install 'maskgil_jax[speech]'"
        ) from None
    return soundfile, soxr
