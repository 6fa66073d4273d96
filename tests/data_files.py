"""Files of data sets, made by hand: what the tests of data sets and of hostile files share."""

import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from dualnet.data import SOURCES
from dualnet.data.locate import user_folder
from dualnet.data.sources import RemoteFile

REAL = user_folder() or Path("no folder")
"""Where real data sets are, as `train.py` finds it without `--data-dir`."""

DEAD = "https://127.0.0.1:1/"


def mutate(content, rng, head):
    """One to three random edits of a file, half of them near its head."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        if rng.random() < 0.5:
            at = min(at, rng.randrange(head))
        piece = slice(at, at + rng.randrange(1, 12))
        held = bytes(content[piece])
        kind = rng.choice("flip random cut insert delete repeat zeros ones".split())
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = rng.randbytes(8)
        elif kind == "repeat":
            content[at:at] = held
        elif kind != "flip":
            new = {"random": rng.randbytes(len(held)), "zeros": bytes(len(held)), "delete": b""}
            content[piece] = new.get(kind, b"\xff" * len(held))
    return bytes(content)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put(folder, files, suffix=""):
    """Write `{name: content}`, compressed if there is a suffix; returns the folder."""
    for name, content in files.items():
        write(Path(folder, f"{name}{suffix}"), gzip.compress(content) if suffix else content)
    return folder


def header(*sizes, code=8):
    """The head of an IDX file, by default of uint8."""
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


def idx(values):
    """The IDX file of a uint8 array, built by hand."""
    return header(*values.shape) + values.astype(np.uint8).tobytes()


FILES = [file.name for file in SOURCES["mnist"].files]


def small_set(seed=0, n_train=7, n_test=3):
    """The contents of the four files of a small set in the form of MNIST."""
    rng = np.random.default_rng(seed)
    contents = []
    for n in (n_train, n_test):
        contents.append(idx(rng.integers(0, 256, (n, 28, 28))))
        contents.append(idx(rng.integers(0, 10, n)))
    return dict(zip(FILES, contents, strict=True))


def published(contents):
    """What a source says of files, `{name: content}`, so that the cache may hold them."""
    return tuple(
        RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )


def records(images, *labels):
    """CIFAR's binary form of images (N, 32, 32, 3) and of one or two lists of labels."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    columns = [np.array(column, np.uint8)[:, None] for column in labels]
    return np.concatenate([*columns, planes], axis=1).tobytes()


# Opcodes of Python 2's protocol 2, as the official files have them.


def short(text):
    return b"U" + bytes([len(text)]) + text


def whole(number):
    for form, code, top in (("<B", b"K", 256), ("<H", b"M", 1 << 16)):
        if 0 <= number < top:
            return code + struct.pack(form, number)
    return b"J" + struct.pack("<i", number)


def listed(items):
    return b"](" + b"".join(items) + b"e"


def mapped(items):
    return b"}(" + b"".join(short(key) + value for key, value in items.items()) + b"u"


def array(shape, content, dtype=b"u1", fortran=b"\x89", length=None):
    """A NumPy array as Python 2 pickled it."""
    sizes = b"(" + b"".join(map(whole, shape)) + b"t"
    make = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\n" + short(dtype) + b"K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * whole(-1)
    text = b"T" + struct.pack("<i", len(content) if length is None else length) + content
    return make + b"(K\x01" + sizes + kind + b"K\x00tb" + fortran + text + b"tb"


def pickled(value):
    return b"\x80\x02" + value + b"."


def python_batch(images, labels, key=b"labels"):
    """CIFAR's pickled form; the memo is used as Python 2 does, for what occurs once, too."""
    data = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    names = [short(b"frog_%d.png" % n) + b"r" + struct.pack("<I", n) for n in range(len(images))]
    return pickled(
        mapped(
            {
                b"batch_label": short(b"training batch 1 of 5") + b"q\x01",
                key: listed(map(whole, labels)),
                b"data": array(data.shape, data.tobytes()),
                b"filenames": listed(names),
            }
        )
    )


def tar(members, mode="w:gz"):
    """A tar archive of `(TarInfo or name, content)`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for info, content in members:
            if isinstance(info, str):
                info = tarfile.TarInfo(info)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def image_bytes(pixels, kind="PNG", mode=None, **how):
    """An encoded image of pixels (height, width, 3)."""
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(out, kind, **how)
    return out.getvalue()


def photographs(rng, count, height, width):
    """Smooth random images, which JPEG does little harm to."""
    slopes = rng.normal(size=(count, 2, 3)) * 2
    rows, columns = np.mgrid[:height, :width]
    waves = np.einsum("nac,ahw->nhwc", slopes, np.stack([rows / height, columns / width]))
    return np.uint8(127.5 + 120 * np.sin(waves))


def put_tiny_imagenet(folder, rng, per_class=2, classes=200, kind="JPEG"):
    """Tiny ImageNet's folders; returns the mean color of each file by name."""
    names = [f"n{1000 + 7 * n:08d}" for n in range(classes)]
    colors, lines = {}, []
    for number, name in enumerate(names):
        files = [folder / "train" / name / "images" / f"{name}_{n}.JPEG" for n in range(per_class)]
        for file in (*files, folder / "val" / "images" / f"val_{number}.JPEG"):
            color = rng.integers(0, 256, 3)
            write(file, image_bytes(np.full((64, 64, 3), color, np.uint8), kind, quality=95))
            colors[file.name] = (number, color)
        write(folder / "train" / name / f"{name}_boxes.txt", b"not an image")
        lines.append(f"{file.name}\t{name}\t0\t32\t44\t62\n")
    write(folder / "val" / "val_annotations.txt", "".join(lines).encode())
    return colors


def resized_by_a_loop(image, height, width):
    """Bilinear interpolation at the centers of the new pixels."""
    out = np.zeros((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            i = min(max((y + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            j = min(max((x + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            top, left = int(i), int(j)
            for a, wa in ((top, top + 1 - i), (top + 1, i - top)):
                for b, wb in ((left, left + 1 - j), (left + 1, j - left)):
                    if wa and wb:
                        out[y, x] += wa * wb * image[a, b]
    return out
