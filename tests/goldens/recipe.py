"""Deterministic weight recipe for the parity goldens (numpy only, self-contained).

Every tensor of an official checkpoint is a pure function of
    (seed, state_dict key, shape, rule)
so no weights are stored.  For the tensor named `key`:

    rng = numpy.random.default_rng([seed, zlib.crc32(key.encode())])
    x   = rng.standard_normal(shape).astype(float32)

and the rule (one string per key, written in the model's JSON) says what is made of x.
All arithmetic below is float32.

    norm            1 + 0.1 * x                     1-D scale of a normalisation layer
    var             1 + 0.1 * |x|                   running variances
    small           0.1 * x                         biases, running means, other 1-D tensors
    fan_in          x / sqrt(prod(shape[1:]))       torch-layout matrices and convolutions
    fan_in:G        G * x / sqrt(prod(shape[1:]))   same with a gain (ReLU networks)
    fan_in_last     x / sqrt(prod(shape[:-1]))      flax kernels (last axis = output)
    fan_in_last:G   with a gain
    fan_in_axes:N   x / sqrt(prod(shape[:N]))       flax multi-axis kernels (first N axes = input)
    fan_in_axes:N:G with a gain
    table:S         S * x                           embedding tables and codebooks
    abs:S           S * |x|                         non-negative heads (LPIPS)
    const:V         filled with the number V        counters, official zero buffers
    value           the list stored under "values"[key] in the JSON (tiny constant buffers)
    alias:KEY       the very tensor of KEY (tied weights)
"""

import json
import math
import zlib

import numpy as np


def normal(key, shape, seed):
    """The base standard-normal float32 draw of a key."""
    rng = np.random.default_rng([int(seed), zlib.crc32(key.encode())])
    return rng.standard_normal(tuple(shape)).astype(np.float32)


def fill(key, shape, rule, seed, dtype="float32", values=None):
    """One tensor by rule ('alias' is resolved by build())."""
    name, _, arg = rule.partition(":")
    shape = tuple(int(s) for s in shape)
    if name == "const":
        return np.full(shape, float(arg) if "float" in dtype else int(arg), dtype=dtype)
    if name == "value":
        return np.asarray(values[key], dtype=dtype).reshape(shape)
    x = normal(key, shape, seed)
    f = np.float32
    if name == "norm":
        y = f(1) + f(0.1) * x
    elif name == "var":
        y = f(1) + f(0.1) * np.abs(x)
    elif name == "small":
        y = f(0.1) * x
    elif name == "fan_in":
        y = x * f((float(arg) if arg else 1.0) / math.sqrt(math.prod(shape[1:])))
    elif name == "fan_in_last":
        y = x * f((float(arg) if arg else 1.0) / math.sqrt(math.prod(shape[:-1])))
    elif name == "fan_in_axes":
        axes, _, gain = arg.partition(":")
        y = x * f((float(gain) if gain else 1.0) / math.sqrt(math.prod(shape[: int(axes)])))
    elif name == "table":
        y = x * f(float(arg))
    elif name == "abs":
        y = np.abs(x) * f(float(arg))
    else:
        raise ValueError("unknown rule %r for %s" % (rule, key))
    return y.astype(dtype)


def build(spec):
    """state_dict (dict of numpy arrays, in file order) from a model JSON or its path.

    spec["keys"] is a list of [key, shape, dtype, rule]; spec["seed"] the seed.
    """
    if isinstance(spec, (str, bytes)) or hasattr(spec, "__fspath__"):
        with open(spec) as fh:
            spec = json.load(fh)
    out = {}
    for key, shape, dtype, rule in spec["keys"]:
        if rule.startswith("alias:"):
            out[key] = out[rule[6:]]
        else:
            out[key] = fill(key, shape, rule, spec["seed"], dtype, spec.get("values"))
    return out


def checksum(sd):
    """Sum and sum of squares (float64) over all tensors, and the number of elements."""
    s = q = 0.0
    n = 0
    for k in sd:
        a = sd[k].astype(np.float64)
        s += float(a.sum())
        q += float((a * a).sum())
        n += a.size
    return {"sum": s, "sumsq": q, "count": int(n)}


def nest(flat, sep="/"):
    """Nested dict from 'a/b/c' keys (flax checkpoints)."""
    tree = {}
    for k, v in flat.items():
        node = tree
        *head, last = k.split(sep)
        for h in head:
            node = node.setdefault(h, {})
        node[last] = v
    return tree


def image_u8(name, n, size, seed):
    """Test pictures, uint8 [n, 3, size, size]: coarse colour fields + local texture + noise."""
    rng = np.random.default_rng([int(seed), zlib.crc32(("image/" + name).encode())])
    out = np.zeros((n, 3, size, size), np.float64)
    for cells, amp in ((2, 60.0), (4, 50.0), (8, 40.0), (16, 30.0), (size, 12.0)):
        cells = min(cells, size)
        f = rng.standard_normal((n, 3, cells, cells)) * amp
        out += np.repeat(np.repeat(f, size // cells, 2), size // cells, 3)
    return np.clip(np.rint(out + 128.0), 0, 255).astype(np.uint8)
