"""The prompts of the recipe: one Markdown file each, with `{{name}}` placeholders."""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from nat_dpo_pipeline.errors import ConfigurationError

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt text with `{{name}}` placeholders."""

    text: str

    @property
    def names(self) -> frozenset[str]:
        return frozenset(_PLACEHOLDER.findall(self.text))

    def render(self, **values: object) -> str:
        """Fill every placeholder; raises ConfigurationError when one has no value."""
        missing = self.names - values.keys()
        if missing:
            raise ConfigurationError(f"the prompt has placeholders without a value: {', '.join(sorted(missing))}")
        return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), self.text)

    def match(self, text: str) -> dict[str, str] | None:
        """The values with which this template renders to `text`, or None when it cannot."""
        found = self._pattern().fullmatch(text.strip())
        return found.groupdict() if found else None

    def _pattern(self) -> re.Pattern[str]:
        seen: set[str] = set()
        pattern = ""
        for index, piece in enumerate(_PLACEHOLDER.split(self.text.strip())):
            if index % 2 == 0:
                pattern += re.escape(piece)
            else:
                pattern += f"(?P={piece})" if piece in seen else f"(?P<{piece}>.*?)"
                seen.add(piece)
        return re.compile(pattern, re.DOTALL)


@cache
def load(name: str) -> PromptTemplate:
    """The packaged prompt in the file `<name>.md` of this folder."""
    file = resources.files(__package__).joinpath(f"{name}.md")
    return PromptTemplate(file.read_text(encoding="utf-8").strip())
