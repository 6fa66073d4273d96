"""Numbers in the prose of a page: which there are, and which of them nothing accounts for."""

import re

NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w/]|\.\d)")
"""A number that stands alone: not that of a name, as in `CIFAR-10x`."""
ANY = re.compile(r"\d[\d_,]*(?:\.\d+)?(?:e[+-]?\d+)?")
"""A number anywhere, as in `dkh-mlp512-sgd-2e-4`."""
NOT_PROSE = (
    r"```.*?```",  # blocks of code
    r"`[^`\n]*`",
    r"!\[[^\]]*\]\([^)]*\)",  # pictures
    r"(?<=\])\([^)]*\)",  # the targets of links
    r"<[^>]*>",
    r"^\|.*$",  # tables
    r"^#.*$",
)
NAMES = (
    r"(?:Figures?|Tables?|[Ss]ections?|Propositions?|seeds?) \d[\d.]*(?:(?:,| and) \d[\d.]*)*",
    r"et al\., \d{4}|et al\. \d{4}",
    r"\d+(?:-q|-\d+){2,}",  # a network by its widths
    r"\d+-q-\d+",
    r"M/\d+/\d+",
    r"CIFAR-10|ResNet18|1/N|\d+ ?[x×] ?\d+(?:[x×]\d+)*|\d+[–-]D",
)
"""Numbers that are names: of figures, years, networks and data sets, and sizes of images."""


def prose(text: str) -> str:
    """Return the prose of a page or section, as one line."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.S if "```" in pattern else re.M)
    return re.sub(r"\s+", " ", text)


def value(token: str) -> float:
    """Return the number that is printed so."""
    return float(token.replace(",", "").replace("_", "").replace("−", "-"))


def numbers_in(text: str) -> set[float]:
    """Return every number of a text, also those in names."""
    return {value(token) for token in ANY.findall(text)}


def unheld(text: str, printed: set[float], settings: set[float]) -> list[str]:
    """Return the numbers of prose that nothing accounts for.

    Args:
        text: prose.
        printed: numbers of the tables beside it, and published ones; they account for all.
        settings: numbers of settings; they account for whole numbers and for powers of ten such as
            1e-4, and not for decimal numbers nor for percents, which are results.
    """
    for pattern in NAMES:
        text = re.sub(pattern, " ", text)
    left = []
    for match in NUMBER.finditer(text):
        token, behind = match.group(), text[match.end() : match.end() + 2]
        is_setting = "." not in token and not re.match(r" ?[%°]", behind)
        if not (value(token) in printed or (is_setting and value(token) in settings)):
            left.append(f"{token} in …{text[max(0, match.start() - 40) : match.end() + 20]}…")
    return left
