import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from elo_tf.data import images, media


@pytest.fixture
def picture(texture):
    """A picture that is brighter on the right and redder below; uint8 [60, 80, 3]."""
    image = texture(80)[:60].astype(float) / 4
    image += np.linspace(0, 120, 80)[None, :, None]
    image[..., 0] += np.linspace(0, 60, 60)[:, None]
    return image.astype(np.uint8)


def decode(path, min_side=60, **options):
    clip = images.decode_image(path, fps=12.0, min_side=min_side, **options)
    assert (len(clip.frames), clip.fps, clip.start, clip.audio) == (1, 12.0, 0.0, None)
    assert not (clip.silent or clip.damaged or clip.cut or clip.source_fps)
    (frame,) = clip.frames
    assert frame.dtype == np.uint8
    return frame


def reason(path, **options):
    with pytest.raises(media.MediaError) as caught:
        decode(path, **options)
    assert str(path) not in caught.value.detail
    return caught.value.reason


def difference(frame, expected):
    return np.abs(frame.astype(float) - expected).mean()


@pytest.mark.parametrize(("name", "settings"), [
    ("a.png", {}), ("a.bmp", {}), ("a.webp", {"lossless": True}),
    ("a.jpg", {"quality": 98, "subsampling": 0}),
    ("b.jpg", {"quality": 98, "subsampling": 0, "progressive": True}),
])
def test_formats(tmp_path, picture, name, settings):
    Image.fromarray(picture).save(tmp_path / name, **settings)
    frame = decode(tmp_path / name)
    assert frame.shape == (60, 80, 3)
    assert difference(frame, picture) < (1.0 if name.endswith("jpg") else 1e-9)
    assert os.path.splitext(name)[1] in images.IMAGE_SUFFIXES


def test_the_contents_tell_the_format(tmp_path, picture):
    # As one of ImageNet's files, which is a PNG named .JPEG.
    Image.fromarray(picture).save(tmp_path / "n02105855_2933.JPEG", "PNG")
    assert np.array_equal(decode(tmp_path / "n02105855_2933.JPEG"), picture)


def test_pixels_of_every_kind(tmp_path, picture):
    image = Image.fromarray(picture)
    gray = np.asarray(image.convert("L"))
    grays = np.repeat(gray[..., None], 3, -1)

    def stored(name, one, **settings):
        one.save(tmp_path / name, **settings)
        return decode(tmp_path / name)

    assert np.array_equal(stored("gray.png", image.convert("L")), grays)
    assert difference(stored("gray.jpg", image.convert("L"), quality=98), grays) < 1
    # The inks are stored inverted, with Adobe's mark, as Photoshop writes them.
    cmyk = image.convert("CMYK")
    assert difference(stored("cmyk.jpg", cmyk, quality=98), picture) < 1.5
    palette = image.quantize(64)
    assert np.array_equal(stored("palette.png", palette), np.asarray(palette.convert("RGB")))
    assert np.array_equal(stored("1bit.png", image.convert("1")),
                          np.asarray(image.convert("1").convert("RGB")))
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert np.array_equal(stored("deep.png", deep), grays)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_seen_on_white(tmp_path, picture, mode):
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:30] = 0
    image = Image.fromarray(np.dstack([picture, alpha]))
    if mode == "P":
        image = image.quantize(32, method=Image.Quantize.FASTOCTREE)
    image.convert(mode).save(tmp_path / "a.png")
    frame = decode(tmp_path / "a.png")
    assert (frame[:29] == 255).all()
    assert difference(frame[31:], 255) > 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, picture, orientation):
    seen = picture
    stored = {1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1],
              5: seen.transpose(1, 0, 2), 6: np.rot90(seen, 1),
              7: seen[::-1, ::-1].transpose(1, 0, 2),  # Mirrored in the other diagonal.
              8: np.rot90(seen, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=98, subsampling=0)
    assert decode(path).shape == seen.shape
    assert difference(decode(path), seen) < 1
    part = decode(path, min_side=30, region=(0.25, 0.5, 0.5, 0.5))
    assert difference(part, seen[30:, 20:60]) < 1


def test_broken_metadata_do_not_matter(tmp_path, picture):
    path = tmp_path / "a.jpg"
    broken = b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\7" * 9
    Image.fromarray(picture).save(path, quality=98, exif=broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert difference(decode(path), picture) < 3


def test_resizing_is_by_area(tmp_path):
    # Checks of one pixel: whoever picks pixels gets black or white, the area's mean is gray.
    checks = (np.indices((400, 600)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "a.png")
    frame = decode(tmp_path / "a.png", min_side=100)
    assert frame.shape == (100, 150, 3)
    assert np.abs(frame.astype(int) - 127.5).max() < 1
    assert decode(tmp_path / "a.png", min_side=800).shape == (800, 1200, 3)
    Image.fromarray(checks[:, :401]).save(tmp_path / "b.png")
    assert decode(tmp_path / "b.png", min_side=64).shape == (64, 64, 3)


def test_a_large_jpeg_is_decoded_smaller(tmp_path, texture):
    large = np.asarray(Image.fromarray(texture(200)).resize((1600, 1200)))
    Image.fromarray(large).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(large).save(tmp_path / "a.png", compress_level=1)
    fast, slow = (decode(tmp_path / name, min_side=90) for name in ("a.jpg", "a.png"))
    assert fast.shape == slow.shape == (90, 120, 3)
    assert difference(fast, slow) < 1


def test_the_first_picture_of_several(tmp_path, picture):
    first = Image.fromarray(picture)
    others = [Image.fromarray(255 - picture)] * 2
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    assert difference(decode(tmp_path / "a.gif"), picture) < 8
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, lossless=True)
    assert np.array_equal(decode(tmp_path / "a.webp"), picture)
    first.save(tmp_path / "a.mpo", save_all=True, append_images=others, quality=98)
    assert difference(decode(tmp_path / "a.mpo"), picture) < 3


def chunk(kind, data):
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data)))


def png(width, height, data=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
            + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [8192, 60000, 2**31 - 1])
def test_huge_pictures_are_refused_by_their_header(tmp_path, monkeypatch, side):
    monkeypatch.setattr(Image.Image, "load", None)  # Decodes nothing, or this fails otherwise.
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, zlib.compress(bytes(10**6), 9)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(path) == "too_large"
    assert reason(path, limits=media.Limits(max_pixels=10**5)) == "too_large"


def test_long_files_are_not_read(tmp_path):
    path = tmp_path / "a.webp"
    with open(path, "wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(2**40)  # Sparse; this decoder reads all of it first.
    assert reason(path) == "too_large"


def test_files_that_are_no_pictures(tmp_path, picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=98)
    jpeg = buffer.getvalue()
    path = tmp_path / "it's a, file.jpg"
    for content, expected in [
            (b"", "empty_file"), (b"not a picture\n", "undecodable"), (jpeg[:20], "undecodable"),
            (jpeg[:len(jpeg) // 2], "undecodable"), (png(40, 40, b"\0"), "undecodable"),
            (png(0, 40), "undecodable"), (png(1000, 20, b""), "bad_shape"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "undecodable"),
            (b"GIF89a" + b"\xff" * 50, "undecodable"), (b"BM" + b"\xff" * 60, "undecodable"),
            (b"RIFF\x10\0\0\0WEBPVP8 \0\0\0\0", "undecodable")]:
        path.write_bytes(content)
        assert reason(path) == expected, content[:20]
    assert reason(tmp_path / "none.jpg") == "missing_file"
    assert reason(tmp_path) == "not_a_file"
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png") == "not_a_file"


def test_damaged_files_give_a_picture_or_an_error(tmp_path, picture):
    """Whatever is in a file: a picture of the right size or a `MediaError`."""
    generator = np.random.default_rng(0)
    decoded = refused = 0
    for name, settings in [("a.jpg", {}), ("a.png", {}), ("a.gif", {}), ("a.webp", {}),
                           ("a.bmp", {})]:
        Image.fromarray(picture).save(tmp_path / name, **settings)
        whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            places = generator.integers(0, min(len(whole), 600), 4)
            broken[places] = generator.integers(0, 256, 4)
            (tmp_path / name).write_bytes(broken.tobytes()[:generator.integers(20, 2 * len(whole))])
            try:
                assert min(decode(tmp_path / name, min_side=32).shape[:2]) == 32
                decoded += 1
            except media.MediaError as error:
                assert error.reason in ("undecodable", "bad_shape", "too_large")
                refused += 1
    assert decoded > 20 and refused > 100
