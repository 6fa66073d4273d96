"""What an error in a layer says besides: where in the network, and what is asked of the layer."""

from __future__ import annotations

from typing import NamedTuple

from dualnet.errors import DualnetError


class Place(NamedTuple):
    """Where an error arose.

    Attributes:
        path: of the layer, names joined by `/`.
        what: of the layer was called.
        contract: what it got, and what it should do.
    """

    path: str
    what: str
    contract: str

    def shown(self, error: Exception) -> str:
        """Return what an error says of it: only where, if it is one of dualnet's, which says what
        was expected and what came."""
        where = f"in layer {self.path} ({self.what})"
        return where if isinstance(error, DualnetError) else f"{where}: {self.contract}"


def locate(error: Exception, path: str, what: str, contract: str) -> None:
    """Say in an error where it arose, unless it says so already.

    An error of dualnet's says it in its message.  One of any other kind keeps its type and its
    message, and gets a note, which Python prints below it.
    """
    if getattr(error, "place", None) is None:
        _write(error, Place(path, what, contract))


def locate_below(error: Exception, name: str) -> None:
    """Put the name of a container before the path that an error in it says."""
    place = getattr(error, "place", None)
    if isinstance(place, Place):
        if isinstance(error, DualnetError):
            error.args = (str(error).removesuffix(f"; {place.shown(error)}"),)
        else:
            error.__notes__.remove(place.shown(error))  # type: ignore[attr-defined]
        _write(error, place._replace(path=f"{name}/{place.path}"))


def _write(error: Exception, place: Place) -> None:
    error.place = place  # type: ignore[attr-defined]
    if isinstance(error, DualnetError):
        error.args = (f"{error}; {place.shown(error)}",)
    else:  # as `add_note` does, which Python 3.10 has not
        notes = [*getattr(error, "__notes__", []), place.shown(error)]
        error.__notes__ = notes  # type: ignore[attr-defined]
