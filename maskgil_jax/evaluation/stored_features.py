"""Features and statistics that are read from files, instead of computed from images.

Letters: N images, D features.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from maskgil_jax.evaluation import annotations, image_sets
from maskgil_jax.evaluation.feature_networks import INCEPTION, OF_INCEPTION
from maskgil_jax.evaluation.feature_sets import STATISTICS, Blocks, FeatureSet
from maskgil_jax.metrics import frechet
from maskgil_jax.metrics.frechet import Gaussian
from maskgil_jax.runtime import npz
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import check_object, parse_json


def is_features(path: str) -> bool:
    """Whether a file is an npz of features or of statistics, and not of images."""
    if not path.endswith(".npz"):
        return False
    names = npz.names_of_arrays(path)
    return "arr_0" not in names and bool({*OF_INCEPTION, "features", "mu"} & {*names})


def read_features(path: str) -> FeatureSet:
    """Features that something else computed, or maskgil_jax.features.

    Args:
      path: npz with `network` (the name that numbers of them carry) and `features`, float [N, D],
        or for Inception's `pool`, `spatial`, `logits`; with `labels` [N] if they are known. Or of
        statistics alone: `mu`, `sigma` (`mu_s`, `sigma_s`), with `count`.

    Raises:
      InputError: something else, or values that are not finite.
    """
    arrays = npz.read_arrays(path)
    features = {name: arrays[name] for name in (*OF_INCEPTION, "features") if name in arrays}
    network = _network_of(path, arrays)
    count = _checked_count(path, features, arrays.get("count"))
    means = [name for name in STATISTICS if (name == "features") == (network != INCEPTION)]
    about: dict[str, Any] = {
        "path": path,
        "what": "features" if features else "mean and covariance alone",
        "count": count or "not said in the file",
        "network": network,
        "sha256": image_sets.sha256_of(path),
    }
    if "about" in arrays and (origin := _origin(path, arrays["about"])):
        about["of"] = origin
    return FeatureSet(
        path,
        about,
        count,
        {name: _once(values) for name, values in features.items()},
        labels=annotations.labels_of(path, arrays, count) if features else None,
        stored=_statistics(path, arrays, means),
        network=network,
    )


def _network_of(path: str, arrays: Mapping[str, np.ndarray]) -> str:
    """What computed the features of a file; InputError where it has to say so and does not."""
    default = "" if "features" in arrays else INCEPTION
    network = annotations.text(path, "network", arrays.get("network", np.array(default)))
    if not network:
        raise InputError(
            f"{path} has `features` but no `network`: expected the name of what computed them, "
            "which the numbers will carry"
        )
    return network


def _checked_count(path: str, features: Mapping[str, np.ndarray], stated: np.ndarray | None) -> int:
    """How many images features are of; 0 where a file of statistics does not say it.

    Args:
      path: of the file.
      features: by name.
      stated: `count` of the file, or None.

    Raises:
      InputError: features that are not finite floats [N, D] of one N, or of another count.
    """
    rows = {len(values) if values.ndim else 0 for values in features.values()}
    for name, values in features.items():
        if values.ndim != 2 or values.dtype.kind != "f" or len(rows) > 1 or 0 in values.shape:
            raise InputError(
                f"{path}: {name} is {values.dtype} {values.shape}, expected floats [N, D], one N"
            )
        if bad := int((~np.isfinite(values).all(axis=1)).sum()):
            raise InputError(f"{path}: {bad} of {len(values)} rows of {name} are not finite")
    count = rows.pop() if rows else 0
    if stated is None:
        return count
    number = annotations.number(path, "count", stated, least=2)
    if features and number != count:
        raise InputError(f"{path}: count = {number}, but there are {count} rows of features")
    return number


def _origin(path: str, about: np.ndarray) -> dict[str, Any]:
    """What maskgil_jax.features says of its file; InputError where it is something else."""
    where = f"{path}: about"
    text = annotations.text(path, "about", about)
    origin = parse_json(text.encode(errors="replace"), where)
    check_object(origin, {}, where)
    networks = origin.get("features", [])
    if not isinstance(networks, list) or not all(isinstance(name, str) for name in networks):
        raise InputError(f"{where}: field 'features' is no list of texts")
    return origin


def statistics_of(path: str) -> dict[str, Gaussian]:
    """Statistics of Inception's features that came with the images of a file F.npz, if any did."""
    if not path.endswith(".npz"):
        return {}
    only = [name for pair in STATISTICS.values() for name in pair]
    return _statistics(path, npz.read_arrays(path, only), OF_INCEPTION)


def _statistics(
    path: str, arrays: Mapping[str, np.ndarray], features: Iterable[str]
) -> dict[str, Gaussian]:
    """Means and covariances of these features among arrays; InputError where they are none."""
    gaussians = {}
    for name in features:
        keys = STATISTICS.get(name, ("", ""))
        mean, covariance = (arrays.get(key) for key in keys)
        if mean is None and covariance is None:
            continue
        if mean is None or covariance is None:
            missing, held = keys if mean is None else keys[::-1]
            raise InputError(f"{path} holds {held} but no {missing}: expected [D] and [D, D]")
        gaussians[name] = Gaussian(mean, covariance)
        try:
            frechet.check_gaussian(gaussians[name], *keys)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
    return gaussians


def _once(values: np.ndarray) -> Blocks:
    return lambda: [values]
