// CUDA kernels on the host: what a kernel's source expects of its compiler, and how its threads run.
//
// The threads of a block take turns: each runs until it ends or meets __syncthreads(), then the
// next one does.  Blocks run one after the other, so __shared__ memory is a static variable.

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

#include <tuple>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

static void __syncthreads();

template <class T>
static T atomicAdd(T* place, T value) {
    T old = *place;
    *place += value;
    return old;
}

static void sincospif(float x, float* s, float* c) {
    *s = (float)sin(M_PI * x);
    *c = (float)cos(M_PI * x);
}

static void sincospi(double x, double* s, double* c) {
    *s = (double)sinl((long double)M_PIl * x);
    *c = (double)cosl((long double)M_PIl * x);
}

struct Job {
    virtual void operator()() = 0;
};

// --- threads: one stack for each, made once; from then on switching needs no system call ---------

const unsigned MOST_THREADS = 1024;
const size_t STACK_BYTES = 1 << 15;
static char* stacks[MOST_THREADS];
static jmp_buf at_scheduler, at_thread[MOST_THREADS];
static bool ended[MOST_THREADS];
static Job* present_job;

static void to_scheduler() {
    if (!_setjmp(at_thread[threadIdx.x])) _longjmp(at_scheduler, 1);
}

static void __syncthreads() { to_scheduler(); }

static void thread_forever() {
    for (;;) {
        (*present_job)();
        ended[threadIdx.x] = true;
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

static void run_blocks(Job& job, unsigned blocks, unsigned threads, bool barriers) {
    present_job = &job;
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        if (!barriers) {
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) job();
            continue;
        }
        for (unsigned t = 0; t < threads; ++t) ended[t] = false;
        for (unsigned going = threads; going;) {
            going = 0;
            for (unsigned t = 0; t < threads; ++t) {
                if (!ended[t]) go_on(t);
                going += !ended[t];
            }
        }
    }
}

template <class... A>
struct Call : Job {
    void (*kernel)(A...);
    std::tuple<A...> arguments;
    void operator()() override { std::apply(kernel, arguments); }
};

template <class... A, size_t... I>
static void unpack(Call<A...>& call, void** arguments, std::index_sequence<I...>) {
    call.arguments = std::tuple<A...>(*(A*)arguments[I]...);
}

template <class... A>
static void launch(
    void (*kernel)(A...), void** arguments, unsigned blocks, unsigned threads, bool barriers) {
    Call<A...> call;
    call.kernel = kernel;
    unpack(call, arguments, std::index_sequence_for<A...>{});
    run_blocks(call, blocks, threads, barriers);
}
