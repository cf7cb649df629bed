"""From the bytes of an audio file to a waveform, and from it to what Whisper hears.

Letters: F frames of 10 ms, M mel bins.
"""

import functools
import io
import math
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from maskgil_jax.errors import InputError, Unreadable

RATE = 16_000  # samples per second of every waveform
LONGEST_SECONDS = 600  # longer files are refused by their header

WINDOW, HOP = 400, 160  # samples of a frame's Fourier transform, and from frame to frame
BLOCK = 1 << 16  # samples that are decoded at once
ENDLESS = 0x7FFF0000  # from here on: what writers of streams say, who do not know the size


class UnreadableAudio(Unreadable):
    """The bytes are not audio that can be used."""


def decode(data: bytes) -> np.ndarray:
    """The waveform of an audio file, the mean of its channels.

    Args:
      data: wav, flac, mp3, ogg or what else libsndfile reads, of any rate.

    Returns:
      float32 [samples], RATE a second, nominally in [-1, 1].

    Raises:
      UnreadableAudio: unknown, broken or truncated data, no sound or more than LONGEST_SECONDS of
        it, or values that are not finite.
      InputError: soundfile or soxr is not installed.
    """
    soundfile, soxr = _libraries()
    _check_whole(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            seconds = file.frames / file.samplerate
            if seconds > LONGEST_SECONDS:
                raise UnreadableAudio(
                    f"{seconds:.0f} s of audio, expected {LONGEST_SECONDS} or less"
                )
            resampler = soxr.ResampleStream(file.samplerate, RATE, 1, dtype="float32")
            parts = [resampler.resample_chunk(block) for block in _mono_blocks(file)]
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", error)
        raise UnreadableAudio(f"{len(data)} bytes that are not readable audio: {reason}") from None
    parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    waveform = np.concatenate(parts)
    if not waveform.size:
        raise UnreadableAudio("0 s of audio")
    if not np.isfinite(waveform).all():
        raise UnreadableAudio("audio that is not finite")
    return waveform


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


def _mono_blocks(file: Any) -> Iterator[np.ndarray]:
    """All samples, float32 [n] at a time: never in memory as a whole, whatever the header says."""
    read = 0
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        read += len(block)
        yield block.mean(axis=1)
    if read < file.frames:
        raise UnreadableAudio(f"truncated: {read} samples of {file.frames}")


def _check_whole(data: bytes) -> None:
    """Refuse what libsndfile would read up to where it is cut."""
    kind = data[:4]
    if kind in (b"RIFF", b"FORM") and len(data) >= 8:  # wav and aiff say their size
        (size,) = struct.unpack("<I" if kind == b"RIFF" else ">I", data[4:8])
        if len(data) + 1 < size + 8 and size < ENDLESS:  # some leave the last byte of padding out
            raise UnreadableAudio(f"truncated: {len(data)} bytes of {size + 8}")
    if kind == b"OggS" and not _ends(data, data.rfind(b"OggS")):
        raise UnreadableAudio(f"truncated: {len(data)} bytes of Ogg without its last page")


def _ends(data: bytes, page: int) -> bool:
    """Whether an Ogg stream's page that starts here is its last, and whole (RFC 3533, 6)."""
    header = data[page : page + 27]
    if len(header) < 27 or not header[5] & 4:
        return False
    segments = data[page + 27 : page + 27 + header[26]]
    return len(segments) == header[26] and len(data) >= page + 27 + header[26] + sum(segments)
