import contextlib
import io
import os
import random
import struct
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from reprogram.core.errors import DataError
from reprogram.media.containers import open_container
from reprogram.media.decode import MAX_PIXELS, image_size, printable, read_bytes, read_image


def pixels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_formats_decode_as_pillow_does(kind, noise, encode, tmp_path):
    data = encode(noise(), kind)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    path = tmp_path / "picture.bin"  # the name says nothing
    path.write_bytes(data)
    for given in (data, bytearray(data), path, str(path), io.BytesIO(data)):
        image = read_image(given)
        assert image.mode == "RGB" and image.size == (16, 12)
        np.testing.assert_array_equal(pixels(image), pixels(expected))
    assert image_size(data) == (16, 12)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_png_modes(mode, noise, encode):
    original = noise(mode="L").convert("1") if mode == "1" else noise(mode=mode)
    image = read_image(encode(original))
    expected = original
    if mode in ("LA", "RGBA"):
        clear = original.convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    np.testing.assert_array_equal(pixels(image), pixels(expected.convert("RGB")))


def test_transparent_is_white(encode):
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert read_image(encode(clear)).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    assert read_image(encode(palette, transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(encode(palette, transparency=bytes([255, 0]))).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(encode(Image.new("RGB", (4, 4), (1, 2, 3)), transparency=(1, 2, 3))).getpixel((0, 0))[0] == 255


def test_sixteen_bit_grey_is_scaled_not_clipped(encode):
    ramp = np.linspace(0, 65535, 16 * 16).reshape(16, 16).astype(np.uint16)
    image = read_image(encode(Image.fromarray(ramp)))
    np.testing.assert_array_equal(pixels(image)[:, :, 0], ramp >> 8)


def test_cmyk_jpeg(noise, encode):
    image = read_image(encode(noise().convert("CMYK"), "JPEG", quality=95))
    assert image.mode == "RGB"
    assert abs(pixels(image).mean() - pixels(noise()).mean()) < 10


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_as_pillow(kind, turn, noise, encode):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(noise(), kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(pixels(read_image(data)), pixels(expected))
    assert image_size(data) == expected.size


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk" * 9])
def test_senseless_exif_is_no_matter(exif, noise, encode):
    data = encode(noise(), "JPEG", exif=exif) if exif else encode(noise(), "JPEG")
    assert read_image(data).size == (16, 12)


def test_a_phone_picture_with_two_frames_is_its_first(noise, encode):
    data = encode(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
    assert read_image(data).size == (16, 12)


def test_progressive_jpeg_and_interlaced_sizes(noise, encode):
    data = encode(noise(123, 45), "JPEG", progressive=True, comment=b"x" * 100, icc_profile=b"y" * 500)
    assert image_size(data) == read_image(data).size == (123, 45)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_animations_are_refused(kind, noise, encode):
    data = encode(noise(), kind, save_all=True, append_images=[noise(seed=1)], duration=100)
    with pytest.raises(DataError, match="`clip`.*PNG, JPEG or WEBP" if kind == "GIF" else "`clip`.*animation"):
        read_image(data, name="clip")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM", "TGA", "ICO"])
def test_other_formats_are_refused(kind, noise, encode):
    with pytest.raises(DataError, match=r"`odd.png` must be a PNG, JPEG or WEBP picture, got .*Convert"):
        read_image(encode(noise(), kind), name="odd.png")


@pytest.mark.parametrize("data", [b"SIMPLE  =", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"\0" * 99])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(DataError, match="must be a PNG"):
        read_image(data)


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")


def jpeg_header(width, height, noise, encode):
    data = bytearray(encode(noise(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_headers(width, height):
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (width - 1).to_bytes(3, "little")
    canvas += (height - 1).to_bytes(3, "little")
    lossless = b"VP8L" + struct.pack("<I", 99) + b"\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14) + b"\0" * 94
    lossy = b"VP8 " + struct.pack("<I", 99) + b"\x30\1\0\x9d\1\x2a" + struct.pack("<HH", 16383, 16383) + b"\0" * 89
    return [b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body for body in (canvas, lossless, lossy)]


def test_bombs_are_refused_from_the_header(noise, encode):
    bombs = [png_header(50_000, 50_000), jpeg_header(60_000, 60_000, noise, encode), *webp_headers(16_000, 16_000)]
    bombs.append(png_header(2**31 - 1, 2**31 - 1))
    bombs.append(png_header(1, MAX_PIXELS + 1))
    for bomb in bombs:
        tracemalloc.start()
        start = time.perf_counter()
        for read in (read_image, image_size):
            with pytest.raises(DataError, match=r"`bomb` must have at most 20 million pixels, got '\d+ x \d+'"):
                read(bomb, name="bomb")
        assert time.perf_counter() - start < 0.2
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


def test_the_largest_allowed_picture(encode):
    assert read_image(encode(Image.new("L", (5000, 4000)))).size == (5000, 4000)


def test_a_header_that_lies_takes_no_memory_to_find_out():
    with pytest.raises(DataError, match="whole, undamaged"):
        read_image(png_header(100, 100))
    with pytest.raises(DataError):
        image_size(png_header(0, 100))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_every_truncation_is_an_error_or_a_picture(kind, noise, encode):
    data = encode(noise(64, 64), kind)
    for length in range(0, len(data) - 12, 37):
        with pytest.raises(DataError, match=r"`cut\.png`"):
            read_image(data[:length], name="cut.png")


def with_right_sums(data):
    """A PNG whose checksums match, so that mutations get past them."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        out += data[at:end] + struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return out


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_fuzz(kind, noise, encode):
    """Mutated files give a picture or a DataError; never another exception, and never a warning."""
    draw = random.Random(kind)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    whole = [encode(noise(), kind, exif=exif), encode(noise(mode="RGBA" if kind != "JPEG" else "CMYK"), kind)]
    if kind == "PNG":
        whole += [encode(noise(mode="P"), kind, transparency=bytes(range(9))), encode(noise(mode="L"), kind)]
        whole.append(encode(noise(), kind, save_all=True, append_images=[noise(seed=1)]))
    if kind == "JPEG":
        whole.append(encode(noise(), "MPO", save_all=True, append_images=[noise(seed=1)], exif=exif))
    outcomes = {True: 0, False: 0}
    for _ in range(700):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(data))
            match draw.randrange(4):
                case 0:
                    data[at] = draw.randrange(256)
                case 1:
                    data[at] ^= 1 << draw.randrange(8)
                case 2:
                    del data[at : at + draw.randrange(1, 30)]
                case _:
                    data[at:at] = data[at : at + draw.randrange(1, 60)]
            data = data or bytearray(b"\xff")
        if kind == "PNG" and draw.random() < 0.7:
            data = with_right_sums(bytes(data))
        try:
            assert read_image(bytes(data), name="fuzz").mode == "RGB"
            outcomes[True] += 1
        except DataError as error:
            assert "`fuzz`" in str(error)
            outcomes[False] += 1
        with contextlib.suppress(DataError):
            image_size(bytes(data))
    assert min(outcomes.values()) > 20


def test_files_that_cannot_be_read(tmp_path):
    empty = tmp_path / "empty.png"
    empty.touch()
    for path in (tmp_path / "no.png", tmp_path, empty, "a\0b", "x" * 5000, "\ud800"):
        with pytest.raises(DataError, match="must be"):
            read_image(path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="must be a file"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="No such file or directory"):
        read_bytes(tmp_path / "no.png")
    for odd in (3, None, io.StringIO("text"), [1]):
        with pytest.raises(DataError, match="must be a path, bytes or a file open in binary mode"):
            read_image(odd)


def test_names_that_are_no_unicode(tmp_path, noise, encode):
    path = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(path)).write_bytes(encode(noise()))
    assert read_image(os.fsdecode(path)).size == (16, 12)
    assert printable(os.fsdecode(path)).endswith("/?.png")


def test_pillows_settings_are_left_alone(noise, encode, monkeypatch):
    """Neither changed nor, where it matters, obeyed: a program may have made Pillow more or less careful."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    read_image(encode(noise()))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(encode(noise())).size == (16, 12)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(DataError, match="million"):
        read_image(png_header(50_000, 50_000))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_white_are_refused(mode):
    from reprogram.media.decode import flatten

    with pytest.raises(DataError, match=f"`x` must be .* mode {mode}"):
        flatten(Image.new(mode, (4, 4)), "x")


def test_metadata_does_not_reach_the_decoder(noise, encode):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("bomb", "x" * 500_000, zip=True)
    container = open_container(encode(noise(), pnginfo=info))
    assert container is not None and b"zTXt" not in container.data and b"IDAT" in container.data
    jpeg = encode(noise(), "JPEG", comment=b"secret", exif=b"Exif\0\0II*\0")
    container = open_container(jpeg)
    assert container is not None and b"secret" not in container.data and b"Exif" not in container.data
