// Softmax cross-entropy; a block of threads serves one example.  REAL is float or double, and
// THREADS is a power of 2.

typedef long long i64;

// Return to every thread the sum, or the largest, of the values of all threads of the block.
__device__ inline REAL joined(REAL value, REAL* room, bool sum) {
    int t = threadIdx.x;
    room[t] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) {
            REAL other = room[t + half];
            room[t] = sum ? room[t] + other : (other > room[t] ? other : room[t]);
        }
        __syncthreads();
    }
    REAL result = room[0];
    __syncthreads();
    return result;
}

// Compute losses (N), which are -log softmax(logits)[label], and their derivatives by the logits,
// error (N, classes).
extern "C" __global__ void cross_entropy(
    const REAL* logits, const i64* labels, REAL* losses, REAL* error, int classes) {
    __shared__ REAL room[THREADS];
    const REAL* x = logits + (i64)blockIdx.x * classes;
    REAL* e = error + (i64)blockIdx.x * classes;
    i64 label = labels[blockIdx.x];
    REAL largest = x[0], sum = 0;
    for (int c = threadIdx.x; c < classes; c += blockDim.x)
        if (x[c] > largest) largest = x[c];
    largest = joined(largest, room, false);
    for (int c = threadIdx.x; c < classes; c += blockDim.x) sum += exp(x[c] - largest);
    REAL log_sum = log(joined(sum, room, true));
    for (int c = threadIdx.x; c < classes; c += blockDim.x)
        e[c] = exp(x[c] - largest - log_sum) - (REAL)(c == label);
    if (threadIdx.x == 0) losses[blockIdx.x] = log_sum - (x[label] - largest);
}
