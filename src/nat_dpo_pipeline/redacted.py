"""Settings as they may be written down: without keys and secrets."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, SecretStr

_SECRET_NAME = re.compile(
    r"(api|access|private|secret)[_-]?keys?$|secret|password|passphrase|passwd|credential|authorization|bearer|cookie"
    r"|connection[_-]string|(^|[_-])auth([_-]|$)|(^|[_-]|[a-z])tokens?$|headers?$",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")


def redacted(value: object) -> object:
    """`value` as JSON values, with the values of secrets and of keys named like secrets replaced by "***"."""
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return redacted({**fields, **(value.model_extra or {})})
    if isinstance(value, Mapping):
        return {str(name): "***" if _is_secret(str(name), item) else redacted(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(item) for item in value]
    return value if isinstance(value, bool | int | float) or value is None else _CREDENTIALS.sub("***@", str(value))


def _is_secret(name: str, value: object) -> bool:
    # A number under such a name is a setting (max_tokens), not a secret.
    return isinstance(value, str | Mapping | list) and _SECRET_NAME.search(name) is not None
