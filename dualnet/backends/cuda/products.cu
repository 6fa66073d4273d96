// Products with few columns: x (rows, inner) times y (inner, columns), with at most 16 columns.
//
// These take as long as x takes to be read, while cuBLAS's tiles are wider than the result and too
// few.  A warp sums ROWS rows of x at once.  Of each row, a lane takes four neighboring numbers, and
// the next four 128 further on.  Of y, DEPTH rows at a time lie in shared memory, turned, so that a
// lane reads its four numbers of a column at once.  Whatever ROWS is, sums run in the same order.
//
// Factors and sums are float32, whatever REAL is.

typedef long long i64;
typedef unsigned long long u64;

const int WARP = 32;
const int MOST_COLUMNS = 16;
const int DEPTH = 512;

struct alignas(16) Four {
    float at[4];
};

struct alignas(16) Turned {
    float at[DEPTH + 4];  // so that the next column starts in other banks
};

// Copy y's rows to `turned`, column by column; one row lies `down` behind the one before it.
__device__ inline void turn(
    Turned* turned, const float* y, int depth, int columns, i64 down, i64 across) {
    int i = threadIdx.x / columns, j = threadIdx.x % columns;
    while (i < depth) {
        turned[j].at[i] = y[i * down + j * across];
        i += THREADS / columns;
        j += THREADS % columns;
        if (j >= columns) j -= columns, ++i;
    }
}

// Sum each of COUNT numbers over the lanes of a warp.  At each step, two lanes halve the numbers
// between them, while these are even in number.  In the end, a lane has held<COUNT>() sums, at the
// head of `numbers`; return the index of the first of them.
template <int COUNT, int WITH>
__device__ inline int sum_over_lanes(float* numbers, int lane) {
    if constexpr (WITH == 0) {
        return 0;
    } else if constexpr (COUNT % 2) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) numbers[i] += __shfl_xor_sync(~0u, numbers[i], WITH);
        return sum_over_lanes<COUNT, WITH / 2>(numbers, lane);
    } else {
        const int HALF = COUNT / 2;
        bool upper = lane & WITH;
#pragma unroll
        for (int i = 0; i < HALF; ++i) {
            float given = upper ? numbers[i] : numbers[i + HALF];
            float kept = upper ? numbers[i + HALF] : numbers[i];
            numbers[i] = kept + __shfl_xor_sync(~0u, given, WITH);
        }
        return (upper ? HALF : 0) + sum_over_lanes<HALF, WITH / 2>(numbers, lane);
    }
}

template <int COUNT>
constexpr __device__ int held() {
    int count = COUNT;
    for (int lanes = WARP; lanes > 1 && count % 2 == 0; lanes /= 2) count /= 2;
    return count;
}

// COLUMNS is `columns` or more: what is beyond is summed, and not written.
template <int ROWS, int COLUMNS>
__device__ inline void multiply(
    Turned* turned, const float* x, const float* y, float* out, i64 first, i64 rows, int inner,
    int columns, i64 x_down, i64 y_down, i64 y_across, i64 out_down, i64 out_across, bool adds) {
    int lane = threadIdx.x % WARP;
    const float* row[ROWS];
    for (int r = 0; r < ROWS; ++r)  // behind the last row, read that one again
        row[r] = x + (first + r < rows ? first + r : rows - 1) * x_down;
    float sums[ROWS * COLUMNS] = {};
    for (int start = 0; start < inner; start += DEPTH) {
        int depth = inner - start < DEPTH ? inner - start : DEPTH;
        __syncthreads();
        turn(turned, y + start * y_down, depth, columns, y_down, y_across);
        __syncthreads();
#pragma unroll 1
        for (int i = 4 * lane; i < depth; i += 4 * WARP) {
            Four a[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) a[r] = *(const Four*)(row[r] + start + i);
#pragma unroll
            for (int c = 0; c < COLUMNS; ++c) {
                Four b = *(const Four*)&turned[c].at[i];
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
#pragma unroll
                    for (int n = 0; n < 4; ++n)
                        sums[r * COLUMNS + c] =
                            fmaf(a[r].at[n], b.at[n], sums[r * COLUMNS + c]);
            }
        }
    }
    constexpr int COUNT = ROWS * COLUMNS, HELD = held<COUNT>(), COPIES = WARP * HELD / COUNT;
    int from = sum_over_lanes<COUNT, WARP / 2>(sums, lane);
    if (lane % COPIES) return;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        i64 r = first + (from + i) / COLUMNS;
        int c = (from + i) % COLUMNS;
        if (c >= columns || r >= rows) continue;
        float* place = out + r * out_down + c * out_across;
        *place = adds ? *place + sums[i] : sums[i];
    }
}

// x, y and out are addresses of arrays in any layout.  `blocks` blocks serve one product of a batch;
// from one to the next, x, y and out move on by x_step, y_step and out_step numbers.  A warp sums
// four rows if `four_rows`, else one.
extern "C" __global__ void __launch_bounds__(THREADS) few_columns(
    u64 x, u64 y, u64 out, int blocks, i64 rows, int inner, int columns, i64 x_down, i64 y_down,
    i64 y_across, i64 out_down, i64 out_across, i64 x_step, i64 y_step, i64 out_step,
    int four_rows, int adds) {
    __shared__ Turned turned[MOST_COLUMNS];
    int block = (int)blockIdx.x, entry = block / blocks;
    i64 first = block % blocks * (THREADS / WARP) + threadIdx.x / WARP;
    if (four_rows) first *= 4;
#define MULTIPLY(ROWS, COLUMNS)                                                            \
    multiply<ROWS, COLUMNS>(                                                               \
        turned, (const float*)x + entry * x_step, (const float*)y + entry * y_step,        \
        (float*)out + entry * out_step, first, rows, inner, columns, x_down, y_down,       \
        y_across, out_down, out_across, adds)
    if (!four_rows)
        columns <= 8 ? MULTIPLY(1, 8) : MULTIPLY(1, 16);
    else if (columns <= 8)
        columns <= 4 ? MULTIPLY(4, 4) : MULTIPLY(4, 8);
    else
        columns <= 12 ? MULTIPLY(4, 12) : MULTIPLY(4, 16);
}
