"""How Orbax writes arrays: checkpoints and model directories share this."""

from orbax.checkpoint import v1 as ocp

# Bytes of a shard from which on its replicas share the work of writing it. Orbax cuts a slice for
# each replica by a compiled program, one for each shape and replica: 192 of them, a quarter of all
# compilation, in a short run on 8 devices. Below this size one replica writes faster than that.
LEAST_SHARED = 2**24


def orbax_context() -> ocp.Context:
    """The options with which every array is written; use as a context manager, or pass it on."""
    context = ocp.Context()
    context.array.saving.min_slice_bytes_for_replica_parallel = LEAST_SHARED
    return context
