"""Look up every pinned package in a database of advisories (OSV), by pip-audit.

Where the database cannot be reached nothing is known. That is said loudly and does not fail a build,
unless ``--strict`` is given. An advisory that is found fails it always.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
DATABASE = "https://api.osv.dev/v1/query"
SECONDS = 15


def main() -> int:
    """The exit code: 0 if no advisory is known, or nothing could be looked up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail where nothing was looked up")
    parser.add_argument("--requirements", type=Path, default=LOCK, help="pinned, name==version")
    parser.add_argument("--database", default=DATABASE, help="the address of OSV's queries")
    options = parser.parse_args()
    if (reason := unreachable(options.database)) is not None:
        print(
            f"AUDIT SKIPPED: {options.database} cannot be reached ({reason}); no package of "
            f"{options.requirements.name} was looked up. Run `make audit` where there is a network."
        )
        return int(options.strict)
    return subprocess.run(
        [
            sys.executable, "-m", "pip_audit", "--requirement", options.requirements,
            "--no-deps", "--disable-pip", "--progress-spinner", "off",
            "--vulnerability-service", "osv", "--osv-url", options.database,
        ],
        check=False,
    ).returncode  # fmt: skip


def unreachable(address: str) -> str | None:
    """Why an address does not answer; None if it does, whatever it says."""
    try:
        with urllib.request.urlopen(address, timeout=SECONDS):  # noqa: S310 - the option's own
            return None
    except urllib.error.HTTPError as error:
        # It takes queries, and this was none; anything else is said by somebody on the way.
        return None if error.code in (400, 404, 405) else f"HTTP {error.code}"
    except (urllib.error.URLError, OSError) as error:
        return str(getattr(error, "reason", error))


if __name__ == "__main__":
    sys.exit(main())
