"""``python -m copycat.demo``: the same as ``copycat demo``."""

import sys

from ..cli import main

sys.exit(main(["demo", *sys.argv[1:]]))
