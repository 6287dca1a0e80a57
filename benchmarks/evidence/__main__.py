"""``python benchmarks/evidence``: the folder above stands in for this one on the path."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    raise SystemExit(importlib.import_module("evidence.run").main())
