"""Sounds, and their files."""

import io

import numpy as np


def sound(rate, seconds=2.0):
    """Tones below 3 kHz that swell, so that every rate can hold them: float32 [samples]."""
    t = np.arange(int(rate * seconds)) / rate
    tones = sum(np.sin(2 * np.pi * hertz * t) / (i + 2) for i, hertz in enumerate((220, 900, 2500)))
    return (0.4 * tones * np.sin(np.pi * t / seconds)).astype(np.float32)


def written(waveform, rate, kind, subtype=None):
    """The bytes of a file."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=kind, subtype=subtype)
    return file.getvalue()
