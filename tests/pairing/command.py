"""A run over files as a process of its own, which can be killed: INPUT OUTPUT OPTIONS as JSON."""

import json
import sys

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.pairing.options import PairingOptions

if __name__ == "__main__":
    path, output, options = sys.argv[1:]
    given = json.loads(options)
    selection = SelectionRules(min_margin_quantile=given.pop("min_margin_quantile", None))
    pair_files([path], output, PairingRules(), selection, PairingOptions(**given))
