"""Images and captions as COCO has them: one JSON file of captions, and a folder of images.

Source: cocodataset.org, "Data format": `images` (`id`, `file_name`) and `annotations` (`image_id`,
`caption`); annotations/captions_val2014.json beside the folder val2014.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maskgil_jax.data.records import captions
from maskgil_jax.data.records.census import Census
from maskgil_jax.data.records.file_names import printable
from maskgil_jax.data.records.image_records import Record, unusable
from maskgil_jax.runtime.errors import InputError, Unreadable
from maskgil_jax.runtime.files import check_object, parse_json
from maskgil_jax.runtime.regular_files import read_regular_file

LARGEST = 2**30  # bytes of the JSON file; that of 118,287 images has 92 million
# The prompts of FID-30K: so many images, drawn with this seed, and one caption of each.
PROMPTS, PROMPTS_SEED = 30_000, 0
_SPLIT = re.compile(r"captions_(.+)\.json")


class Listed(NamedTuple):
    """An image that the JSON file lists.

    Attributes:
      file_name: below the folder of images.
      texts: its captions, unchecked, in the order of their ids.
    """

    file_name: str
    texts: tuple[str, ...]


class CocoCaptions:
    """What a JSON file of captions says.

    Args:
      path: of the file.

    Attributes:
      listed: its images in the order of their ids.
      census: images and captions that cannot be used.

    Raises:
      InputError: it cannot be read, is cut off, or is of something else than captions of images.
    """

    def __init__(self, path: str):
        try:
            data = read_regular_file(path, LARGEST)
        except Unreadable as error:
            raise InputError(f"{printable(path)} {error}") from None
        content = parse_json(data, printable(path))
        check_object(content, {"images": list, "annotations": list}, printable(path))
        self.path, self.census = path, Census()
        names = self._names(content["images"])
        texts = self._texts(content["annotations"], names)
        self.listed = [Listed(names[i], texts.get(i, ())) for i in sorted(names)]
        if not self.listed:
            raise InputError(f"{printable(path)} lists no image that can be used")

    def _names(self, images: Sequence[Any]) -> dict[int, str]:
        """Names of files by the images' ids."""
        names: dict[int, str] = {}
        for place, image in enumerate(images):
            where = f"images[{place}] of {os.path.basename(self.path)}"
            number, name = _fields(image, "id", "file_name")
            if not _is_id(number) or not isinstance(name, str) or not name or "\0" in name:
                self.census.pass_over(where, "image without id and file_name", is_data=True)
                continue
            if os.path.isabs(name) or ".." in name.split("/"):
                raise InputError(f"{where} is {name!r}, expected a path below the folder of images")
            if names.setdefault(number, name) != name:
                raise InputError(
                    f"{where} has the id {number} of another image, {names[number]}: expected each "
                    "id once"
                )
        return names

    def _texts(
        self, annotations: Sequence[Any], names: Mapping[int, str]
    ) -> dict[int, tuple[str, ...]]:
        """Captions by the ids of their images."""
        found: dict[int, list[tuple[int, str]]] = {}
        for place, annotation in enumerate(annotations):
            where = f"annotations[{place}] of {os.path.basename(self.path)}"
            number, text = _fields(annotation, "image_id", "caption")
            if not _is_id(number) or not isinstance(text, str):
                self.census.pass_over(where, "annotation without a caption", is_data=True)
            elif number not in names:
                self.census.pass_over(where, "caption of an image that is not listed", is_data=True)
            else:
                own = annotation.get("id")
                found.setdefault(number, []).append((own if _is_id(own) else place, text))
        return {
            number: tuple(text for _, text in sorted(texts, key=lambda pair: pair[0]))
            for number, texts in found.items()
        }


class Coco:
    """The images that a JSON file of captions lists, all of one class.

    Args:
      spec: JSON, or JSON,FOLDER. Without a folder the images of ROOT/annotations/captions_NAME.json
        lie in ROOT/NAME, as COCO has them, and those of another file beside it.

    Raises:
      InputError: as CocoCaptions; or no such folder, or none of the images in it.
    """

    def __init__(self, spec: str):
        path, _, folder = spec.partition(",")
        path = os.path.expanduser(path)
        self._folder = os.path.expanduser(folder) if folder else _folder_of(path)
        if not os.path.isdir(self._folder):
            raise InputError(
                f"data source coco:{printable(spec)}: there is no folder "
                f"{printable(self._folder)} of images; expected coco:JSON,FOLDER"
            )
        content = CocoCaptions(path)
        self._listed, self.census = content.listed, content.census
        self.census.images, self.census.class_names = len(self._listed), self.class_names
        self.census.captioned = sum(bool(image.texts) for image in self._listed)
        self._count_files(spec)

    class_names = ("coco",)

    def _count_files(self, spec: str) -> None:
        """Say how many images are not there, and how many are there that are not listed."""
        there = {entry.name for entry in os.scandir(self._folder)}
        named = {image.file_name for image in self._listed}
        missing = sorted(name for name in named - there if not os.path.exists(self._path(name)))
        if len(missing) == len(named):
            raise InputError(
                f"data source coco:{printable(spec)}: none of {len(named)} listed images is in "
                f"{printable(self._folder)}, as {printable(missing[0])}; expected coco:JSON,FOLDER"
            )
        if missing:
            self.census.notes.append(
                f"{len(missing):,} listed images are not in {printable(self._folder)}, as "
                f"{printable(missing[0])}: they cannot be read"
            )
        tops = {name.split("/")[0] for name in named}
        for name in sorted(there - tops):
            self.census.pass_over(printable(name), "not listed in the JSON file", is_data=False)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def __len__(self) -> int:
        return len(self._listed)

    def names(self) -> Iterator[str]:
        """Ids of all records: the paths of their files."""
        return (printable(self._path(image.file_name)) for image in self._listed)

    def __getitem__(self, index: int) -> Record:
        image = self._listed[index]
        path = self._path(image.file_name)
        try:
            content = read_regular_file(path)
        except Unreadable as error:
            return unusable(printable(path), str(error))
        return Record(content, 0, printable(path), functools.partial(tuple, image.texts))


def prompts(path: str) -> tuple[list[str], list[str]]:
    """The prompts of FID-30K: one caption each of PROMPTS images, or of all if there are fewer.

    Which images, and which of their captions, is drawn by numpy's default_rng(PROMPTS_SEED), so
    that it is the same everywhere. Published numbers are of unknown draws of as many.

    Args:
      path: of a JSON file of captions.

    Returns:
      The prompts, and lines for a person on what they are of.

    Raises:
      InputError: as CocoCaptions, or no image has a caption that can be used.

    Source: Imagen (arXiv 2205.11487): "30K prompts are drawn randomly from the
    validation set". One caption an image is what GigaGAN's and LlamaGen's evaluation code reads.
    """
    content = CocoCaptions(path)
    usable = []
    for image in content.listed:
        try:
            usable.append(captions.checked(image.texts))
        except Unreadable as error:
            reason = "image without a usable caption"
            content.census.pass_over(f"{image.file_name}: {error}", reason, is_data=True)
    if not usable:
        raise InputError(f"{printable(path)}: no image has a caption that can be used")
    rng = np.random.default_rng(PROMPTS_SEED)
    chosen = rng.permutation(len(usable))[:PROMPTS]
    texts = [usable[i][rng.integers(len(usable[i]))] for i in chosen]
    what = (
        f"{len(texts):,} prompts, one caption of each of {len(texts):,} of {len(usable):,} images, "
        f"drawn by numpy's default_rng({PROMPTS_SEED})"
    )
    return texts, [what, *content.census.summary()[1:]]


def _folder_of(path: str) -> str:
    """Where COCO keeps the images of a JSON file of captions."""
    parent, name = os.path.split(os.path.abspath(path))
    split = _SPLIT.fullmatch(name)
    is_coco = split and os.path.basename(parent) == "annotations"
    return os.path.join(os.path.dirname(parent), split[1]) if split and is_coco else parent


def _fields(content: Any, *names: str) -> tuple[Any, ...]:
    known = content if isinstance(content, dict) else {}
    return tuple(known.get(name) for name in names)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
