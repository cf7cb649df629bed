"""A plan as lines of text, which say of each number whether it was counted or estimated."""

from collections.abc import Mapping
from typing import Any

GIB = 2**30
SMALL = 1e8  # bytes; instructions without an estimate that move less are scalars

Plan = Mapping[str, Any]
# How exchanges go beside compute, and the ends of the names of what is estimated so.
WAYS = {
    "nothing overlapped": "_nothing_overlapped",
    "as compiled": "",
    "all exchanges hidden": "_all_hidden",
}


def lines(plan: Plan) -> list[str]:
    """A plan of `plans.make_plans` in lines, the most important first."""
    text = _size(plan)
    if "step_seconds" not in plan:
        return text
    return [
        *text,
        *_memory(plan),
        *_compute(plan),
        *_collectives(plan),
        *_speed(plan),
        *_whole_training(plan),
        *_unestimated(plan),
        *_costliest(plan),
        f"  compiled in {plan['compile_seconds']:.1f} s",
        *_sampler(plan),
    ]


def _size(plan: Plan) -> list[str]:
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan["mesh"].items())
    fits = plan["fits"]
    return [
        f"{plan['config']} on {plan['topology']}: {plan['chips']} chips ({mesh}), "
        f"{plan['batch_size']:,} images a step",
        f"  parameters            {plan['parameters']:,} (counted)",
        f"  memory of a chip      {plan['bytes_total'] / GIB:.2f} GiB reserved, "
        + ("fits, " if fits else "DOES NOT FIT, ")
        + f"{abs(plan['bytes_free']) / GIB:.2f} GiB {'free' if fits else 'too much'}",
    ]


def _memory(plan: Plan) -> list[str]:
    return [f"    {name:19} {size / GIB:.2f} GiB" for name, size in plan["bytes"].items()]


def _compute(plan: Plan) -> list[str]:
    text = [
        f"  model FLOPs           {plan['model_flops_per_step']:.4g} a step (counted)",
        f"  hardware FLOPs        {plan['hardware_flops_per_step']:.4g} a step (counted)",
        f"  compute               {plan['compute_seconds'] * 1e3:.1f} ms (estimated: "
        f"{plan['estimated_cycles']:,} cycles)",
    ]
    if plan["kernel_seconds"]:
        text.append(
            f"    kernels             {plan['kernel_seconds'] * 1e3:.1f} ms of it (estimated by "
            "what is counted in them, the compiler has no estimate):"
        )
    for kernel in plan["kernels"]:
        text.append(
            f"      {kernel['seconds'] * 1e3:7.2f} ms x{kernel['times']:<4} {kernel['flops']:.3g} "
            f"FLOPs, {kernel['vectors']:.3g} vector operations, {kernel['exponentials']:.3g} "
            f"exponentials, {kernel['hbm_bytes'] / 1e9:.2f} GB  {kernel['source'][-60:]}"
        )
    return text


def _links(plan: Plan) -> list[str]:
    """Where the mesh lies on the torus."""
    text = []
    for axis, laid in plan["links"].items():
        lines = [
            f"{line['axis']} ({'ring' if line['ring'] else 'line'} of {line['chips']}"
            + (f", every {line['stride']}th chip)" if line["stride"] > 1 else ")")
            for line in laid["torus"]
        ]
        where = " and ".join(lines) or "chips that are no box of the torus: one link is assumed"
        text.append(
            f"    {axis:19} on {where}, {laid['bytes_per_second'] / 1e9:.0f} GB/s (assumed)"
        )
    return text


def _collectives(plan: Plan) -> list[str]:
    every = f"  exchanges             {plan['collective_seconds'] * 1e3:.1f} ms (estimated)"
    return [every, *_links(plan)] + [
        f"    {kind:19} {exchange['bytes_sent'] / 1e9:.3f} GB sent by a chip (counted), "
        f"{exchange['seconds'] * 1e3:.1f} ms (estimated), {exchange['times']} times, "
        f"{exchange['asynchronous']} of them asynchronous"
        for kind, exchange in plan["collectives"].items()
    ]


def _speed(plan: Plan) -> list[str]:
    return [
        *(
            f"  {name:21} {plan[f'step_seconds{key}'] * 1e3:.1f} ms a step, "
            f"MFU {plan[f'mfu{key}']:.3f} (estimated)"
            for name, key in WAYS.items()
        ),
        f"  speed                 {plan['tokens_per_second']:,.0f} image tokens, "
        f"{plan['images_per_second']:,.1f} images a second (estimated)",
    ]


def _whole_training(plan: Plan) -> list[str]:
    if "training_days" not in plan:
        return []
    return [
        f"  the config's training {plan['steps']:,} steps: {plan['training_days']:.2f} days, "
        f"{plan['chip_hours']:,.0f} chip hours (estimated)"
    ]


def _unestimated(plan: Plan) -> list[str]:
    return [
        f"  without an estimate   {name}: {work['times']} times, {work['bytes'] / 1e9:.2f} GB"
        for name, work in plan["unestimated"].items()
        if work["bytes"] > SMALL
    ]


def _costliest(plan: Plan) -> list[str]:
    return ["  costliest (estimated):"] + [
        f"    {cost['seconds'] * 1e3:7.2f} ms {cost['share']:6.1%} x{cost['times']:<4} "
        f"{cost['result'][:44]:44} {cost['source'][-70:]}"
        + (" (kernel, our estimate)" if cost["is_kernel"] else "")
        for cost in plan["costliest"]
    ]


def _sampler(plan: Plan) -> list[str]:
    if "sampler" not in plan:
        return []
    sampler = plan["sampler"]
    chips = sampler["chips"]
    name = "sampler, one chip" if chips == 1 else f"sampler, {chips} chips"
    more = ", DOES NOT FIT"
    if sampler["fits"]:
        more = f", {sampler['step_seconds'] * 1e3:.1f} ms (estimated)"
    return [
        f"  {name:21} {sampler['batch_size']} images, {sampler['bytes_total'] / GIB:.2f} GiB{more}",
        *(
            f"    {batch} images{'':{11 - len(str(batch))}} {size / GIB:.2f} GiB, DO NOT FIT"
            for batch, size in sampler["refused"].items()
        ),
    ]
