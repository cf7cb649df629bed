"""What an asynchronous exchange hides, and what it does not."""

import pytest

from maskgil_jax.planning import hlo, timeline
from tests.planning.test_collectives import read

BODY = """
  %s = (bf16[8]{0}, bf16[32]{0}) all-gather-start(%p), replica_groups={{0,1,2,3}}
  %work = bf16[8]{0} add(%p, %p)
  %d = bf16[32]{0} all-gather-done(%s)
"""
WAITED = "  %w = bf16[32]{0} all-gather(%p), replica_groups={{0,1,2,3}}\n"


def run(body, work, exchange):
    program = hlo.parse(f"ENTRY %main (p: bf16[8]) -> bf16[32] {{\n{body}}}\n")
    compute = lambda one: work if one.opcode == "add" else 0.0  # noqa: E731
    return timeline.run(program, 4, compute, lambda one: exchange)


@pytest.mark.parametrize("work, exchange, as_compiled", [(3, 2, 3), (2, 5, 5)])
def test_an_exchange_is_hidden_up_to_the_compute_between_its_start_and_end(
    work, exchange, as_compiled
):
    times = run(BODY, work, exchange)
    assert times == (work, exchange, as_compiled)
    assert times.nothing_overlapped == work + exchange
    assert times.all_hidden == max(work, exchange)


def test_what_has_no_start_of_its_own_is_waited_for():
    times = run(WAITED + "  %work = bf16[8]{0} add(%p, %p)\n", 3.0, 2.0)
    assert times.as_compiled == times.nothing_overlapped == 5


def test_exchanges_go_over_the_links_one_after_another():
    assert run(BODY.replace("  %work", WAITED + "  %work"), 3.0, 2.0).as_compiled == 4 + 3


def test_a_loop_takes_its_body_as_often_as_it_runs():
    inner = f"%body (p: bf16[8]) -> bf16[32] {{\n{BODY}}}\n"
    call = "  %c = bf16[32]{0} while(%p), condition=%none, body=%body, " + (
        'backend_config={"known_trip_count":{"n":"7"}}\n'
    )
    program = hlo.parse(inner + f"ENTRY %main (p: bf16[8]) -> bf16[32] {{\n{call}}}\n")
    compute = lambda one: 2.0 if one.opcode == "add" else 0.0  # noqa: E731
    assert timeline.run(program, 4, compute, lambda one: 5.0) == (14, 35, 35)


def test_the_compilers_asynchronous_fusion_hides_its_exchange_and_no_other():
    """Of three exchanges of 1 ms one goes on beside a kernel of 5 ms; the two others wait."""
    compute = lambda one: 5e-3 if one.name == "shard_map.287" else 0.0  # noqa: E731
    times = timeline.run(read("v5e_asynchronous.hlo"), 256, compute, lambda one: 1e-3)
    assert times.as_compiled == pytest.approx(5e-3 + 2e-3)
    assert times.nothing_overlapped == pytest.approx(5e-3 + 3e-3)
