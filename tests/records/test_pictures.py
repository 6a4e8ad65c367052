"""Pictures as transformers' own loading sees them, and what Pillow alone would lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image

from mllmeraser.errors import InputError
from mllmeraser.records.pictures import content, opened

MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
MODES += ["I", "F", "I;16", "I;16B", "I;16L", "I;16N"]  # all that Pillow has


def noise(width: int = 9, height: int = 7) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path, orientation: int, in_memory: bool) -> None:
    path, exif = tmp_path / "face.png", Image.Exif()
    exif[0x112] = orientation
    noise().save(path, exif=exif)
    with Image.open(path) as file:
        found = opened(file if in_memory else path, "the prompt")
    assert found.size == ((9, 7) if orientation < 5 else (7, 9))
    assert found.tobytes() == load_image(str(path)).tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_taken(mode: str) -> None:
    assert opened(Image.new(mode, (9, 7)), "the prompt").mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_a_file_of_bytes_is_as_transformers_reads_it(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("face.tiff" if mode == "CMYK" else "face.png")
    noise().convert("L").convert("RGB").convert(mode).save(path)
    assert opened(path, "").tobytes() == load_image(str(path)).tobytes()


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("u2", [0, 32768, 65535], [0, 128, 255]),
        ("u2", [0, 257, 514], [0, 1, 2]),  # dark, of 16 bits all the same
        ("f4", [0.0, 0.5, 1.0], [0, 128, 255]),
        ("f4", [0, 128, 255], [0, 128, 255]),
        ("f4", [0, 32768, 65535], [0, 128, 255]),
        ("f4", [-1, 0, 1], [0, 128, 255]),
        ("f4", [0, 5e5, 1e6], [0, 128, 255]),
        ("f4", [float("nan"), 0, 1], [0, 0, 255]),
        ("i4", [0, 128, 255], [0, 128, 255]),
        ("i4", [0, 32768, 65535], [0, 128, 255]),
        ("i4", [-4, 0, 4], [0, 128, 255]),
    ],
)
def test_greys_of_more_than_a_byte_are_scaled(kind: str, values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=kind))
    assert np.asarray(opened(image, ""))[0, :, 0].tolist() == expected


def test_a_picture_of_16_bits_in_a_file_is_scaled_too(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "scan.png")
    assert opened(tmp_path / "scan.png", "").getpixel((0, 0)) == (156, 156, 156)


def test_two_files_of_one_picture_have_one_content(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    noise().save(tmp_path / "b.tiff")
    noise().rotate(90, expand=True).save(tmp_path / "turned.png")
    assert content(tmp_path / "a.png", "") == content(tmp_path / "b.tiff", "") == content(noise(), "")
    assert content(tmp_path / "turned.png", "") != content(noise(), "")
    assert content(Image.new("RGB", (2, 8)), "") != content(Image.new("RGB", (4, 4)), "")  # the same bytes
    with pytest.raises(InputError, match="not a readable picture"):
        content(tmp_path / "none.png", "")
