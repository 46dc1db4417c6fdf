"""The program `mastodon-assets`, which `python -m mastodon_assets.cli.main` runs as well.

What belongs here: what must be done before the commands are loaded, which takes half a second.
"""

import sys

from mastodon_assets.cli.interrupts import INTERRUPTED, end_on_signals, forget_signals


def main() -> None:
    """Run the command of this process's arguments, and exit."""
    try:
        end_on_signals()
        from mastodon_assets.cli.app import run

        status = run(sys.argv[1:])
        # What is left to do needs no good order.
        forget_signals()
    except KeyboardInterrupt:
        status = INTERRUPTED
    raise SystemExit(status)


if __name__ == "__main__":
    main()
