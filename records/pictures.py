"""Opens a picture as transformers' own ``load_image`` does: turned as its EXIF says, then RGB.

Where Pillow's conversion loses the picture, this one does not: greys of 16 bits and of floats are scaled to eight bits
(Pillow cuts them off at 255, and most of such a picture would be white), and premultiplied and transparent modes go by
way of their plain ones.
"""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from mllmeraser.errors import InputError, first_line
from mllmeraser.records.prompts import Altered, AnyPicture, Picture

LONGEST_SIDE = 200  # times the other side of a picture, at most; Qwen's processors take no more
_TOPS = (1.0, 255.0, 65535.0)  # what is white in greys of floats, of bytes and of 16 bits


def opened(picture: AnyPicture, named: str) -> Image.Image:
    """The picture, upright and RGB; ``named`` is how an error calls a picture in memory.

    Raises:
        InputError: it is no readable picture, or so long and thin that the model would see nothing of it. (Processors
            resize by the shorter side, and would need gigabytes.)
    """
    if isinstance(picture, Altered):
        image = opened(picture.picture, named)
        for change in picture.changes:
            image = change(image)
        return image
    where = named if isinstance(picture, Image.Image) else f"{picture}"
    try:
        if isinstance(picture, Image.Image):
            image = _upright(picture)
        else:
            with Image.open(BytesIO(picture.data) if isinstance(picture, Picture) else str(picture)) as file:
                image = _upright(file)
    except Exception as error:  # Pillow's decoders raise what they meet: OSError, SyntaxError, RuntimeError, …
        raise InputError(f"{where}: not a readable picture ({first_line(error)})") from None
    if max(image.size) > LONGEST_SIDE * min(image.size):
        width, height = image.size
        raise InputError(
            f"{where}: a picture of {width:,} × {height:,} pixels; crop it, "
            f"so that no side is more than {LONGEST_SIDE} times the other"
        )
    return image


def content(picture: AnyPicture, named: str) -> str:
    """The sha256 of what the model would be shown: size and pixels. Two files of one picture have the same.

    Raises:
        InputError: as :func:`opened`.
    """
    image = opened(picture, named)
    return hashlib.sha256(f"{image.size} ".encode() + image.tobytes()).hexdigest()


def _upright(image: Image.Image) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("I", "F") or turned.mode.startswith("I;16"):
        return _eight_bits(turned).convert("RGB")
    if turned.mode == "La":
        return turned.convert("LA").convert("RGB")
    # By way of RGBA: Pillow warns of palettes with transparency otherwise. The colours are the same.
    return (turned.convert("RGBA") if "transparency" in turned.info else turned).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greys from 0 to 255. Floats may be given up to 1, 255 or 65535, whole numbers up to 255 or 65535; whatever is
    beyond, or below 0, is spread over the whole range."""
    greys = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    tops = _TOPS[2:] if image.mode.startswith("I;16") else _TOPS[1:] if image.mode == "I" else _TOPS
    low, high = float(greys.min(initial=0.0)), float(greys.max(initial=0.0))
    if low < 0 or high > tops[-1]:
        greys, top = greys - low, high - low
    else:
        top = next(top for top in tops if high <= top)
    return Image.fromarray(np.rint(greys * (255 / top)).astype(np.uint8))
