"""Which file goes with an image: of features and of recordings."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from maskgil_jax.conditioning import choice
from maskgil_jax.data import sources
from maskgil_jax.data.companions.features import FeatureFiles
from maskgil_jax.data.companions.pairing import Images, Naming
from maskgil_jax.data.companions.recordings import Recordings, find
from maskgil_jax.data.shards import code_records, shard_reader
from maskgil_jax.runtime.errors import InputError, Unreadable
from tests.helpers import tiny, tiny_shards


def png():
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "PNG")
    return file.getvalue()


def folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png())
    return f"folder:{path}"


def tar(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(png())
            archive.addfile(member, io.BytesIO(png()))


def code_shards(path, source, ids):
    """A directory of code shards of a source, without a tokenizer."""
    codes = np.zeros((1, 2, 2), np.uint16)
    records = [code_records.CodeRecord(codes, 0, image, (16, 16)) for image in ids]
    source = {"name": source, "images": len(ids)}
    fields = dict(source=source, image_size=4, grids=((2, 2),))
    return shard_reader.CodeShards(str(tiny_shards.write(path, records=[records], **fields)))


def images_of(*specs):
    return Images(specs, [sources.open_source(spec) for spec in specs])


def features(path, *names):
    """A file for each name, filled with the number of its place."""
    for number, name in enumerate(names):
        (path / f"{name}.npy").parent.mkdir(parents=True, exist_ok=True)
        np.save(path / f"{name}.npy", np.full((1, 2), number, np.float32))
    return path


def paired(path, images):
    """The number of the file of each image."""
    files = FeatureFiles(str(path), 1, 2, images)
    return [int(files[image].features[0, 0]) for image in images.ids()]


TWO = ("cat/0001.png", "dog/0001.png")


@pytest.mark.parametrize(
    "spec, image, names",
    [
        ("folder:/d", "/d/cat/0001.jpg", ["cat/0001", "0001"]),
        ("folder:/d/", "/d/cat/big/b.v2.JPEG", ["cat/big/b.v2", "b.v2"]),
        ("folder:/d", "/d/0001.jpg", ["0001"]),
        ("folder:/e", "/d/cat/0001.jpg", ["0001"]),
        ("tar:/t/{00..99}.tar", "/t/07.tar/0001.jpg", ["07/0001", "0001"]),
        ("tar:/t/*.tar", "/t/07.tar/cat/IMG 1.2.png", ["07/cat/IMG 1.2", "cat/IMG 1.2", "IMG 1.2"]),
        ("tar:/t/*.tar", "/t/07.tar/../../etc/x.png", ["x"]),
        ("tfds:a/b/train", "a/b/train[7]", ["a/b/train[7]", "train[7]"]),
        ("tfds:a/b[:1.5%]", "a/b[:1.5%][7]", ["a/b[:1.5%][7]", "b[:1.5%][7]"]),
        ("embedded", "digit 7", ["digit 7"]),
    ],
)
def test_the_names_of_an_image_begin_with_its_path_in_the_source(spec, image, names):
    assert Naming([spec]).of(image) == names


def test_files_go_with_images_by_their_path(tmp_path):
    images = images_of(folder(tmp_path / "images", *TWO))
    assert paired(features(tmp_path / "f", "cat/0001", "dog/0001"), images) == [0, 1]
    flat = images_of(folder(tmp_path / "others", "cat/1.png", "dog/2.png"))
    assert paired(features(tmp_path / "g", "1", "2"), flat) == [0, 1]
    # A file of the path counts before one of the name alone.
    assert paired(features(tmp_path / "h", "0001", "dog/0001", "cat/0001"), images) == [2, 1]


def test_a_file_that_fits_two_images_is_refused(tmp_path):
    images = images_of(folder(tmp_path / "images", *TWO))
    message = "features .*: 0001 fits two images, .*cat/0001.png and .*dog/0001.png: .*cat/0001 and"
    for number, names in enumerate((["0001"], ["0001", "dog/0001"], ["0001", "cat/0001"])):
        with pytest.raises(InputError, match=message):
            FeatureFiles(str(features(tmp_path / str(number), *names)), 1, 2, images)
    beside = images_of(folder(tmp_path / "beside", "cat/x.png", "cat/x.jpg"))
    with pytest.raises(InputError, match="cat/x fits two images, .*x.jpg and .*x.png"):
        FeatureFiles(str(features(tmp_path / "g", "cat/x")), 1, 2, beside)


def test_keys_that_are_in_two_shards_are_told_apart_by_the_shard(tmp_path):
    for shard in ("0", "1"):
        tar(tmp_path / f"{shard}.tar", "0001.png", "cat/0002.png")
    images = images_of(f"tar:{tmp_path}/*.tar")
    path = features(tmp_path / "f", "0/0001", "0/cat/0002", "1/0001", "1/cat/0002")
    assert paired(path, images) == [0, 1, 2, 3]
    with pytest.raises(
        InputError, match=" 0001 fits two images, .*0.tar/0001.png and .*1.tar/0001"
    ):
        FeatureFiles(str(features(tmp_path / "g", "0001", "cat/0002")), 1, 2, images)


def test_images_of_two_sources_are_told_apart(tmp_path):
    specs = folder(tmp_path / "a", *TWO), folder(tmp_path / "b", "cat/0001.png", "cat/2.png")
    path = features(tmp_path / "f", "cat/0001", "dog/0001", "cat/2")
    assert paired(path, images_of(specs[0])) == [0, 1]
    with pytest.raises(
        InputError, match="cat/0001 fits two images, .*a/cat/0001.png and .*b/cat/0001"
    ):
        paired(path, images_of(*specs))
    # The same images twice, as with two weights, are the same.
    assert paired(path, images_of(specs[0], specs[0])) == [0, 1, 0, 1]


def test_codes_are_paired_by_the_path_of_the_image_that_they_are_of(tmp_path):
    codes = code_shards(tmp_path / "codes", "folder:/gone", [f"/gone/{name}" for name in TWO])
    images = Images([codes.index.source["name"]], [codes])
    assert paired(features(tmp_path / "f", "cat/0001", "dog/0001"), images) == [0, 1]
    with pytest.raises(InputError, match=" 0001 fits two images, /gone/cat/0001.png and /gone/dog"):
        paired(features(tmp_path / "g", "0001"), images)


def test_a_run_is_refused_before_it_trains(tmp_path):
    config = tiny.generator()
    config.data.features = str(features(tmp_path / "f", "0001"))
    config.model.update(num_classes=0, feature_dim=2)
    images = images_of(folder(tmp_path / "images", *TWO))
    with pytest.raises(InputError, match=r"config.data.features.*: 0001 fits two images"):
        choice.of_config(config, ("cat", "dog"), images, [(4, 4)])


def test_a_missing_file_is_named_in_all_its_ways(tmp_path):
    images = images_of(folder(tmp_path / "images", *TWO))
    files = FeatureFiles(str(features(tmp_path / "f", "cat/0001")), 1, 2, images)
    with pytest.raises(Unreadable, match="there is no file dog/0001.npy or 0001.npy"):
        files[f"{tmp_path}/images/dog/0001.png"]


def recordings(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    return str(path)


def heard(found, images, label=0):
    rng = np.random.default_rng(0)
    return [found.read(image, label, rng).decode() for image in images.ids()]


def test_recordings_go_with_images_by_their_path(tmp_path):
    images = images_of(folder(tmp_path / "images", *TWO))
    path = recordings(tmp_path / "r", "cat/0001.wav", "dog/0001.FLAC", "dog/._0001.wav")
    assert heard(Recordings(path, ("cat", "dog"), images), images) == [
        "cat/0001.wav",
        "dog/0001.FLAC",
    ]
    path = recordings(tmp_path / "flat", "0001.wav")
    with pytest.raises(InputError, match=" 0001 fits two images, .*cat/0001"):
        Recordings(path, ("cat", "dog"), images)


def test_two_recordings_of_one_name_are_refused(tmp_path):
    path = recordings(tmp_path / "r", "0001.wav", "0001.flac")
    with pytest.raises(InputError, match="0001.flac and 0001.wav are both of the name 0001"):
        Recordings(path, ("cat",))


def test_folders_of_recordings_are_classes_where_images_have_none_of_their_own(tmp_path):
    names = [f"{label}/{number:04}.png" for label in ("cat", "dog") for number in range(10)]
    images = images_of(folder(tmp_path / "images", *names))
    path = recordings(tmp_path / "r", "cat/0001.wav", "dog/a.wav", "dog/a.mp3", ".git/x.wav")
    found = Recordings(path, ("cat", "dog"), images)
    assert set(heard(found, images)) == {"cat/0001.wav"}
    assert set(heard(found, images, 1)) == {"dog/a.wav", "dog/a.mp3"}


def test_recordings_that_are_not_used_are_counted(tmp_path, caplog):
    recordings(tmp_path, "a.wav", "dog/b.wav", "dog/deep/c.wav", "@eaDir/d.wav")
    assert [path.name for path, _ in find(str(tmp_path))] == ["a.wav"]
    assert "2 recordings in sub-folders are not used, since 1 lie" in caplog.text
    (tmp_path / "a.wav").unlink()
    assert [(path.name, label) for path, label in find(str(tmp_path))] == [
        ("b.wav", "dog"),
        ("c.wav", "dog"),
    ]
