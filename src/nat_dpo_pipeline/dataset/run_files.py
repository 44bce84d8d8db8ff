"""Names of the files of a run; light, so that commands can import them."""

CANDIDATES = "candidates.jsonl"
SET_ASIDE = "set_aside.jsonl"
FAILURES = "failures.jsonl"
JOURNAL = "journal.sqlite"
#: Folder of the pairs, when they are made in the same run.
DATASET = "dataset"
