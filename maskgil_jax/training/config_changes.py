"""What two configs may differ in, of which one goes on with what was made under the other."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

# A run may be continued under another value of these; every other difference is refused.
MAY_CHANGE = (
    "steps",
    "log_every",
    "checkpoint_every",
    "pictures_every",
    "keep_checkpoints",
    "keep_every",
    "keep_every_epochs",
    "keep_steps",
    "skips_allowed",
    "tracker",
    "mesh",
    "compiler_options",
    "data.threads",
    "data.workers",
    "data.bad_image_limit",
    "samples",
    "evaluation",
)

# These too, in a config of several stages as well.
OF_A_START = ("trace", "compilation_cache")

# Fields that older runs do not have, and what they did.
ADDED = {
    "color": "ignore",
    "recordings": False,
    "resize": "exact",
    "tracker": "",
    "order": "raster",
    "autoregressive_share": 0.0,
    "split": "uniform",
    "rope_positions": "extended",
    "rope_grid": [],
    "slices": 0,
    "qk_norm": "",
    "post_norm": "",
    "rope": "",
    "condition_position": "",
    "condition_rope": "",
    "joint_embedding": "",
    "mask_logit": "",
    "distill_guidance": 1.0,
    "one_step": 0.0,
    "algorithm": "adamw",
}

# Fields that only older runs have, and the value that every run has now.
REMOVED = {
    "loss.reconstruction_weight": 1.0,
    "samples.guidance_power": 3.0,
    "samples.resample": False,
}


def differences(old: dict, new: dict) -> list[str]:
    """Lines `key: old -> new` for the fields in which two configs differ and must not."""
    return _lines(old, new, _free(new), "")


def _lines(old: dict, new: dict, free: set[str], prefix: str) -> list[str]:
    lines = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        field = re.sub(r"^stages\.\w+\.", "", name)
        if name in free or field in OF_A_START:
            continue
        before = old.get(key, ADDED.get(key, "(absent)"))
        after = new.get(key, REMOVED.get(field, "(absent)"))
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _lines(before, after, free, f"{name}.")
        elif before != after:
            lines.append(f"{name}: {before} -> {after}")
    return lines


def identity(config: ConfigDict) -> str:
    """12 hex digits of all that what a stage leaves depends on; `steps` counts, though it may grow.

    Args:
      config: of one stage.
    """
    values = json.loads(config.to_json_best_effort())
    content = _deciding(values, _free(values) - {"steps"}, "")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _free(config: Mapping[str, Any]) -> set[str]:
    """The fields of a stage under other values of which its run may go on.

    Its `samples` are not among them where guidance is learned: the teacher is guided as they say.
    """
    learned = config.get("loss", {}).get("distill_guidance", 1.0) != 1
    return {*MAY_CHANGE, *OF_A_START} - ({"samples"} if learned else set())


def _deciding(values: Mapping[str, Any], free: set[str], prefix: str) -> dict[str, Any]:
    """The fields that are not free."""
    return {
        name: _deciding(value, free, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in values.items()
        if f"{prefix}{name}" not in free
    }
