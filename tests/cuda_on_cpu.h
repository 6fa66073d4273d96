// CUDA kernels on the host: what a kernel's source expects of its compiler, and how its threads run.
//
// The threads of a block take turns: each runs until it ends or has to wait for others, at
// __syncthreads() for those of its block, at a shuffle or __syncwarp() for those of its warp; then
// the next one does.  Blocks run one after the other, so __shared__ memory is a static variable.

// C's own headers: libstdc++'s would take most of the time that a kernel takes to compile.
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__ inline  // a kernel that is not launched needs no code
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx, blockDim, gridDim;
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

typedef void (*Kernel)(void** arguments);  // calls a kernel with what the pointers point to

// --- threads: one stack for each, made once; from then on switching needs no system call ---------

const unsigned MOST_THREADS = 1024;
const size_t STACK_BYTES = 1 << 15;
static char* stacks[MOST_THREADS];
static jmp_buf at_scheduler, at_thread[MOST_THREADS];
static bool ended[MOST_THREADS];
static Kernel present_kernel;
static void** present_arguments;
static const char* failure;  // what a kernel did that the device does not allow, if anything

static void to_scheduler() {
    if (!_setjmp(at_thread[threadIdx.x])) _longjmp(at_scheduler, 1);
}

static unsigned long long meetings;  // how many there were

// Some threads that wait for one another; those that end need not come.
struct Meeting {
    unsigned members, arrived, times;
    void reset(unsigned all) { members = all, arrived = times = 0; }
    void go_on_if_complete() {
        if (!members || arrived < members) return;
        arrived = 0;
        ++times;
        ++meetings;
    }
    void wait() {
        unsigned before = times;
        ++arrived;
        go_on_if_complete();
        while (times == before) to_scheduler();
    }
    void leave() {
        --members;
        go_on_if_complete();
    }
};
static Meeting of_block, of_warp[MOST_THREADS / 32];

static void __syncthreads() { of_block.wait(); }

const char* const ENDED_EARLY = "a thread ended while its warp waits at a shuffle or __syncwarp";

static void fail(const char* why) {
    failure = why;
    for (;;) to_scheduler();
}

static void thread_forever() {
    for (;;) {
        present_kernel(present_arguments);
        ended[threadIdx.x] = true;
        of_block.leave();
        Meeting& warp = of_warp[threadIdx.x / 32];
        if (warp.arrived) failure = ENDED_EARLY;
        warp.leave();
        to_scheduler();
    }
}

static void go_on(unsigned t) {
    threadIdx.x = t;
    if (_setjmp(at_scheduler)) return;
    if (stacks[t]) _longjmp(at_thread[t], 1);
    stacks[t] = (char*)malloc(STACK_BYTES);
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = stacks[t];
    start.uc_stack.ss_size = STACK_BYTES;
    start.uc_link = nullptr;
    makecontext(&start, thread_forever, 0);
    setcontext(&start);
}

// --- shuffles: a value is posted, and read when the whole warp has posted its own ----------------

const unsigned WIDEST = 16;
// A thread that is ahead posts its next value where nobody reads the one before.
static char posted[2][MOST_THREADS][WIDEST];
static unsigned shuffles[MOST_THREADS];

static void meet_warp(unsigned mask) {
    Meeting& warp = of_warp[threadIdx.x / 32];
    if (mask != 0xffffffffu) fail("a mask names less than a whole warp");
    if (warp.members != 32) fail(ENDED_EARLY);
    warp.wait();
}

[[maybe_unused]] static void __syncwarp(unsigned mask = 0xffffffffu) { meet_warp(mask); }

// The value of lane `from` of the part of `width` threads, or one's own where there is none.
template <class T>
static T value_of_lane(unsigned mask, T value, int from, int width) {
    static_assert(sizeof(T) <= WIDEST && !__is_class(T), "CUDA shuffles numbers");
    if (width < 1 || width > 32 || width & (width - 1)) fail("a width is no power of 2 up to 32");
    unsigned t = threadIdx.x;
    auto& values = posted[shuffles[t]++ % 2];
    memcpy(values[t], &value, sizeof(T));
    meet_warp(mask);
    if (from < 0 || from >= width) return value;
    T other;
    memcpy(&other, values[t - t % width + from], sizeof(T));
    return other;
}

template <class T>
static T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    return value_of_lane(mask, value, from & (width - 1), width);
}

template <class T>
static T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return value_of_lane(mask, value, threadIdx.x % width + by, width);
}

template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return value_of_lane(mask, value, threadIdx.x % width - by, width);
}

template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
    if (with < 0 || with >= width) fail("a shuffle leaves its part of the warp");
    return value_of_lane(mask, value, threadIdx.x % width ^ with, width);
}

// --- blocks --------------------------------------------------------------------------------------

// Run one block, whose threads wait for one another.
static void run_block(unsigned threads) {
    of_block.reset(threads);
    for (unsigned w = 0; w * 32 < threads; ++w) of_warp[w].reset(min(32u, threads - w * 32));
    for (unsigned t = 0; t < threads; ++t) ended[t] = false, shuffles[t] = 0;
    for (unsigned going = threads, idle = 0; going && !failure;) {
        unsigned before = going;
        unsigned long long met = meetings;
        going = 0;
        for (unsigned t = 0; t < threads && !failure; ++t) {
            if (!ended[t]) go_on(t);
            going += !ended[t];
        }
        idle = meetings > met || going < before ? 0 : idle + 1;
        if (idle > 1) failure = "threads wait for others of their warp or block that never come";
    }
}

static const char* run_blocks(
    Kernel kernel, void** arguments, unsigned blocks, unsigned threads, bool barriers) {
    present_kernel = kernel;
    present_arguments = arguments;
    failure = nullptr;
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks && !failure; ++blockIdx.x) {
        if (barriers)
            run_block(threads);
        else
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(arguments);
    }
    if (failure)  // threads stand in the midst of the kernel; begin with new ones
        for (char*& stack : stacks) free(stack), stack = nullptr;
    return failure;
}
