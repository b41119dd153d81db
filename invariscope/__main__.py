"""``python -m invariscope``: the command line."""

from __future__ import annotations

import sys

from invariscope.cli import main

sys.exit(main())
