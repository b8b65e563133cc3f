"""`python -m dstack.supervise`: the background supervisor."""

from __future__ import annotations

import sys

from .background import main
from .build import make_supervisor

if __name__ == "__main__":
    sys.exit(main(make_supervisor))
