"""Start LASER Studio: `python app.py`, or `python app.py --help` for what can be chosen."""

from __future__ import annotations

import argparse
import os
import sys

from laser_studio import __version__
from laser_studio.errors import LaserStudioError
from laser_studio.studio import launch


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line as values."""
    parser = argparse.ArgumentParser(prog="app.py", description="LASER Studio: watch a recursive reasoning model solve a puzzle.")
    parser.add_argument(
        "--checkpoint", action="append", default=[], metavar="PATH", help="offer this model too, a path or hf://owner/name (repeatable)"
    )
    parser.add_argument(
        "--watch", action="append", default=[], metavar="PATH", help="open what laser_studio.watch records there (repeatable)"
    )
    parser.add_argument(
        "--puzzles", action="append", default=[], metavar="PATH", help="offer the puzzles of this file or data set folder (repeatable)"
    )
    parser.add_argument("--runs", default=None, metavar="FOLDER", help="where the training page keeps its runs; default runs/studio")
    parser.add_argument("--device", default="auto", help="auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1, mps; default %(default)s")
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to serve at; 0.0.0.0 for all; default %(default)s",
    )
    parser.add_argument("--port", type=port, default=None, help="default: the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="also serve through a public Gradio link")
    parser.add_argument("--auth", type=user_and_password, default=None, metavar="USER:PASSWORD", help="what every visitor must log in with")
    parser.add_argument("--version", action="version", version=f"LASER Studio {__version__}")
    return parser.parse_args(arguments)


def port(text: str) -> int:
    """A TCP port."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text[:20]!r}")
    return int(text)


def user_and_password(text: str) -> tuple[str, str]:
    """USER:PASSWORD as two."""
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise argparse.ArgumentTypeError("give a user and a password with a colon between them, such as ada:secret")
    return user, password


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl+C; returns the exit code."""
    flags = parse_flags(arguments)
    try:
        launch(
            flags.checkpoint,
            watch=flags.watch,
            runs=flags.runs,
            puzzles=flags.puzzles,
            device=flags.device,
            host=flags.host,
            port=flags.port,
            share=flags.share,
            auth=flags.auth,
        )
    except LaserStudioError as problem:
        print(f"LASER Studio: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
