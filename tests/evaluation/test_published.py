"""Published numbers: which stand beside a measurement, and why others do not."""

from maskgil_jax.evaluation import protocols, published

ADM = dict(
    protocol={"name": "adm"},
    samples={"count": 50_000},
    reference={"path": "/data/VIRTUAL_imagenet256_labeled.npz"},
    metrics={"fid": 4.0, "sfid": 6.0},
)


def test_each_row_is_of_a_known_protocol_and_says_where_it_stands():
    names = [
        (row.model, row.setting, row.of, row.resolution, row.source) for row in published.values()
    ]
    assert len(set(names)) == len(names) > 50
    for row in published.values():
        assert row.protocol in protocols.PROTOCOLS and bool(row.protocol) == bool(row.reference)
        assert row.metrics and row.source and row.of in ("samples", "reconstructions")
        assert all(isinstance(value, float) for value in row.metrics.values())


def test_rows_of_the_same_protocol_stand_beside_a_measurement():
    rows = {row["model"]: row for row in published.beside(ADM)["rows"]}
    assert rows["MaskGIL-XXL"]["fid"] == 3.71 and "inception_score" not in rows["MaskGIL-L"]
    assert "not verified" in rows["MaskGIL-XL"]["source"]
    assert "Halton-MaskGIT-B" not in rows  # its statistics are others


def test_what_does_not_fit_is_said_in_a_line():
    for changes, words in (
        (dict(protocol={"name": "none"}), "measured by protocol none"),
        (dict(samples={"count": 1000}), "1,000 samples; published numbers of adm are of 50,000"),
        (dict(reference={"path": "folder:PHOTOS"}), "compared with folder:PHOTOS"),
        (dict(reference="none"), "compared with none"),
        (dict(metrics={"kid": 0.1}), "none of the metrics"),
    ):
        found = published.beside(ADM | changes)
        assert words in found["none"] and "rows" not in found
        assert words in published.described(found)
