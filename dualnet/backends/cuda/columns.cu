// Norms whose statistics are long columns, such as batch norm, or few.
//
// Arrays are seen as (A, M, C), C = B D, and are normalized over M and over each D columns, so there
// are A B statistics.  Rows M are cut into chunks; a block reads one chunk of up to lanes WIDTH
// neighboring columns.  Its threads are `lanes` times `workers`: each has WIDTH columns, and the
// workers take turns at the rows, of which each reads BATCH before it uses them.  A statistic takes
// two kernels: each block leaves a pair of numbers for each column in `parts` (A, C, chunks, 2), or
// (k, A, C, chunks, 2); then a warp joins the D chunks pairs of one statistic.  The order of all
// sums is fixed.  REAL is float or double; WIDTH divides C, and lanes is a power of 2.

typedef long long i64;

struct alignas(WIDTH * sizeof(REAL)) Vector {
    REAL entry[WIDTH];
};

struct alignas(2 * sizeof(REAL)) Pair {
    REAL first, second;
};
__device__ inline Pair& pair(REAL* array, i64 i) { return ((Pair*)array)[i]; }
__device__ inline const Pair& pair(const REAL* array, i64 i) { return ((const Pair*)array)[i]; }

#define DIVISION \
    i64 M, int C, int lanes, int chunk_rows, int chunks

// The rows and columns of this thread.
struct Place {
    i64 a, at;     // the thread's first entry of its present row is number `at` of the array
    int row, end;  // of the chunk's rows the thread has row, row + workers, ... < end
    int chunk, worker, workers, column;
    bool here;
    i64 step;
    __device__ Place(unsigned part, DIVISION) {
        int width = lanes * WIDTH, runs = (C + width - 1) / width;
        i64 first = (i64)(part % chunks) * chunk_rows;
        chunk = part % chunks;
        a = part / chunks / runs;
        worker = threadIdx.x / lanes;
        workers = blockDim.x / lanes;
        column = part / chunks % runs * width + threadIdx.x % lanes * WIDTH;
        here = column < C;
        row = worker;
        end = !here ? 0 : M - first < chunk_rows ? (int)(M - first) : chunk_rows;
        at = (a * M + first + row) * C + column;
        step = (i64)workers * C;
    }
    __device__ bool has_rows() const { return row < end; }
    __device__ bool has(int i) const { return row + i * workers < end; }  // row i of a batch
    __device__ void go_on() {
        row += BATCH * workers;
        at += BATCH * step;
    }
    // Read a batch of vectors; those that are not there are 0.
    __device__ void read(Vector (&x)[BATCH], const REAL* from) const {
#pragma unroll
        for (int i = 0; i < BATCH; ++i)
            x[i] = has(i) ? *(const Vector*)(from + at + i * step) : Vector{};
    }
    __device__ void write(const Vector (&x)[BATCH], REAL* array) const {
#pragma unroll
        for (int i = 0; i < BATCH; ++i)
            if (has(i)) *(Vector*)(array + at + i * step) = x[i];
    }
    // The number of the pair that column w of this thread has in its chunk.
    __device__ i64 part(int w, int C, int chunks) const {
        return (a * C + column + w) * chunks + chunk;
    }
};

// Mean and sum of squared distances from it.
struct Moments {
    REAL mean, squares;
    // Join those of other numbers, which are a share of all; `count` is without them.
    // Source: Chan et al. 1983, "Algorithms for Computing the Sample Variance", Eq. 2.1.
    __device__ void join(const Moments& other, REAL count, REAL share) {
        REAL apart = other.mean - mean;
        mean += apart * share;
        squares += other.squares + apart * apart * count * share;
    }
};

__device__ inline REAL share_of(REAL other, REAL count) {
    return other ? other / (count + other) : (REAL)0;
}

// The first entry of a statistic.  All others are taken relative to it: then means have few leading
// digits in common, which they would lose where they are compared.
__device__ inline REAL shift_of(const REAL* x, i64 a, i64 M, int C, int column, int D) {
    return x[a * M * C + column / D * D];
}

// parts = mean and sum of squared distances from it, for each column of each chunk of x (A, M, C).
extern "C" __global__ void __launch_bounds__(THREADS)
    part_moments(const REAL* x, REAL* parts, int D, DIVISION) {
    __shared__ Moments room[WIDTH][THREADS];
    __shared__ int counts[THREADS];
    Place p(blockIdx.x, M, C, lanes, chunk_rows, chunks);
    Moments all[WIDTH] = {};
    Vector shift = {};
    for (int w = 0; w < WIDTH && p.here; ++w)
        shift.entry[w] = shift_of(x, p.a, M, C, p.column + w, D);
    int count = 0;
    for (; p.has_rows(); p.go_on()) {
        Vector batch[BATCH];
        p.read(batch, x);
        int rows = 0;
#pragma unroll
        for (int i = 0; i < BATCH; ++i) rows += p.has(i);
        REAL share = share_of(rows, count);
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) {
            Moments here = {};
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                batch[i].entry[w] -= shift.entry[w];
                here.mean += p.has(i) ? batch[i].entry[w] : (REAL)0;
            }
            here.mean /= rows;
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                REAL apart = p.has(i) ? batch[i].entry[w] - here.mean : (REAL)0;
                here.squares += apart * apart;
            }
            all[w].join(here, count, share);
        }
        count += rows;
    }
    int t = threadIdx.x;
    for (int w = 0; w < WIDTH; ++w) room[w][t] = all[w];
    counts[t] = count;
    __syncthreads();
    for (int half = THREADS / 2; half >= lanes; half /= 2) {
        if (t < half) {
            REAL share = share_of(counts[t + half], counts[t]);
            for (int w = 0; w < WIDTH; ++w) room[w][t].join(room[w][t + half], counts[t], share);
            counts[t] += counts[t + half];
        }
        __syncthreads();
    }
    if (!p.here || p.worker) return;
    for (int w = 0; w < WIDTH; ++w)
        pair(parts, p.part(w, C, chunks)) = {room[w][t].mean, room[w][t].squares};
}

// Mean and variance of each statistic, from its D chunks parts.
extern "C" __global__ void __launch_bounds__(THREADS) joined_moments(
    const REAL* x, const REAL* parts, REAL* mean, REAL* variance, i64 statistics, int D, i64 M,
    int C, int chunk_rows, int chunks) {
    i64 statistic = (blockIdx.x * (i64)THREADS + threadIdx.x) / 32;
    int lane = threadIdx.x % 32, count = statistic < statistics ? D * chunks : 0;
    Moments all = {};
    REAL entries = 0;
    for (int i = lane; i < count; i += 32) {
        Pair part = pair(parts, statistic * count + i);
        i64 left = M - (i64)(i % chunks) * chunk_rows;
        REAL rows = left < chunk_rows ? left : chunk_rows;
        all.join({part.first, part.second}, entries, share_of(rows, entries));
        entries += rows;
    }
    for (int by = 16; by; by /= 2) {
        REAL others = __shfl_xor_sync(0xffffffff, entries, by);
        Moments of_others = {__shfl_xor_sync(0xffffffff, all.mean, by),
                             __shfl_xor_sync(0xffffffff, all.squares, by)};
        all.join(of_others, entries, share_of(others, entries));
        entries += others;
    }
    if (lane || !count) return;
    int columns = C / D;
    REAL shift = shift_of(x, statistic / columns, M, C, statistic % columns * D, D);
    mean[statistic] = shift + all.mean;
    variance[statistic] = all.squares / (M * D);
}

// y = (x - mean) s, where s = 1 / sqrt(variance + epsilon).
extern "C" __global__ void __launch_bounds__(THREADS) normalized_by(
    const REAL* x, const REAL* mean, const REAL* variance, REAL* y, REAL* s, REAL epsilon,
    int D, DIVISION) {
    // The last blocks come first: their part of x was read last, and may still be in the cache.
    Place p(gridDim.x - 1 - blockIdx.x, M, C, lanes, chunk_rows, chunks);
    if (!p.here) return;
    Vector center, scale;
    for (int w = 0; w < WIDTH; ++w) {
        i64 statistic = p.a * (C / D) + (p.column + w) / D;
        center.entry[w] = mean[statistic];
        scale.entry[w] = 1 / sqrt(variance[statistic] + epsilon);
        if (p.chunk == 0 && p.worker == 0 && (p.column + w) % D == 0)
            s[statistic] = scale.entry[w];
    }
    for (; p.has_rows(); p.go_on()) {
        Vector batch[BATCH];
        p.read(batch, x);
#pragma unroll
        for (int i = 0; i < BATCH; ++i)
            for (int w = 0; w < WIDTH; ++w)
                batch[i].entry[w] = (batch[i].entry[w] - center.entry[w]) * scale.entry[w];
        p.write(batch, y);
    }
}

// parts = sums of t and of t y for each column of each chunk; t is (k, A, M, C), y (A, M, C).
// Blocks for the k directions of one chunk are neighbors, so that y is read from memory once.
extern "C" __global__ void __launch_bounds__(THREADS)
    part_sums(const REAL* t, const REAL* y, REAL* parts, i64 size, int k, DIVISION) {
    __shared__ Pair room[WIDTH][THREADS];
    Place p(blockIdx.x / k, M, C, lanes, chunk_rows, chunks);
    i64 direction = blockIdx.x % k;
    t += direction * size;
    Pair sums[WIDTH] = {};
    for (; p.has_rows(); p.go_on()) {
        Vector batch[BATCH], of_y[BATCH];
        p.read(batch, t);
        p.read(of_y, y);
#pragma unroll
        for (int w = 0; w < WIDTH; ++w)
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                sums[w].first += batch[i].entry[w];
                sums[w].second += batch[i].entry[w] * of_y[i].entry[w];
            }
    }
    int i = threadIdx.x;
    for (int w = 0; w < WIDTH; ++w) room[w][i] = sums[w];
    __syncthreads();
    for (int half = THREADS / 2; half >= lanes; half /= 2) {
        if (i < half)
            for (int w = 0; w < WIDTH; ++w) {
                room[w][i].first += room[w][i + half].first;
                room[w][i].second += room[w][i + half].second;
            }
        __syncthreads();
    }
    if (!p.here || p.worker) return;
    parts += 2 * direction * (size / M) * chunks;
    for (int w = 0; w < WIDTH; ++w)
        pair(parts, p.part(w, C, chunks)) = room[w][i];
}

// means = mean(t) and mean(y t) of each statistic, from its `count` parts of `entries` entries.
extern "C" __global__ void __launch_bounds__(THREADS)
    joined_sums(const REAL* parts, REAL* means, i64 statistics, int count, i64 entries) {
    i64 statistic = (blockIdx.x * (i64)THREADS + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    if (statistic >= statistics) count = 0;
    Pair sums = {};
    for (int i = lane; i < count; i += 32) {
        Pair part = pair(parts, statistic * count + i);
        sums.first += part.first;
        sums.second += part.second;
    }
    for (int by = 16; by; by /= 2) {
        sums.first += __shfl_xor_sync(0xffffffff, sums.first, by);
        sums.second += __shfl_xor_sync(0xffffffff, sums.second, by);
    }
    if (lane == 0 && count) pair(means, statistic) = {sums.first / entries, sums.second / entries};
}

// out = (t - mean(t) - y mean(y t)) s for tangents t (k, A, M, C).
extern "C" __global__ void __launch_bounds__(THREADS) tangent_by(
    const REAL* t, const REAL* y, const REAL* s, const REAL* means, REAL* out, i64 size, int k,
    int D, DIVISION) {
    unsigned block = gridDim.x - 1 - blockIdx.x;
    Place p(block / k, M, C, lanes, chunk_rows, chunks);
    if (!p.here) return;
    i64 direction = block % k;
    t += direction * size;
    out += direction * size;
    means += 2 * direction * (size / M / D);
    Vector mean, slope, scale;
    for (int w = 0; w < WIDTH; ++w) {
        i64 statistic = p.a * (C / D) + (p.column + w) / D;
        mean.entry[w] = pair(means, statistic).first;
        slope.entry[w] = pair(means, statistic).second;
        scale.entry[w] = s[statistic];
    }
    for (; p.has_rows(); p.go_on()) {
        Vector batch[BATCH], of_y[BATCH];
        p.read(batch, t);
        p.read(of_y, y);
#pragma unroll
        for (int i = 0; i < BATCH; ++i)
            for (int w = 0; w < WIDTH; ++w) {
                REAL change = of_y[i].entry[w] * slope.entry[w];
                batch[i].entry[w] = (batch[i].entry[w] - change - mean.entry[w]) * scale.entry[w];
            }
        p.write(batch, out);
    }
}
