"""A plan in lines."""

from maskgil_jax.planning import plan_text

SIZE = {
    **{"config": "configs/b.py", "topology": "v5e:2x2", "chips": 4, "batch_size": 1024},
    **{"mesh": {"data": 2, "fsdp": 2, "tensor": 1}, "parameters": 110910720},
}
TIMES = {
    **{"fits": True, "bytes_total": 3 * 2**30, "bytes_free": 2**30, "bytes": {"output": 2**30}},
    **{"model_flops_per_step": 1e12, "hardware_flops_per_step": 2e12, "estimated_cycles": 12345},
    **{"compute_seconds": 0.25, "kernel_seconds": 0.0, "kernels": [], "collective_seconds": 0.25},
    **{
        "step_seconds_nothing_overlapped": 0.5,
        "step_seconds": 0.4,
        "step_seconds_all_hidden": 0.25,
    },
    **{"mfu_nothing_overlapped": 0.25, "mfu": 0.313, "mfu_all_hidden": 0.5, "steps": 1000},
    "collectives": {
        "all-reduce": {"bytes_sent": 2e9, "seconds": 0.25, "times": 7, "asynchronous": 3}
    },
    "links": {
        "data": {
            "torus": [{"axis": "x", "chips": 2, "ring": False, "stride": 2}],
            "bytes_per_second": 45e9,
        },
        "fsdp": {"torus": [], "bytes_per_second": 45e9},
    },
    **{"slices": 1, "dcn": {}},
    **{"tokens_per_second": 4096.0, "images_per_second": 16.0},
    **{"training_days": 1.5, "chip_hours": 144.0, "compile_seconds": 9.0, "costliest": []},
    "calibration": {
        **{"plain": {"4096x4096x4096": 0.96}, "model": {"8x4x2": 0.5}},
        **{"model_share": 0.75, "covered": 0.9, "products_seconds": 0.1},
    },
    **{"mfu_bound": 0.625, "compiler_options": {"xla_some_option": "1"}},
    "recipe": {
        **{"batch_size": 256, "bytes_total": 2**30, "mfu_nothing_overlapped": 0.1, "mfu": 0.125},
        **{"mfu_all_hidden": 0.2, "step_seconds_nothing_overlapped": 0.05, "step_seconds": 0.04},
        "step_seconds_all_hidden": 0.025,
    },
    "search": [
        {
            **{"compiler_options": ["a=1"], "batch_per_chip": 8, "fsdp": 4, "remat": "full"},
            **{"fits": True, "bytes_total": 2**30, "images_per_second": 99.0, "mfu": 0.313},
        },
        {
            **{"compiler_options": [], "batch_per_chip": 16, "fsdp": 4, "remat": "none"},
            **{"fits": False, "bytes_total": 2**34},
        },
    ],
    "unestimated": {"sort": {"times": 3, "bytes": 2e9}, "add": {"times": 1, "bytes": 4}},
    "sampler": {
        **{"fits": True, "chips": 1, "batch_size": 8, "bytes_total": 2**30},
        "step_seconds": 0.125,
        "refused": {64: 5 * 2**30},
    },
}


def test_numbers_say_whether_they_were_counted_or_estimated():
    text = "\n".join(plan_text.lines(SIZE | TIMES))
    for words in (
        "configs/b.py on v5e:2x2: 4 chips (data 2 x fsdp 2 x tensor 1), 1,024 images a step",
        "110,910,720 (counted)",
        "3.00 GiB reserved, fits, 1.00 GiB free",
        "250.0 ms (estimated: 12,345 cycles)",
        "2.000 GB sent by a chip (counted), 250.0 ms (estimated), 7 times, 3 of them asynchronous",
        "data                on x (line of 2, every 2th chip), 45 GB/s (assumed)",
        "fsdp                on chips that are no box of the torus: one link is assumed",
        "nothing overlapped    500.0 ms a step, MFU 0.250 (estimated)",
        "as compiled           400.0 ms a step, MFU 0.313 (estimated)",
        "all exchanges hidden  250.0 ms a step, MFU 0.500 (estimated)",
        "share of the peak (estimated): 4096x4096x4096 0.960",
        "the model's, 90% of their FLOPs: 8x4x2 0.500",
        "together 0.750; with the kernels and nothing else, MFU 0.625",
        "the config's batch    256 images a step: 1.00 GiB, 50.0/40.0/25.0 ms, "
        "MFU 0.100/0.125/0.200 (nothing overlapped, as compiled, all exchanges hidden",
        "8 a chip, fsdp 4, remat full, options a=1: 99 images a second, MFU 0.313, 1.0 GiB",
        "16 a chip, fsdp 4, remat none, options none: DOES NOT FIT, 16.0 GiB",
        "with the compiler's options xla_some_option=1",
        "1,000 steps: 1.50 days, 144 chip hours (estimated)",
        "sort: 3 times, 2.00 GB",
        "sampler, one chip     8 images, 1.00 GiB, 125.0 ms (estimated)",
        "64 images          5.00 GiB, DO NOT FIT",
    ):
        assert words in text, words
    assert "add:" not in text and "    kernels  " not in text and "slices" not in text


def test_of_several_slices_it_says_what_their_network_carries():
    exchange = {"bytes_sent": 3e9, "seconds": 0.5, "times": 2}
    text = plan_text.lines(SIZE | TIMES | {"slices": 2, "dcn": {"all-reduce": exchange}})
    (line,) = [line for line in text if "slices" in line]
    assert line.startswith("  between 2 slices      all-reduce 3.000 GB sent by a chip (counted)")
    assert "500.0 ms (estimated" in line


def test_of_a_program_that_does_not_fit_the_missing_memory_is_the_last_line():
    refused = SIZE | {"fits": False, "bytes_total": 5 * 2**30, "bytes_free": -(2**30)}
    assert plan_text.lines(refused)[-1].endswith(
        "5.00 GiB reserved, DOES NOT FIT, 1.00 GiB too much"
    )
