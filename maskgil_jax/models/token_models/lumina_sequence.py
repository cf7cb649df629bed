"""How text and an image stand in one sequence of token ids in Lumina-mGPT.

    <s>, text of the prompt, end of turn, begin of image, height, width,
    rows of image codes that end in an end of line each, end of image, end of turn

Letters: B batch, h w grid.
Source: Alpha-VLLM/Lumina-mGPT, data/item_processor.py and inference_solver.py.
"""

from collections.abc import Collection, Mapping

import numpy as np

START = 0  # <s>
FIRST_CODE = 4  # image code k has the id 4 + k
CODES = 8192
END_OF_IMAGE = 8196
BEGIN_OF_IMAGE = 8197
END_OF_TURN = 8710
END_OF_LINE = 8803
NO_PATCHES = 8804  # as height or width; each patch is one more
PATCH = 2  # tokens: heights and widths are counted in patches
MOST_PATCHES = 64  # of a side: the longest of Lumina's list for 1024 pixels
OPENING = 3  # tokens from the begin of the image to its width

# Names of those ids in tokenizer.json and in config.json's vocabulary_map.
END_OF_TURN_NAME = "<reserved08706>"
NAMES = {
    "<s>": START,
    "<eoss>": END_OF_IMAGE,
    "<racm3:break>": BEGIN_OF_IMAGE,
    END_OF_TURN_NAME: END_OF_TURN,
    "<reserved08799>": END_OF_LINE,
    "<reserved08800>": NO_PATCHES,
    f"<reserved{8800 + MOST_PATCHES:05}>": NO_PATCHES + MOST_PATCHES,
}
SMALLEST_VOCABULARY = NO_PATCHES + MOST_PATCHES + 1
PIXELS = 16  # of a token's side, in Chameleon-VQ


def name_of_code(code: int) -> str:
    """The name of an image code: its digits as letters from A on, as IMGIMGBCZ for 12."""
    return "IMGIMG" + "".join("ABCDEFGHIJ"[int(digit)] for digit in str(code)) + "Z"


def has_meaning(token: int) -> bool:
    """Whether an id is not of text, but of an image, or says where it or a text begins or ends."""
    of_image = FIRST_CODE <= token <= BEGIN_OF_IMAGE
    return of_image or token in (START, END_OF_TURN) or END_OF_LINE <= token < SMALLEST_VOCABULARY


def turn(prompt: str, grid: tuple[int, int]) -> str:
    """The text of a prompt for an image of (height, width) tokens, with the end of the turn."""
    height, width = (PIXELS * side for side in grid)
    return (
        f"Generate an image of {width}x{height} according to the following prompt:\n"
        f"{prompt}{END_OF_TURN_NAME}"
    )


def opening(grid: tuple[int, int]) -> list[int]:
    """Ids from the begin of an image to its first code: begin, height, width.

    Raises:
      ValueError: a side that is not in whole patches, or longer than there are ids for.
    """
    for side in grid:
        if side % PATCH or not PATCH <= side <= PATCH * MOST_PATCHES:
            raise ValueError(
                f"grid = {tuple(grid)}, expected even sides of {PATCH} to {PATCH * MOST_PATCHES} "
                f"tokens (multiples of {PATCH * PIXELS} pixels)"
            )
    return [BEGIN_OF_IMAGE, *(NO_PATCHES + side // PATCH for side in grid)]


def answer_length(grid: tuple[int, int]) -> int:
    """Ids from the begin to the end of an image of (height, width) tokens."""
    height, width = grid
    return OPENING + height * (width + 1) + 1


def answer(codes_Bhw: np.ndarray) -> np.ndarray:
    """Ids from the begin to the end of images, int32 [B, answer_length]; codes int [B, h, w]."""
    B, height, width = codes_Bhw.shape
    rows = np.pad(codes_Bhw + FIRST_CODE, ((0, 0), (0, 0), (0, 1)), constant_values=END_OF_LINE)
    begin = np.tile(opening((height, width)), (B, 1))
    end = np.full((B, 1), END_OF_IMAGE)
    return np.concatenate([begin, rows.reshape(B, -1), end], axis=1).astype(np.int32)


def check_names(ids: Mapping[str, int], needed: Collection[str] = ()) -> None:
    """Raise ValueError unless names have the ids that they have in Lumina-mGPT.

    Args:
      ids: of names; other names may be among them.
      needed: names that have to be.
    """
    known = NAMES | {name_of_code(code): FIRST_CODE + code for code in range(CODES)}
    if missing := [name for name in needed if name not in ids]:
        raise ValueError(f"has no {missing[0]}, as Lumina-mGPT's has")
    wrong = [name for name in known.keys() & ids.keys() if ids[name] != known[name]]
    if wrong:
        name = min(wrong)
        raise ValueError(
            f"{name} has the id {ids[name]}, expected {known[name]}, as in Lumina-mGPT "
            f"({len(wrong)} such names)"
        )
