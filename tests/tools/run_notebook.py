#!/usr/bin/env python3
"""Execute notebooks in place, the nbdev way: cells with a test flag (`#| slow`, `#| cuda`, `#| notest`) or
`#| eval: false` are left alone *with their outputs*, unless the flag is asked for.

    python tests/tools/run_notebook.py nbs/1_images/11_data.ipynb [more.ipynb ...] [--flags slow cuda]

nbclient on its own would run a CUDA cell on a laptop, and `nbdev_test` runs the right cells but keeps no outputs;
this does both, then strips widget state and execution metadata so that the diff is only what changed.
"""
import argparse
import base64
import io
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FLAGS = {"notest", "slow", "cuda"}


def flags_of(source):
    "The nbdev test flags a cell carries, with 'off' standing for `eval: false`."
    found = {word for word in re.findall(r"^#\s*\|\s*(\w+)\s*$", source, re.M) if word in FLAGS}
    return found | ({"off"} if re.search(r"^#\s*\|\s*eval:\s*false", source, re.M | re.I) else set())


def run(path, allowed=(), timeout=3600):
    "Execute one notebook in place; return the seconds it took."
    notebook, started = nbformat.read(path, as_version=4), time.time()
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and not (flags_of(cell.source) - set(allowed)):
                client.execute_cell(cell, index)
                cell.metadata.pop("execution", None)
                cell.outputs = merge_streams(cell.outputs)
    notebook.metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    nbformat.write(notebook, path)
    return time.time() - started


def small_png(text, limit=100_000):
    "A picture as a notebook holds it; one of more bytes with 256 colours, chosen so that none is far off (a mark's few pixels keep theirs)."
    content = base64.b64decode(text)
    if len(content) <= limit: return text
    reduced = io.BytesIO()
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(reduced, "PNG", optimize=True)
    return base64.b64encode(min(content, reduced.getvalue(), key=len)).decode() + "\n"


def merge_streams(outputs):
    "Join neighbouring pieces of one stream and drop progress bars, which are noise in a committed notebook."
    merged = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr" and "\r" in output.text: continue
            if merged and merged[-1].output_type == "stream" and merged[-1].name == output.name:
                merged[-1].text += output.text
                continue
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = small_png(output.data["image/png"])
            output.data.pop("application/vnd.jupyter.widget-view+json", None)    # the still picture stays; a view without its kernel is an error message
        merged.append(output)
    return merged


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--flags", nargs="*", default=(), choices=sorted(FLAGS))
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        print(f"{path}: {run(path, arguments.flags):.1f} s")
        sys.stdout.flush()
