#!/usr/bin/env python3
"""Record the README's moving picture: a pointer wanders over the cat, and the widget answers in the woman's face.

    python tests/tools/record_widget.py build/docs/live/face.html nbs/widget.gif

The page is one that `export_html` (or `make docs`) wrote. Needs playwright and Chromium, as the browser tests do.
"""
import argparse
import io
import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

CORNERS = [(.384, .37), (.384, .37), (.50, .42), (.696, .437), (.696, .437), (.66, .62), (.575, .88), (.575, .88), (.30, .72), (.25, .45), (.384, .37)]     # where the pointer goes, as shares of the cat: eye, eye, mouth, and back; twice = it rests there


MARKS = ["#e69f00", "#b87f00", "#56b4e9", "#3f86ad", "#fee838", "#7f7c75", "#00224e", "#35456c", "#9fa84f", "#6f7a2f"]     # small but meant: the marks, the veil, the cat's eyes


def way(corners, between):
    "Points along a closed walk, slowing down at its corners."
    for (x, y), (u, v) in zip(corners, corners[1:]):
        for step in range(between):
            share = step / between
            share = share * share * (3 - 2 * share)
            yield x + (u - x) * share, y + (v - y) * share


def record(page_file, corners=CORNERS, between=5, width=760):
    "Screenshots of the widget's pictures along the walk, as PIL images of that width."
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 980, "height": 640})
        page.goto(Path(page_file).resolve().as_uri())
        query = page.locator("[data-view=query]")
        query.wait_for()
        page.wait_for_timeout(1500)
        box, frames = query.bounding_box(), []
        for x, y in way(corners, between):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            page.wait_for_timeout(120)
            shot = Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB")
            frames.append(shot.resize((width, round(shot.height * width / shot.width)), Image.LANCZOS))
        browser.close()
    return frames


def save(frames, path, milliseconds=180, colours=232):
    "One GIF with one palette, so that only what changes is stored again."
    height = min(frame.height for frame in frames)
    frames = [frame.crop((0, 0, frame.width, height)) for frame in frames]
    strip = Image.new("RGB", (frames[0].width, height * 4 + 12 * len(MARKS)))
    for place, colour in enumerate(MARKS): strip.paste(colour, (0, height * 4 + 12 * place, strip.width, height * 4 + 12 * place + 12))
    for place, frame in enumerate(frames[::max(1, len(frames) // 4)][:4]): strip.paste(frame, (0, place * height))
    palette = strip.quantize(colours, method=Image.Quantize.MEDIANCUT)
    flat = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=milliseconds, loop=0, optimize=True)
    print(f"{path}: {len(frames)} frames, {Path(path).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page"), parser.add_argument("out")
    asked = parser.parse_args()
    save(record(asked.page), asked.out)
