"""The clusters' tools as stand-ins, for the tests of all scripts."""

import pytest

from tests.helpers.cluster_tools import Tools


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path)
