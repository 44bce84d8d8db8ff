"""The modules that the demo speaks about, on the shelves on which a reader would look for them.

Each is importable without side effects on every platform that Python supports, and has documented members.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shelf:
    """Modules about the same subjects."""

    subjects: str
    modules: tuple[str, ...]


SHELVES = (
    Shelf(
        "text processing strings characters unicode formatting patterns regular expressions natural language",
        ("string", "re", "textwrap", "difflib", "unicodedata"),
    ),
    Shelf(
        "data structures types containers collections algorithms sorting searching queues graphs trees",
        ("collections", "heapq", "bisect", "array", "queue", "dataclasses", "enum", "graphlib", "weakref", "copy"),
    ),
    Shelf("dates times calendars clocks scheduling", ("datetime", "calendar", "time", "zoneinfo")),
    Shelf(
        "mathematics math numbers arithmetic numeric statistics probability science geometry data analysis",
        ("math", "cmath", "statistics", "fractions", "decimal", "random", "numbers"),
    ),
    Shelf("functional programming functions iterators", ("itertools", "functools", "operator")),
    Shelf(
        "files directories paths file systems storage",
        ("pathlib", "os.path", "shutil", "tempfile", "glob", "fnmatch", "filecmp", "fileinput", "linecache"),
    ),
    Shelf("input output streams operating system", ("io", "platform", "stat", "selectors", "signal")),
    Shelf("binary data bytes encodings", ("struct", "codecs", "binascii", "base64", "quopri")),
    Shelf("data persistence serialization objects storage", ("pickle", "shelve", "marshal", "copyreg")),
    Shelf("data compression archives", ("zlib", "gzip", "bz2", "lzma", "zipfile", "tarfile")),
    Shelf("file formats data exchange configuration", ("csv", "json", "configparser", "plistlib", "tomllib")),
    Shelf("cryptography security hashing passwords secrets", ("hashlib", "hmac", "secrets", "getpass")),
    Shelf(
        "concurrency parallelism threads processes asynchronous programming",
        ("threading", "concurrent.futures", "asyncio", "subprocess"),
    ),
    Shelf(
        "networking network internet web protocols servers clients",
        (
            "socket",
            "socketserver",
            "ipaddress",
            "urllib.parse",
            "urllib.request",
            "http.cookiejar",
            "smtplib",
            "email.utils",
            "mimetypes",
            "uuid",
        ),
    ),
    Shelf("markup html xml web documents", ("html", "html.parser", "xml.etree.ElementTree", "xml.sax.saxutils")),
    Shelf("command line interfaces programs user interaction", ("argparse", "cmd", "shlex", "locale")),
    Shelf("testing quality software engineering", ("unittest", "unittest.mock", "doctest")),
    Shelf(
        "debugging profiling performance errors logging",
        ("logging", "traceback", "warnings", "timeit", "tracemalloc", "faulthandler", "pprint", "reprlib"),
    ),
    Shelf(
        "python language code parsing compilers introspection types classes memory management resources",
        ("ast", "dis", "inspect", "tokenize", "typing", "abc", "contextlib", "gc", "pkgutil", "types"),
    ),
)

MODULES = tuple(module for shelf in SHELVES for module in shelf.modules)
