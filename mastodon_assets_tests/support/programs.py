"""Programs that Python packages install next to the interpreter.

The tests may run in an environment that nobody activated, so that PATH does not have them.
"""

import os
import sys
from pathlib import Path

PROGRAMS = Path(sys.executable).parent


def with_programs() -> dict[str, str]:
    """The environment, with the programs first in PATH."""
    return {**os.environ, "PATH": os.pathsep.join([str(PROGRAMS), os.environ["PATH"]])}
