"""What a compiled TPU program sends between slices, over the data center's network (DCN).

The compiler takes an exchange over several slices apart. Collectives within a slice, whose replica
groups number the chips of one slice, do what they can; what is left goes through the hosts by a
`send` and a `recv`, whose attributes name the kind of exchange and the slices.
"""

import re
from typing import NamedTuple

from maskgil_jax.planning import hlo
from maskgil_jax.planning.collectives import SENT
from maskgil_jax.planning.executions import executions

# The compiler's names, by those of collectives.SENT.
_KINDS = {
    "ALL_REDUCE": "all-reduce",
    "ALL_GATHER": "all-gather",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
    "ONE_TO_ONE": "collective-permute",
}


class Transfer(NamedTuple):
    """An exchange between slices.

    Attributes:
      kind: one of collectives.SENT.
      slices: that exchange with one another.
      sent_bytes: by each chip, in all executions; as in a ring of the slices.
      times: it is executed.
    """

    kind: str
    slices: int
    sent_bytes: float
    times: int


def transfers(program: hlo.Program) -> list[Transfer]:
    """All exchanges of a program between slices.

    Raises:
      ValueError: of a kind that is not known here.
    """
    every = []
    for instruction, times in executions(program):
        stated = _attributes(instruction)
        if instruction.opcode != "send" or "transfer_type" not in stated:
            continue
        name = stated["transfer_type"]
        if name not in _KINDS:
            raise ValueError(f"{instruction.name}: an exchange between slices of kind {name}")
        kind, slices = _KINDS[name], _count(stated["target"])
        nbytes = instruction.arrays[0][1]  # then its context and token
        if kind == "all-gather":  # what is sent is a part of the array, not all of it
            nbytes *= slices
        sent = SENT[kind](slices) * nbytes * times
        every.append(Transfer(kind, slices, sent, times))
    return every


def _attributes(instruction: hlo.Instruction) -> dict[str, str]:
    return dict(re.findall(r'_xla_megascale_(\w+)="([^"]*)"', instruction.attributes))


def _count(target: str) -> int:
    """The number of slices in `{1,2}x{0:3}` (slices x chips), where 0:3 is a range, both ends in.

    Raises:
      ValueError: it is written in another form.
    """
    match = re.match(r"\{([\d,:]+)\}x", target)
    if not match:
        raise ValueError(f"slices are written as {target!r}")
    ends = [[int(n) for n in part.split(":")] for part in match[1].split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)
