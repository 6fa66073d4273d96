"""What to write instead of functions that can have no rule there: the ends of sentences."""

from __future__ import annotations

_IN_PLACE = "writes into a plain array, which cannot hold a tangent; "
_COUNTS = (
    "counts, and counts do not move with small changes; call it on dn.stop_gradient(x), or sum a "
    "smooth kernel such as np.exp(-((x[:, None] - centers) / width) ** 2)"
)
_COMPLEX = (
    "works with complex numbers, which carry no tangents; multiply by the real matrices "
    "np.cos(2 * np.pi * i * j / n) and np.sin(2 * np.pi * i * j / n), or use np.convolve"
)

_FILES = (
    "writes plain numbers to a file; pass dn.stop_gradient(x), or return x with has_aux=True and "
    "save what comes back"
)

INSTEAD = {
    **{f"np.{name}": _FILES for name in ("save", "savez", "savez_compressed", "savetxt")},
    "np.put_along_axis": _IN_PLACE
    + "write np.where(np.arange(n) == indices, values, x), for n entries along the last axis",
    "np.put": _IN_PLACE + "write np.where(mask, values, x)",
    "np.place": _IN_PLACE + "write np.where(mask, values, x)",
    "np.putmask": _IN_PLACE + "write np.where(mask, values, x)",
    "np.copyto": _IN_PLACE + "use the source itself, or write np.where(mask, source, x)",
    "np.fill_diagonal": _IN_PLACE + "write np.where(np.eye(n, dtype=bool), value, x)",
    **{f"np.{name}": _COUNTS for name in ("histogram", "histogram2d", "histogramdd")},
    "np.histogram_bin_edges": _COUNTS,
    **{
        f"np.fft.{name}": _COMPLEX
        for name in (
            *("fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "ifft2", "rfft2", "irfft2"),
            *("fftn", "ifftn", "rfftn", "irfftn"),
        )
    },
}
"""Function → what its error says after its name."""
