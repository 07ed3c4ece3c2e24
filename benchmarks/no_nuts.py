"""What the champion says of photographs that are no nuts, and of nuts: "unfamiliar" or "unsure".

Usage: python -m benchmarks.no_nuts DATA [STORE [MODEL [OTHERS]]]

DATA is a folder train|valid|test/<class>/<image>; its valid split is the nuts. The others are
scikit-learn's two sample photographs, whole and in nine parts each, drawn things, and the images
of the folder OTHERS, whole and in nine parts each: wallpapers, say.
"""

import io
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from nutclf.data.folder import IMAGE_EXTENSIONS
from nutclf.process import quiet

N = 20


def samples() -> list[Image.Image]:
    """A Chinese temple and a flower, and nine parts of each."""
    from sklearn.datasets import load_sample_images

    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    return whole + [part for image in whole for part in _parts(image, 3)]


def _parts(image: Image.Image, n: int) -> list[Image.Image]:
    width, height = image.width // n, image.height // n
    corners = [(x * width, y * height) for y in range(n) for x in range(n)]
    return [image.crop((x, y, x + width, y + height)) for x, y in corners]


def noise(rng: np.random.Generator) -> np.ndarray:
    """Every pixel by chance."""
    return rng.integers(0, 256, (224, 224, 3))


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Two colours, of a random width and direction."""
    x, y = np.meshgrid(np.arange(224), np.arange(224))
    angle, width = rng.uniform(0, np.pi), rng.uniform(4, 40)
    first = ((x * np.cos(angle) + y * np.sin(angle)) // width).astype(int) % 2 == 0
    colours = rng.integers(0, 256, (2, 3))
    return np.where(first[..., None], colours[0], colours[1])


def drawn(draw) -> list[Image.Image]:
    """`N` pictures of one kind."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(draw(rng).astype(np.uint8)) for _ in range(N)]


def main() -> None:
    """Prints a table."""
    quiet()
    from nutclf.serve.answers import open_champion
    from nutclf.serve.photographs import UNFAMILIAR, UNSURE
    from nutclf.track.store import Store

    folder = Path(sys.argv[1])
    store = Path(sys.argv[2] if len(sys.argv) > 2 else "mlruns")
    name = sys.argv[3] if len(sys.argv) > 3 else "nutclf"
    champion = open_champion(Store.at(store, os.environ), name).recogniser
    nuts = sorted(f for f in (folder / "valid").rglob("*") if f.suffix in IMAGE_EXTENSIONS)
    kinds = {"nuts of the valid split": [file.read_bytes() for file in nuts]}
    kinds["scikit-learn's photographs and their parts"] = [_png(image) for image in samples()]
    if len(sys.argv) > 4:
        found = sorted(f for f in Path(sys.argv[4]).rglob("*") if f.suffix in IMAGE_EXTENSIONS)
        images = [Image.open(file).convert("RGB") for file in found]
        kinds["other photographs and their parts"] = [
            _png(part) for image in images for part in (image, *_parts(image, 3))
        ]
    for draw in (noise, stripes):
        kinds[draw.__name__] = [_png(image) for image in drawn(draw)]
    print("| what | unfamiliar | unsure | otherwise called |\n|---|---|---|---|")
    for name, files in kinds.items():
        answers = champion.recognise(np.stack([champion.read(file) for file in files]))
        labels = [answer.label for answer in answers]
        others = sorted(set(labels) - {UNSURE, UNFAMILIAR}, key=labels.count)[::-1]
        called = ", ".join(f"{label} {labels.count(label)}" for label in others[:3])
        refused = " | ".join(
            f"{labels.count(kind)} of {len(labels)}" for kind in (UNFAMILIAR, UNSURE)
        )
        print(f"| {name} | {refused} | {called} |")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
