"""Tests of the scripts of launch/."""
