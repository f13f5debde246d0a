"""Images: the export prepares them exactly as the server does, and explains what is none."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from export import errors, photos, preprocessing
from protos import manifest_pb2
from service.images import decode

LIMITS = decode.Limits(10_000_000, 10_000_000)
SPECS = {
    "imagenet": preprocessing.imagenet(),
    "wide crop": preprocessing.Preprocessing(60, 90, (0, 0, 0), (1, 1, 1), resize_px=100),
    "stretched grey": preprocessing.Preprocessing(32, 48, (0,), (1,), manifest_pb2.COLOR_GRAY),
    "bgr": preprocessing.Preprocessing(64, 64, (0, 0, 0), (1, 1, 1), manifest_pb2.COLOR_BGR),
    "as it is": preprocessing.Preprocessing(0, 0, (0,), (1,), manifest_pb2.COLOR_GRAY),
}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(datasets.load_sample_images().images[0][:301, :411])


@pytest.mark.parametrize("name", SPECS)
def test_export_and_server_make_the_same_pixels_of_a_photo(name: str, photo: Image.Image) -> None:
    spec = SPECS[name].spec("image")
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    served = decode.image_spec(spec)
    row_hwc = np.zeros(decode.row_shape([buffer.getvalue()], served, LIMITS), np.uint8)
    decode.decode_into(row_hwc, buffer.getvalue(), 0, served, LIMITS)
    assert np.array_equal(photos.fit(photo, spec), row_hwc)


def test_real_images_are_of_the_size_asked_for_always_the_same_and_all_different() -> None:
    rows = photos.real((50, 70, 3), 8)
    assert rows.shape == (8, 50, 70, 3)
    assert rows.dtype == np.uint8
    assert np.array_equal(rows, photos.real((50, 70, 3), 8))
    assert len({row.tobytes() for row in rows}) == 8
    assert rows.std() > 20


def test_grey_ones_have_one_channel_and_small_grey_ones_are_digits() -> None:
    assert photos.real((40, 40, 1), 2).shape == (2, 40, 40, 1)
    digits = photos.real((32, 32, 1), 4)
    assert (digits[:, 0] == 0).all()  # the margin around a digit is black


def test_a_folder_gives_its_images_in_order(tmp_path: pathlib.Path, photo: Image.Image) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2.JPG", "a.png", "note.txt"):
        photo.save(tmp_path / name, "JPEG" if name.endswith("JPG") else "PNG")
    assert [path.name for path in photos.files(tmp_path)] == ["a.png", "2.JPG"]


def test_what_is_no_image_or_no_folder_is_explained(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(errors.ImageError, match=r"x\.png is not an image that can be read.*expected a PNG or JPEG"):
        photos.read(tmp_path / "x.png")
    with pytest.raises(errors.ImageError, match="is not a folder"):
        photos.files(tmp_path / "x.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.ImageError, match="holds no image"):
        photos.files(tmp_path / "empty")
