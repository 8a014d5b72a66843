"""Draws the sample images and writes what they say to expected.json. Run it with Pillow: `python samples/draw.py`.

The font is the one inside Pillow, so the images come out the same on every machine.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

HERE = Path(__file__).parent
Lines = tuple[str, ...]

SIGN: Lines = ("EMERGENCY EXIT", "Push bar to open")
RECEIPT: Lines = (
    "GREEN MARKET", "12 Harbour Street", "Receipt 004718", "Bread 2.40", "Apples 3.15", "Coffee 7.90", "TOTAL 13.45",
    "Thank you for your visit",
)  # fmt: skip
TERMINAL: Lines = ("$ easel w ocr", "3 replicas ready", "error: port 8000 is taken", "done in 4.2 seconds")
LABEL: Lines = ("TO: Dana Whitfield", "48 Old Mill Lane", "Bristol BS1 4QT", "Parcel 2 of 3")
LETTER: Lines = (
    "Dear reader,", "this page was drawn by a program", "and then made to look scanned:",
    "turned a little, blurred, and noisy.", "The words are still the same.", "Yours, the sample maker",
)  # fmt: skip


def page(lines: Lines, size: int, ink: str, paper: str, margin: int = 32, gap: float = 1.6) -> Image.Image:
    """Lines of text on a plain page that fits them."""
    font = ImageFont.load_default(size)
    width = int(max(font.getlength(line) for line in lines)) + 2 * margin
    image = Image.new("RGB", (width, int(size * gap * len(lines)) + 2 * margin), paper)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        draw.text((margin, margin + row * size * gap), line, font=font, fill=ink)
    return image


def scanned(image: Image.Image, degrees: float, seed: int) -> Image.Image:
    """As if it had lain askew on a cheap scanner: turned, softened, grey, with grain."""
    turned = image.convert("L").rotate(degrees, expand=True, fillcolor=236, resample=Image.Resampling.BICUBIC)
    soft = turned.filter(ImageFilter.GaussianBlur(0.8))
    chance = random.Random(seed)
    grain = bytes(max(0, min(255, round(value + chance.gauss(-6, 9)))) for value in soft.tobytes())
    return Image.frombytes("L", soft.size, grain)


def main() -> None:
    """Writes all samples."""
    samples: dict[str, tuple[Image.Image, Lines]] = {
        "sign.png": (page(SIGN, 56, "white", "#0b7a3b"), SIGN),
        "receipt.png": (page(RECEIPT, 26, "#222222", "#fdfdf8"), RECEIPT),
        "terminal.png": (page(TERMINAL, 22, "#d7e3d0", "#16181d"), TERMINAL),
        "label.jpg": (page(LABEL, 34, "black", "#d9b98a"), LABEL),
        "scanned_letter.jpg": (scanned(page(LETTER, 28, "#1d1d2b", "#ececec", margin=60), 2.0, seed=7), LETTER),
    }
    for name, (image, _) in samples.items():
        image.save(HERE / name, **({"quality": 70} if name.endswith("jpg") else {"optimize": True}))
    expected = {name: {"lines": list(lines)} for name, (_, lines) in samples.items()}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()
