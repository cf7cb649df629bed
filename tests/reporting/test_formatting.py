"""JSON values as text."""

from maskgil_jax.reporting import formatting


def test_numbers_are_short():
    values = [0.123456, 13164.2, 2e12, 16384, True, None, float("nan"), [1, 2.5], {"a": 1}]
    expected = ["0.1235", "13,164", "2e+12", "16,384", "yes", "–", "nan", "1, 2.5", "a 1"]
    assert [formatting.text(value) for value in values] == expected
