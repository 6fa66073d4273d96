"""CUDA sources compiled for the host by g++, to check their arithmetic where there is no device.

The kernels are the very text that a device gets.  Threads wait for one another at barriers and at
shuffles; a kernel in which one waits for a thread that never comes is an error.  What the host
cannot check: that threads agree on nothing that the text leaves open, and how fast it is.
"""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++")
NO_COMPILER = "g++, which compiles kernels for the stand-in, is not here; apt install g++ brings it"
_SOURCES = tuple(Path(__file__).with_name(f"cuda_on_cpu.{suffix}") for suffix in ("h", "cpp"))
_FLAGS = (
    *("-std=c++17", "-O1", "-fPIC"),
    "-U_FORTIFY_SOURCE",  # longjmp goes where fortified sources forbid it
    # static variables of templates, which stand for shared memory, would else be those of the
    # first library that has some of the same name
    "-fno-gnu-unique",
)
_SCALARS = {
    "long long": np.int64,
    "unsigned long long": np.uint64,
    "i64": np.int64,
    "u64": np.uint64,
    "u32": np.uint32,
    "u16": np.uint16,
    "u8": np.uint8,
    "bool": np.bool_,
    "int": np.int32,
    "float": np.float32,
    "double": np.float64,
}
_WAITS = re.compile(r"__syncthreads|__syncwarp|__shfl_")
_ALIAS = re.compile(r"typedef ([\w ]+) (\w+);")
_KERNEL = re.compile(
    r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(([^)]*)\)'
)
_FOLDER = "CUDA_ON_CPU_FOLDER"
"""The variable that names the folder of what was compiled, for all workers of a session."""

_DAYS = 30
"""How long a folder keeps what no session uses."""


def keep_in(folder):
    """Keep what is compiled in a folder for later sessions, unless the variable names another.

    Each file there is named by all that it was made of, so what another version left is never taken
    for this one's.  What no session has used for `_DAYS` days goes.
    """
    os.environ.setdefault(_FOLDER, str(folder))
    oldest = time.time() - _DAYS * 86_400
    for path in Path(os.environ[_FOLDER]).rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another session may be cleaning, too
            if path.is_file() and path.stat().st_mtime < oldest:
                path.unlink()


def _folder():
    """Where compiled files are: a folder of this process alone, if nothing was said."""
    if _FOLDER not in os.environ:
        os.environ[_FOLDER] = tempfile.mkdtemp(prefix="cuda-on-cpu-")
        atexit.register(shutil.rmtree, os.environ[_FOLDER], ignore_errors=True)
    return Path(os.environ[_FOLDER])


class Program:
    """A source, each of whose kernels is compiled when it is first launched.

    Args:
        source: CUDA C++ text, its kernels `extern "C"`.
        options: NVRTC's; only definitions (-D...) count.
    """

    def __init__(self, source, options=()):
        # A header that was compiled without a macro cannot be used with it on the command line.
        macros = [
            f"#define {option[2:].replace('=', ' ', 1)}\n"
            for option in options
            if option.startswith("-D")
        ]
        self._text = "".join(macros) + source
        expanded = _expanded(self._text)
        types = {new: old for old, new in _ALIAS.findall(expanded)}
        structs = dict(re.findall(r"struct (\w+) \{\n((?:    \w+ \w+\[\d+\];\n)+)\}", source))
        self._declared = {name: _declared(text) for name, text in _KERNEL.findall(expanded)}
        self.parameters = {
            name: [(_dtype(kind, types, structs), is_array) for kind, is_array in declared]
            for name, declared in self._declared.items()
        }
        self.barriers = _WAITS.search(source) is not None

    @functools.cache  # noqa: B019, programs live as long as the session
    def _launcher(self, name):
        """The C function that runs a kernel."""
        taken = ", ".join(
            f"*({kind}{'*' if is_array else ''}*)a[{i}]"
            for i, (kind, is_array) in enumerate(self._declared[name])
        )
        text = self._text + (
            f"\nstatic void call(void** a) {{ {name}({taken}); }}\n"
            'extern "C" const char* launch(void** a, unsigned b, unsigned t, bool waits) '
            "{ return run_blocks(call, a, b, t, waits); }\n"
        )
        run = ctypes.CDLL(str(_library(text))).launch
        run.restype = ctypes.c_char_p
        return run

    def launch(self, name, blocks, threads, arguments):
        """Run a kernel on NumPy arrays (None for a null pointer), scalars and structs, which must
        be of exactly its types.  AssertionError says what it does that a device does not allow."""
        parameters = self.parameters[name]
        assert len(arguments) == len(parameters), f"{name} takes {parameters}"
        pointers = (ctypes.c_void_p * len(arguments))()
        kept = []
        for i, (argument, (dtype, is_array)) in enumerate(zip(arguments, parameters, strict=True)):
            if argument is not None or not is_array:
                by_value = not is_array and dtype.kind == "V"  # a struct, as an array of one
                expected = np.ndarray if is_array or by_value else np.generic
                assert isinstance(argument, expected), (name, i, argument)
                assert argument.dtype == dtype, (name, i, argument.dtype, dtype)
                assert not by_value or argument.size == 1, (name, i)
            if is_array:
                assert argument is None or argument.flags.c_contiguous, (name, i)
                value = ctypes.c_void_p(None if argument is None else argument.ctypes.data)
                pointers[i] = ctypes.cast(ctypes.pointer(value), ctypes.c_void_p)
                kept.append(value)
            else:
                value = np.array(argument)
                pointers[i] = value.ctypes.data
                kept.append(value)
        counts = ctypes.c_uint(blocks), ctypes.c_uint(threads)
        failure = self._launcher(name)(pointers, *counts, ctypes.c_bool(self.barriers))
        assert failure is None, f"{name}: {failure.decode()}"


@functools.cache
def program(source, options=()):
    """The program of a source, the same one whenever it is asked for."""
    return Program(source, options)


def _library(text):
    """The library of a text.  What was compiled once is there for all workers of a session, and for
    the next session if the folder is kept."""
    header = _compiled_header()
    library = header.with_name(f"{hashlib.sha256(text.encode()).hexdigest()}.so")
    if not library.exists():
        # the header must not be read again instead of what was made of it
        flags = ("-shared", "-nostdlib", "-Werror=invalid-pch", "-include", str(header))
        _compile((*flags, "-x", "c++", "-"), library, text)
    os.utime(library)  # it is in use
    return library


@functools.cache
def _compiled_header():
    """A copy of the header beside what the compiler made of it, and what it declares, loaded."""
    texts = [path.read_text() for path in _SOURCES]
    version = subprocess.run([COMPILER, "-v"], capture_output=True, text=True, check=True).stderr
    name = hashlib.sha256("".join((version, *texts, *_FLAGS)).encode()).hexdigest()
    folder = _folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    header, source = (folder / path.name for path in _SOURCES)
    for copy, text in zip((header, source), texts, strict=True):
        if not copy.exists():
            _written(copy, lambda path, text=text: path.write_text(text))
    compiled, library = folder / f"{header.name}.gch", folder / "threads.so"
    if not compiled.exists():
        _compile(("-x", "c++-header", str(header)), compiled)
    if not library.exists():
        _compile(("-shared", str(source)), library)
    for path in (header, source, compiled, library):
        os.utime(path)
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return header


def _compile(flags, output, text=""):
    """Compile a text, or what the flags name, to a file."""

    def run(path):
        command = [COMPILER, *_FLAGS, *flags, "-o", str(path)]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert not done.returncode, done.stderr

    _written(output, run)


def _written(path, write):
    """Let a file appear as a whole, as another process may be looking for it."""
    own = path.with_name(f"{os.getpid()}-{path.name}")
    write(own)
    own.replace(path)


def _expanded(text):
    """The text that a compiler reads: with its macros put in, without what they leave out."""
    if not re.search(r"^\s*#(?!pragma)", text, re.MULTILINE):
        return text
    command = [COMPILER, "-E", "-P", "-x", "c++", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _declared(text):
    """`(C type, is it an array)` of each parameter in a list of declarations."""
    result = []
    for declaration in text.split(","):
        words = declaration.replace("const ", "").replace("*", " * ").split()
        is_array = "*" in words
        result.append((" ".join(words[: words.index("*")] if is_array else words[:-1]), is_array))
    return result


def _dtype(kind, types, structs):
    """The dtype of a C type; `types` has the other names of types, and `structs` the fields, arrays
    of numbers, of each type that a parameter may have by value."""
    while kind in types and kind not in _SCALARS:
        kind = types[kind]
    fields = re.findall(r"(\w+) (\w+)\[(\d+)\];", structs.get(kind, ""))
    of_fields = [(name, _SCALARS[of], (int(n),)) for of, name, n in fields]
    return np.dtype(of_fields or _SCALARS[kind])
