"""A plan as lines of text, which say of each number whether it was counted or estimated."""

from collections.abc import Mapping
from typing import Any

GIB = 2**30
BEST = 5  # settings of a search
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
        *_between_slices(plan),
        *_speed(plan),
        *_bound(plan),
        *_whole_training(plan),
        *_recipe(plan),
        *_searched(plan),
        *_unestimated(plan),
        *_costliest(plan),
        f"  compiled in           {plan['compile_seconds']:.1f} s, with the compiler's options "
        + (", ".join(f"{k}={v}" for k, v in plan["compiler_options"].items()) or "as they are"),
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
    if plan["kernels"]:
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


def _between_slices(plan: Plan) -> list[str]:
    """What the network of the data center carries."""
    return [
        f"  between {plan['slices']} slices      {kind} {exchange['bytes_sent'] / 1e9:.3f} GB sent "
        f"by a chip (counted), {exchange['seconds'] * 1e3:.1f} ms (estimated; hidden in nothing "
        f"but the last of the three figures), {exchange['times']} times"
        for kind, exchange in plan["dcn"].items()
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


def _bound(plan: Plan) -> list[str]:
    if "calibration" not in plan:
        return []
    shares = plan["calibration"]
    named = lambda of: ", ".join(f"{shape} {share:.3f}" for shape, share in of.items())  # noqa: E731
    text = [f"  products by themselves, share of the peak (estimated): {named(shares['plain'])}"]
    if "mfu_bound" in plan:
        text += [
            f"    the model's, {shares['covered']:.0%} of their FLOPs: {named(shares['model'])}",
            f"    together {shares['model_share']:.3f}; with the kernels and nothing else, MFU "
            f"{plan['mfu_bound']:.3f}: no program of these products and kernels is above that",
        ]
    return text


def _recipe(plan: Plan) -> list[str]:
    """The step of the config's own batch."""
    recipe = plan.get("recipe")
    if recipe is None:
        return []
    if "batch_size" not in recipe:
        return [f"  the config's batch    cannot be planned here: {recipe['refused']}"]
    text = f"  the config's batch    {recipe['batch_size']:,} images a step: "
    if "step_seconds" not in recipe:
        return [f"{text}{recipe['bytes_total'] / GIB:.2f} GiB, DOES NOT FIT"]
    steps = "/".join(f"{recipe[f'step_seconds{key}'] * 1e3:.1f}" for key in WAYS.values())
    shares = "/".join(f"{recipe[f'mfu{key}']:.3f}" for key in WAYS.values())
    return [
        f"{text}{recipe['bytes_total'] / GIB:.2f} GiB, {steps} ms, MFU {shares} "
        f"({', '.join(WAYS)}; estimated)"
    ]


def _searched(plan: Plan) -> list[str]:
    if "search" not in plan:
        return []
    tried = plan["search"]
    text = [f"  searched              {len(tried)} settings; the fastest as compiled (estimated):"]
    for one in tried[:BEST]:
        options = ",".join(one["compiler_options"]) or "none"
        speed = "DOES NOT FIT"
        if one["fits"]:
            speed = f"{one['images_per_second']:,.0f} images a second, MFU {one['mfu']:.3f}"
        text.append(
            f"    {one['batch_per_chip'] or 'the recipe'} a chip, fsdp {one['fsdp']}, remat "
            f"{one['remat'] or '-'}, options {options}: {speed}, "
            f"{one['bytes_total'] / GIB:.1f} GiB"
        )
    return text


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
