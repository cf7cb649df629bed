"""Runs of a family: each is trained once, in a directory of its own, and read from then on."""

import json
import logging
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from maskgil_jax.data.shards import shard_index
from maskgil_jax.runtime.errors import InputError
from maskgil_jax.runtime.files import read_json
from maskgil_jax.training.config_changes import differences
from maskgil_jax.training.writer import read_log
from maskgil_jax.workflows.run import run_stages

log = logging.getLogger("maskgil_jax")


class Run(NamedTuple):
    """A stage, and where it is run.

    Attributes:
      name: among the others.
      config: of one stage.
      directory: its work directory.
    """

    name: str
    config: ConfigDict
    directory: epath.Path

    def is_finished(self) -> bool:
        """Whether all of it is there: the codes, or a model that is trained for all its steps."""
        if self.config.stage == "codes":
            found = shard_index.read_index(self.directory)
            return found is not None and bool(found[1].get("complete", True))
        return self.steps_done >= self.config.steps and self.model_is_there

    @property
    def model_is_there(self) -> bool:
        """Whether training has ended once."""
        return (self.directory / "model" / "model.json").exists()

    @property
    def steps_done(self) -> int:
        """The last step that it has logged."""
        lines = read_log(self.directory)
        return int(lines[-1]["step"]) if lines else 0

    def check_directory(self) -> None:
        """Raise InputError where a run of another config, or of other steps, is in its place."""
        path = self.directory / "config.json"
        if not path.exists():
            return
        theirs = read_json(path, {})
        ours = json.loads(self.config.to_json_best_effort())
        lines = differences(theirs, ours)
        if theirs.get("steps") != ours.get("steps"):
            lines.append(f"steps: {theirs.get('steps')} -> {ours.get('steps')}")
        if lines:
            raise InputError(
                f"{self.directory} holds a run of another config; choose another workdir, or the "
                "same values:\n  " + "\n  ".join(lines)
            )

    def train(self) -> None:
        """Run it, or to its end, where it is not finished."""
        if self.is_finished():
            log.info("%s is finished, and read", self.name)
        else:
            run_stages(self.config, self.directory)
