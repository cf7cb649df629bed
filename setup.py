"""What pyproject.toml cannot say: configs/ is a part of the package that lies beside it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["maskgil_jax*"]), "maskgil_jax.configs"],
    package_dir={"maskgil_jax.configs": "configs"},
)
