// CUDA kernels on the host: what a kernel's source expects of its compiler.  How its threads run is
// in cuda_on_cpu.cpp, which is compiled once, and not with every kernel.

// C's own header: libstdc++'s would take most of the time that a kernel takes to compile.
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#include <math.h>

#define __global__ inline  // a kernel that is not launched needs no code
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one after the other

struct Index {
    unsigned x;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;
const int warpSize = 32;

template <class T>
static T atomicAdd(T* place, T value) {
    T old = *place;
    *place += value;
    return old;
}

template <class T>
static T __ldg(const T* place) {
    return *place;
}

// Both types converted to the one in which C++ compares them.
template <class A, class B>
using Common = decltype(true ? A() : B());

// Of a number and NaN the device takes the number.
template <class A, class B>
static Common<A, B> min(A a, B b) {
    using T = Common<A, B>;
    if (a != a) return (T)b;
    return (T)b < (T)a ? (T)b : (T)a;
}

template <class A, class B>
static Common<A, B> max(A a, B b) {
    using T = Common<A, B>;
    if (a != a) return (T)b;
    return (T)a < (T)b ? (T)b : (T)a;
}

// C has a function of doubles; the device also has one of floats by the same name.
#define ALSO_OF_FLOATS(NAME) \
    [[maybe_unused]] static inline float NAME(float x) { return NAME##f(x); }
ALSO_OF_FLOATS(exp)
ALSO_OF_FLOATS(log)
ALSO_OF_FLOATS(tanh)
ALSO_OF_FLOATS(sqrt)
ALSO_OF_FLOATS(fabs)

// --- short vectors, which the device reads at once: a pointer to one must be aligned to its size --

#define VECTORS_OF(T)                                                                      \
    struct alignas(2 * sizeof(T)) T##2 {                                                   \
        T x, y;                                                                            \
    };                                                                                     \
    struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) T##4 {                              \
        T x, y, z, w;                                                                      \
    };                                                                                     \
    [[maybe_unused]] static T##2 make_##T##2(T x, T y) { return {x, y}; }                  \
    [[maybe_unused]] static T##4 make_##T##4(T x, T y, T z, T w) { return {x, y, z, w}; }

typedef unsigned char uchar;
typedef unsigned int uint;
typedef unsigned short ushort;
typedef long long longlong;
VECTORS_OF(uchar)
VECTORS_OF(ushort)
VECTORS_OF(int)
VECTORS_OF(uint)
VECTORS_OF(longlong)
VECTORS_OF(float)
VECTORS_OF(double)

[[maybe_unused]] static float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }

[[maybe_unused]] static unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((unsigned long long)a * b >> 32);
}

static void sincospi(double x, double* s, double* c) {
    *s = (double)sinl((long double)M_PIl * x);
    *c = (double)cosl((long double)M_PIl * x);
}

// --- threads that wait for one another -----------------------------------------------------------

void __syncthreads();
void __syncwarp(unsigned mask = 0xffffffffu);

// Replace a value by that of lane `from` of the part of `width` threads, if there is such a lane.
void value_of_lane(unsigned mask, void* value, int bytes, int from, int width);

const int WIDEST = 16;

template <class T>
static T shuffled(unsigned mask, T value, int from, int width) {
    static_assert(sizeof(T) <= WIDEST && !__is_class(T), "CUDA shuffles numbers");
    value_of_lane(mask, &value, sizeof(T), from, width);
    return value;
}

void require_inside(int lane, int width);

template <class T>
static T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    return shuffled(mask, value, from & (width - 1), width);
}

template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return shuffled(mask, value, threadIdx.x % width + by, width);
}

template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return shuffled(mask, value, threadIdx.x % width - by, width);
}

template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
    require_inside(with, width);
    return shuffled(mask, value, threadIdx.x % width ^ with, width);
}

// --- blocks --------------------------------------------------------------------------------------

typedef void (*Kernel)(void** arguments);  // calls a kernel with what the pointers point to

// Run all blocks; returns what the kernel does that the device does not allow, or null.
const char* run_blocks(
    Kernel kernel, void** arguments, unsigned blocks, unsigned threads, bool barriers);
