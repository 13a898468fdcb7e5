"""Makes the screenshots of TensorBoard for the documentation: python docs/screenshots.py RUNS [--out docs]

RUNS is a directory with runs, such as runs/ after `make train`. Chromium must be installed (Debian: apt-get install
chromium).
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

PAGES = {
    "tensorboard_scalars.png": "scalars",
    "tensorboard_images.png": "images",
    "tensorboard_graph.png": "graphs",
}
WIDTH, HEIGHT = 1280, 800
PATIENCE_SECONDS = 120


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: docs")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        parser.error("Chromium is not installed; on Debian: apt-get install chromium")
    if not list(args.runs.glob("**/events.*")):
        parser.error(f"{args.runs} has no TensorBoard events; train first, for example with make train")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(args.runs), "--host", "localhost"]
    board = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://localhost:{port}/data/runs")
        for name, page in PAGES.items():
            shoot(chromium, f"http://localhost:{port}/#{page}", args.out / name)
            print(args.out / name)
    finally:
        board.terminate()
        board.wait()


def wait_for(url: str) -> None:
    """Waits until TensorBoard has read the runs."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url) as answer:
                if len(answer.read()) > 2:  # [] before the first run is read
                    return
        except urllib.error.URLError:
            pass  # the server has not started yet
        if time.monotonic() > end:
            raise SystemExit(f"TensorBoard did not show the runs within {PATIENCE_SECONDS} seconds")
        time.sleep(0.5)


def shoot(chromium: str, url: str, path: Path) -> None:
    """Writes a screenshot of a page after it has loaded, in 256 colours, which halves the file."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=30000"]
    size = f"--window-size={WIDTH},{HEIGHT}"
    done = subprocess.run(
        [chromium, *options, size, f"--screenshot={path.resolve()}", url], capture_output=True, text=True
    )
    if done.returncode or not path.exists():
        raise SystemExit(f"Chromium wrote no screenshot of {url}:\n{done.stderr[-500:]}")
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
