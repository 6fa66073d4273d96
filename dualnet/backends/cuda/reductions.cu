// Reduce an array (A, M, B) over M to (A, B): its sum, largest or smallest entry, or the place of
// the largest.
//
// A unit of threads reduces a part of M, `length` entries long, for one row (B is 1: `rows`) or for
// neighboring columns (`columns`).  A block has one unit or several.  Where there would be few
// blocks with much to read, M has several parts, whose results (A, parts, B) are reduced by a second
// launch (`join`).  Every thread takes up to WIDTH neighboring entries at once.  Each sum is a tree
// whose shape depends on the sizes alone, so it has the same bits in every run.
//
// INPUT is the type of the array's entries, VALUE that of what is reduced, and INDEX (int or i64)
// counts entries.  THREADS, a power of 2 from 32 on, is the size of a block.  One of SUM, MAXIMUM,
// MINIMUM and ARGMAX is defined.  A source that is put in the place of what stands under
// `#ifndef FUSED` makes the entries from other arrays: see dualnet/backends/reductions.py.

typedef long long i64;

#ifndef VALUE
#define SUM
#define INPUT REAL
#define VALUE REAL
#define INDEX i64
#define WIDTH 4
#endif
const int UNROLL = 4;

// Neighboring numbers that are read or written at once, in pieces of up to 128 bits.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
    T of[N];
};

#ifndef FUSED
#define PARAMETERS const INPUT* __restrict__ x
#define ARGUMENTS x

__device__ inline void entries(PARAMETERS, INDEX i, VALUE (&of)[WIDTH]) {
    Pack<INPUT, WIDTH> read = *(const Pack<INPUT, WIDTH>*)(x + i);
    for (int w = 0; w < WIDTH; ++w) of[w] = (VALUE)read.of[w];
}
#endif

// --- what is reduced -----------------------------------------------------------------------------

#ifdef ARGMAX
typedef i64 RESULT;
struct Partial {
    VALUE value;
    INDEX at;
};
__device__ inline Partial partial(VALUE value, INDEX at) { return {value, at}; }
#else
typedef VALUE RESULT;
struct Partial {
    VALUE value;
};
__device__ inline Partial partial(VALUE value, INDEX) { return {value}; }
#endif

// NaN is larger than all numbers for MAXIMUM and ARGMAX, and smaller for MINIMUM, so it stays.  Of
// equal entries ARGMAX takes the first one.
__device__ inline Partial joined(Partial p, Partial other) {
    VALUE x = p.value, y = other.value;
#if defined(SUM)
    return {x + y};
#elif defined(MAXIMUM)
    return x != x || x >= y ? p : other;
#elif defined(MINIMUM)
    return x != x || x <= y ? p : other;
#else
    bool same = x == y || (x != x && y != y);
    return (same ? p.at < other.at : x != x || x > y) ? p : other;
#endif
}

__device__ inline Partial of_lane(Partial p, int with) {
    p.value = __shfl_xor_sync(0xffffffffu, p.value, with);
#ifdef ARGMAX
    p.at = __shfl_xor_sync(0xffffffffu, p.at, with);
#endif
    return p;
}

__device__ inline RESULT result(Partial p, VALUE divisor) {
#if defined(SUM)
    return p.value / divisor;
#elif defined(ARGMAX)
    return p.at;
#else
    return p.value;
#endif
}

// Reduce the entries first, first + step, ... of M as far as `end`, for W neighbors, whose entries m
// lie side by side at start + m pitch; `nearest` is the first entry of this unit's part.  The
// number of an entry grows by `apart` from one neighbor to the next.
template <int W, class Read>
__device__ inline void reduce_own(
    Partial (&own)[W], Read read, INDEX start, INDEX pitch, INDEX nearest, INDEX first, INDEX end,
    INDEX step, int apart) {
    VALUE of[UNROLL][W];
#ifdef SUM
    for (int w = 0; w < W; ++w) own[w] = partial(0, 0);
#else
    // there is no smallest number to begin with, and a thread may have no entries of its own
    read(start + nearest * pitch, of[0]);
    for (int w = 0; w < W; ++w) own[w] = partial(of[0][w], nearest + w * apart);
#endif
    for (; first < end; first += UNROLL * step) {  // read several before the first is needed
#pragma unroll
        for (int u = 0; u < UNROLL; ++u)
            if (first + u * step < end) read(start + (first + u * step) * pitch, of[u]);
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            INDEX m = first + u * step;
            if (m < end)
                for (int w = 0; w < W; ++w)
                    own[w] = joined(own[w], partial(of[u][w], m + w * apart));
        }
    }
}

// --- rows: B is 1 --------------------------------------------------------------------------------

// Join what `lanes` neighboring threads have, a power of 2 of them.
__device__ inline Partial over_lanes(Partial p, int lanes) {
    __shared__ Partial room[THREADS / 32];
    for (int with = (lanes < 32 ? lanes : 32) / 2; with; with /= 2) p = joined(p, of_lane(p, with));
    if (lanes <= 32) return p;
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = p;
    __syncthreads();
    int warps = lanes / 32, first = threadIdx.x / lanes * warps;
    p = room[first];
    for (int i = 1; i < warps; ++i) p = joined(p, room[first + i]);
    return p;
}

// out (A, parts) = x (A, M) over parts of M.  A unit is `lanes` threads, which read side by side.
// M and length are multiples of WIDTH.
extern "C" __global__ void __launch_bounds__(THREADS) rows(
    PARAMETERS, RESULT* out, INDEX units, INDEX M, INDEX length, int parts, int lanes,
    VALUE divisor) {
    INDEX own_unit = (INDEX)blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
    INDEX unit = own_unit < units ? own_unit : units - 1;  // all threads take part in shuffles
    int lane = threadIdx.x % lanes;
    INDEX nearest = unit % parts * length;
    INDEX end = nearest + length < M ? nearest + length : M;
    auto read = [=](INDEX i, VALUE(&of)[WIDTH]) { entries(ARGUMENTS, i, of); };
    Partial own[WIDTH];
    reduce_own<WIDTH>(
        own, read, unit / parts * M, 1, nearest, nearest + lane * WIDTH, end, lanes * WIDTH, 1);
#pragma unroll
    for (int half = WIDTH / 2; half; half /= 2)
        for (int w = 0; w < half; ++w) own[w] = joined(own[w], own[w + half]);
    Partial p = over_lanes(own[0], lanes);
    if (lane == 0 && own_unit < units) out[unit] = result(p, divisor);
}

// --- columns -------------------------------------------------------------------------------------

// out (A, parts, B) = x (A, M, B) over parts of M.  A unit is `down` times `across` threads: those
// across read side by side, W columns each; those down share the entries of M.  Both are powers of
// 2.  B is a multiple of W.
template <int W, class Read>
__device__ inline void reduce_columns(
    Read read, RESULT* out, INDEX units, INDEX M, INDEX B, INDEX length, int parts, int across,
    int down, VALUE divisor) {
    __shared__ Partial room[W][THREADS];
    int t = threadIdx.x, size = across * down;
    INDEX own_unit = (INDEX)blockIdx.x * (THREADS / size) + t / size;
    INDEX unit = own_unit < units ? own_unit : units - 1;  // all threads take part in barriers
    INDEX runs = (B + across * W - 1) / (across * W);
    INDEX own_b = (unit % runs * across + t % across) * W, b = own_b < B ? own_b : B - W;
    int row = t / across % down;
    INDEX of = unit / runs, nearest = of % parts * length;
    INDEX end = nearest + length < M ? nearest + length : M;
    Partial own[W];
    reduce_own<W>(own, read, of / parts * M * B + b, B, nearest, nearest + row, end, down, 0);
    for (int half = down / 2; half; half /= 2) {
        for (int w = 0; w < W; ++w) room[w][t] = own[w];
        __syncthreads();
        if (row < half)
            for (int w = 0; w < W; ++w) own[w] = joined(own[w], room[w][t + half * across]);
        __syncthreads();
    }
    if (row || own_b >= B || own_unit >= units) return;
    Pack<RESULT, W> results;
    for (int w = 0; w < W; ++w) results.of[w] = result(own[w], divisor);
    *(Pack<RESULT, W>*)(out + of * B + b) = results;
}

extern "C" __global__ void __launch_bounds__(THREADS) columns(
    PARAMETERS, RESULT* out, INDEX units, INDEX M, INDEX B, INDEX length, int parts, int across,
    int down, VALUE divisor) {
    auto read = [=](INDEX i, VALUE(&of)[WIDTH]) { entries(ARGUMENTS, i, of); };
    reduce_columns<WIDTH>(read, out, units, M, B, length, parts, across, down, divisor);
}

// --- the second launch ---------------------------------------------------------------------------

#ifndef ARGMAX  // whose M has one part
extern "C" __global__ void __launch_bounds__(THREADS) join(
    const VALUE* __restrict__ x, VALUE* out, INDEX units, INDEX M, INDEX B, int across, int down,
    VALUE divisor) {
    auto read = [=](INDEX i, VALUE(&of)[1]) { of[0] = x[i]; };
    reduce_columns<1>(read, out, units, M, B, M, 1, across, down, divisor);
}
#endif
