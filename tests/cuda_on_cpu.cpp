// How the threads of a kernel run on the host.
//
// The threads of a block take turns: each runs until it ends or has to wait for others, at
// __syncthreads() for those of its block, at a shuffle or __syncwarp() for those of its warp; then
// the next one does.  Blocks run one after the other.

#include "cuda_on_cpu.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

Index threadIdx, blockIdx, blockDim, gridDim;

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

void __syncthreads() { of_block.wait(); }

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

// A thread that is ahead posts its next value where nobody reads the one before.
static char posted[2][MOST_THREADS][WIDEST];
static unsigned shuffles[MOST_THREADS];

static void meet_warp(unsigned mask) {
    Meeting& warp = of_warp[threadIdx.x / 32];
    if (mask != 0xffffffffu) fail("a mask names less than a whole warp");
    if (warp.members != 32) fail(ENDED_EARLY);
    warp.wait();
}

void __syncwarp(unsigned mask) { meet_warp(mask); }

void value_of_lane(unsigned mask, void* value, int bytes, int from, int width) {
    if (width < 1 || width > 32 || width & (width - 1)) fail("a width is no power of 2 up to 32");
    unsigned t = threadIdx.x;
    auto& values = posted[shuffles[t]++ % 2];
    memcpy(values[t], value, bytes);
    meet_warp(mask);
    if (from >= 0 && from < width) memcpy(value, values[t - t % width + from], bytes);
}

void require_inside(int lane, int width) {
    if (lane < 0 || lane >= width) fail("a shuffle leaves its part of the warp");
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

const char* run_blocks(
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
