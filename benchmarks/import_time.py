"""What loading the plugin adds to the start of `nat`: the import of its entry point, after NAT's own plugins.

Each round is a fresh process, with compiled files, as an installation has them. Prints one JSON line.
"""

import json
import os
import statistics
import subprocess
import sys

_MEASURE = """
import time
from importlib.metadata import entry_points
from nat.cli.type_registry import GlobalTypeRegistry
with GlobalTypeRegistry.get().pause_registration_changed_hooks():
    for entry_point in entry_points(group="nat.components"):
        entry_point.load()
    started = time.perf_counter()
    import nat_dpo_pipeline.plugin.register
    print(1000 * (time.perf_counter() - started))
"""


def main() -> None:
    command = [sys.executable, "-W", "ignore", "-c", _MEASURE]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    _, *rounds = (
        float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1])
        for _ in range(6)
    )
    print(json.dumps({"benchmark": "import_time", "milliseconds": round(statistics.median(rounds), 1)}))


if __name__ == "__main__":
    main()
