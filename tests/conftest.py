import os
from importlib.metadata import PackageNotFoundError, distribution

import authlib.deprecate  # noqa: F401 - when imported it resets warning filters; so before those of the tests are set
from hypothesis import settings

# NAT reads this when it is imported.
os.environ.setdefault("NAT_TELEMETRY_ENABLED", "false")

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


# The comparisons need NVIDIA's own package, which lives in an environment of its own: see `make compat`.
collect_ignore = [] if _is_installed("nvidia-nat-nemo-customizer") else ["compat"]
