"""YAML that a user wrote. Every way in which it cannot be read is one error, which quotes no value: it may be a key."""

from pathlib import Path

import yaml

from nat_dpo_pipeline.errors import ConfigurationError

# What walks settings takes several calls a level, of the 1,000 that Python makes within one another.
_MOST_NESTED = 100
# Aliases of aliases hold ten times as much with every line; what copies or prints them takes it at its word.
_MOST_VALUES = 100_000
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> object:
    """Return what a file holds. Raises ConfigurationError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {error}") from error
    return parse_yaml(text, repr(str(path)))


def parse_yaml(text: str, name: str) -> object:
    """Return what a text of one document holds; errors call it `name`. Raises ConfigurationError."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(loader, name).values_in(node, 0)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ConfigurationError(f"{name}{line} cannot be read as YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{name} cannot be read as YAML: {error}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{name} cannot be read as YAML: it is nested too deep") from error


class _Check:
    """Counts the values in nodes, aliases as often as they are used. Raises ConfigurationError for what is no value."""

    def __init__(self, loader: yaml.SafeLoader, name: str) -> None:
        self._loader = loader
        self._name = name
        self._counts: dict[yaml.Node, int | None] = {}

    def values_in(self, node: yaml.Node, level: int) -> int:
        if node not in self._counts:
            self._counts[node] = None
            self._counts[node] = self._counted(node, level + 1)
        count = self._counts[node]
        if count is None:
            raise self._error(node, "an alias stands for something that it is in itself")
        return count

    def _counted(self, node: yaml.Node, level: int) -> int:
        if level > _MOST_NESTED:
            raise self._error(node, f"it is nested deeper than {_MOST_NESTED} levels")
        if isinstance(node, yaml.ScalarNode):
            if node.tag != _MERGE:
                self._check_scalar(node)
            return 1
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        count = 1 + sum(self.values_in(one, level) for one in inner)
        if count > _MOST_VALUES:
            raise self._error(node, f"it holds more than {_MOST_VALUES:,} values, aliases counted as what they are of")
        return count

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        try:
            self._loader.construct_object(node)
        except yaml.YAMLError:
            raise
        except Exception as error:  # whatever PyYAML meets in a value that its tag or form promises and that is none
            kind = node.tag.rpartition(":")[2]
            raise self._error(
                node, f"a value looks like one of type {kind}, but is none; put a text in quotes"
            ) from error

    def _error(self, node: yaml.Node, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self._name}, line {node.start_mark.line + 1} cannot be read as YAML: {problem}")
