// Layer, group and batch norm.  A block of threads computes one statistic, or 32 neighboring ones.
//
// Arrays are seen as (A, M, B, D) and are normalized over M and D, so there are A * B statistics.
// A block computes `lanes` of them, neighbors in B: 1, or 32 where D is 1, so that a warp reads
// neighboring numbers.  Its threads are `lanes` times `workers`, and the workers share the M * D
// entries of each statistic.  REAL is float or double, and THREADS is a power of 2.

typedef long long i64;

// The entries that one thread reads, and the statistic to which they belong.
struct Place {
    i64 first, entries, of_statistic, step_m;
    int worker, workers, D;
    bool here;
    __device__ i64 operator()(i64 j) const { return first + j / D * step_m + j % D; }
};

// Find the place of this thread; `part` counts the blocks of one array (A, M, B, D).
__device__ inline Place place(i64 part, i64 M, int B, int D, int lanes) {
    Place p;
    int runs = (B + lanes - 1) / lanes, b = (int)(part % runs) * lanes + threadIdx.x % lanes;
    i64 a = part / runs;
    p.here = b < B;
    p.D = D;
    p.step_m = (i64)B * D;
    p.first = a * M * p.step_m + (i64)b * D;
    p.of_statistic = a * B + b;
    p.entries = p.here ? M * D : 0;
    p.worker = threadIdx.x / lanes;
    p.workers = blockDim.x / lanes;
    return p;
}

// Return to every thread the sum over all workers of its lane.  blockDim and lanes are powers of 2.
__device__ inline REAL over_workers(REAL value, REAL* room, int lanes) {
    int t = threadIdx.x;
    room[t] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half >= lanes; half /= 2) {
        if (t < half) room[t] += room[t + half];
        __syncthreads();
    }
    REAL sum = room[t % lanes];
    __syncthreads();
    return sum;
}

__device__ inline REAL mean_of(const REAL* x, const Place& p, i64 n, REAL* room, int lanes) {
    REAL sum = 0;
    for (i64 j = p.worker; j < p.entries; j += p.workers) sum += x[p(j)];
    return over_workers(sum, room, lanes) / n;
}

__device__ inline REAL variance_of(
    const REAL* x, REAL mean, const Place& p, i64 n, REAL* room, int lanes) {
    REAL sum = 0;
    for (i64 j = p.worker; j < p.entries; j += p.workers) {
        REAL from_mean = x[p(j)] - mean;
        sum += from_mean * from_mean;
    }
    return over_workers(sum, room, lanes) / n;
}

// y = (x - mean) s, where s = 1 / sqrt(variance + epsilon).
extern "C" __global__ void normalized(
    const REAL* x, REAL* y, REAL* s, i64 M, int B, int D, int lanes, REAL epsilon) {
    __shared__ REAL room[THREADS];
    Place p = place(blockIdx.x, M, B, D, lanes);
    REAL mean = mean_of(x, p, M * D, room, lanes);
    REAL scale = 1 / sqrt(variance_of(x, mean, p, M * D, room, lanes) + epsilon);
    if (p.here && p.worker == 0) s[p.of_statistic] = scale;
    for (i64 j = p.worker; j < p.entries; j += p.workers) y[p(j)] = (x[p(j)] - mean) * scale;
}

extern "C" __global__ void moments(
    const REAL* x, REAL* mean_out, REAL* variance_out, i64 M, int B, int D, int lanes) {
    __shared__ REAL room[THREADS];
    Place p = place(blockIdx.x, M, B, D, lanes);
    REAL mean = mean_of(x, p, M * D, room, lanes);
    REAL variance = variance_of(x, mean, p, M * D, room, lanes);
    if (p.here && p.worker == 0) {
        mean_out[p.of_statistic] = mean;
        variance_out[p.of_statistic] = variance;
    }
}

// out = (t - mean(t) - y mean(y t)) s for a stack t (k, A, M, B, D).  One direction takes `blocks`
// blocks.
extern "C" __global__ void tangent(
    const REAL* t, const REAL* y, const REAL* s, REAL* out, i64 size, i64 blocks, i64 M, int B,
    int D, int lanes) {
    __shared__ REAL room[THREADS];
    Place p = place(blockIdx.x % blocks, M, B, D, lanes);
    i64 direction = blockIdx.x / blocks * size;
    REAL of_t = 0, of_product = 0;
    for (i64 j = p.worker; j < p.entries; j += p.workers) {
        REAL entry = t[direction + p(j)];
        of_t += entry;
        of_product += entry * y[p(j)];
    }
    REAL mean = over_workers(of_t, room, lanes) / (M * D);
    REAL slope = over_workers(of_product, room, lanes) / (M * D);
    REAL scale = p.here ? s[p.of_statistic] : (REAL)0;
    for (i64 j = p.worker; j < p.entries; j += p.workers)
        out[direction + p(j)] = (t[direction + p(j)] - y[p(j)] * slope - mean) * scale;
}
