"""CUDA sources compiled for the host by g++, to check their arithmetic where there is no device.

The kernels are the very text that a device gets.  Threads wait for one another at barriers and at
shuffles; a kernel in which one waits for a thread that never comes is an error.  What the host
cannot check: that threads agree on nothing that the text leaves open, and how fast it is.
"""

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++")
_HEADER = Path(__file__).with_name("cuda_on_cpu.h")
# longjmp goes where fortified sources forbid it; and static variables of templates, which stand for
# shared memory, would else be those of the first library that has some of the same name
_FLAGS = ("-O1", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-fno-gnu-unique")
_KERNEL = r'extern "C" __global__ void (?:[A-Z]+ )?(\w+)\(([^)]*)\)'
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


class Program:
    """A source, compiled.

    Args:
        source: CUDA C++ text, its kernels `extern "C"`.
        options: NVRTC's; only definitions (-D...) count.
    """

    _folder = Path(tempfile.mkdtemp(prefix="cuda-on-cpu-"))

    def __init__(self, source, options=()):
        definitions = [option for option in options if option.startswith("-D")]
        header = _HEADER.read_text()
        flags = ["-x", "c++", "-std=c++17", "-include", str(_compiled_header()), *definitions]
        expanded = _expanded(source, definitions)
        found = _KERNEL.findall(expanded)
        types = {new: old for old, new in _ALIAS.findall(expanded)}
        structs = dict(re.findall(r"struct (\w+) \{\n((?:    \w+ \w+\[\d+\];\n)+)\}", source))
        self.parameters = {name: _parameters(text, types, structs) for name, text in found}
        self.barriers = _WAITS.search(source) is not None
        launchers = "".join(
            f'extern "C" const char* launch_{name}(void** a, unsigned b, unsigned t, bool s) '
            f"{{ return launch({name}, a, b, t, s); }}\n"
            for name in self.parameters
        )
        text = source + launchers
        digest = hashlib.sha256("".join([header, text, *definitions]).encode()).hexdigest()
        library = self._folder / f"{digest}.so"
        if not library.exists():
            done = subprocess.run(
                [COMPILER, *_FLAGS, *flags, "-", "-o", str(library)],
                input=text,
                capture_output=True,
                text=True,
            )
            assert not done.returncode, done.stderr
        self._library = ctypes.CDLL(str(library))

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
        run = getattr(self._library, f"launch_{name}")
        run.restype = ctypes.c_char_p
        counts = ctypes.c_uint(blocks), ctypes.c_uint(threads)
        failure = run(pointers, *counts, ctypes.c_bool(self.barriers))
        assert failure is None, f"{name}: {failure.decode()}"


@functools.cache
def _compiled_header():
    """A copy of the header, which most of the time of compiling went to, compiled once."""
    copy = Program._folder / _HEADER.name
    copy.write_text(_HEADER.read_text())
    flags = [flag for flag in _FLAGS if flag != "-shared"]
    command = [COMPILER, *flags, "-x", "c++-header", "-std=c++17", str(copy)]
    subprocess.run([*command, "-o", f"{copy}.gch"], check=True)
    return copy


def _expanded(source, definitions):
    """The text that a compiler reads: with its macros put in, without what they leave out."""
    command = [COMPILER, "-E", "-P", "-x", "c++", *definitions, "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


def _parameters(text, types, structs):
    """`(dtype, is it an array)` of each parameter in a list of declarations; `types` has the other
    names of types, and `structs` the fields, arrays of numbers, of each type that a parameter may
    have by value."""
    result = []
    for declaration in text.split(","):
        words = declaration.replace("const ", "").replace("*", " * ").split()
        is_array = "*" in words
        kind = " ".join(words[: words.index("*")] if is_array else words[:-1])
        while kind in types and kind not in _SCALARS:
            kind = types[kind]
        fields = re.findall(r"(\w+) (\w+)\[(\d+)\];", structs.get(kind, ""))
        of_fields = [(name, _SCALARS[of], (int(n),)) for of, name, n in fields]
        result.append((np.dtype(of_fields or _SCALARS[kind]), is_array))
    return result
