"""How text and an image stand in one sequence of token ids in Lumina-DiMOO.

    text of the prompt, begin of answer, begin of image,
    rows of image codes that end in an end of line each, end of image, end of answer

All ids see each other; codes that are not known have the id of the mask.
Letters: B batch, h w grid.
Source: Alpha-VLLM/Lumina-DiMOO, inference/inference_t2i.py and utils/image_utils.py.
"""

import numpy as np

END_OF_LINE = 126084
MASK = 126336
BEGIN_OF_IMAGE = 126349
END_OF_IMAGE = 126350
UNCONDITION = 126351  # takes the place of the prompt where there is none
BEGIN_OF_ANSWER = 126354
END_OF_ANSWER = 126355
FIRST_CODE = 126356  # image code k has the id 126356 + k
CODES = 8192
VOCABULARY = FIRST_CODE + CODES
OPENING = 2  # tokens before the first code of an image: begin of answer, begin of image
CLOSING = (END_OF_IMAGE, END_OF_ANSWER)
SIGNS = (END_OF_LINE, MASK, BEGIN_OF_IMAGE, UNCONDITION, BEGIN_OF_ANSWER, *CLOSING)
PIXELS = 16  # of a token's side, in its tokenizer

NO_PROMPT = "<uncondition>"  # the name of UNCONDITION in tokenizer.json


def has_meaning(token: int) -> bool:
    """Whether an id is not of text, but of an image, or says where it begins or ends."""
    return token >= FIRST_CODE or token in SIGNS


def turn(prompt: str, grid: tuple[int, int]) -> str:
    """The text of a prompt, the same for images of all sizes."""
    del grid
    return f"<system>Generate an image according to the text prompt.</system><user>{prompt}</user>"


def opening(grid: tuple[int, int]) -> list[int]:
    """Ids before the first code of an image, the same for all sizes."""
    del grid
    return [BEGIN_OF_ANSWER, BEGIN_OF_IMAGE]


def answer_length(grid: tuple[int, int]) -> int:
    """Ids from the begin to the end of the answer that is an image of (height, width) tokens."""
    height, width = grid
    return OPENING + height * (width + 1) + len(CLOSING)


def answer(codes_Bhw: np.ndarray) -> np.ndarray:
    """Ids from the begin to the end of the answer, int32 [B, answer_length].

    `codes_Bhw` are int [B, h, w], CODES where masked.
    """
    B, height, width = codes_Bhw.shape
    ids_Bhw = np.where(codes_Bhw == CODES, MASK, codes_Bhw + FIRST_CODE)
    rows = np.pad(ids_Bhw, ((0, 0), (0, 0), (0, 1)), constant_values=END_OF_LINE)
    begin, end = np.tile(opening((height, width)), (B, 1)), np.tile(CLOSING, (B, 1))
    return np.concatenate([begin, rows.reshape(B, -1), end], axis=1).astype(np.int32)
