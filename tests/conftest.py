"""Every test runs on 8 virtual CPU devices, in float32 with exact products."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Commands that tests start as processes compile each program once for the whole suite.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "/tmp/maskgil_jax_tests_cache")

import jax

jax.config.update("jax_num_cpu_devices", 8)
