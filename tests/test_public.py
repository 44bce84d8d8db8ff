import subprocess
import sys

import pytest

import nat_dpo_pipeline


def test_the_public_names_exist_and_are_sorted() -> None:
    names = list(nat_dpo_pipeline.__all__)
    assert names
    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(nat_dpo_pipeline, name)] == []


def test_no_other_name_is_public() -> None:
    """A name that is imported for use inside would become part of the interface."""
    modules = {name.rpartition(".")[2] for name in sys.modules if name.startswith("nat_dpo_pipeline.")}
    public = {name for name in vars(nat_dpo_pipeline) if not name.startswith("_")}
    assert public - modules - set(nat_dpo_pipeline.__all__) == {"TYPE_CHECKING", "import_module"}


def test_names_are_found_where_they_are_said_to_be() -> None:
    assert sorted(nat_dpo_pipeline._MODULE_OF) == nat_dpo_pipeline.__all__  # noqa: SLF001
    with pytest.raises(AttributeError, match="has no attribute 'Candidates'"):
        _ = nat_dpo_pipeline.Candidates  # type: ignore[attr-defined]
    assert set(nat_dpo_pipeline.__all__) <= set(dir(nat_dpo_pipeline))


def test_public_names_say_where_they_come_from() -> None:
    for name in nat_dpo_pipeline.__all__:
        assert getattr(nat_dpo_pipeline, name).__doc__, name


def test_importing_the_package_imports_no_framework() -> None:
    script = (
        "import sys, nat_dpo_pipeline\n"
        "print(*(name for name in ('nat', 'openai', 'pydantic', 'starlette', 'orjson', 'yaml', 'torch')"
        " if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
