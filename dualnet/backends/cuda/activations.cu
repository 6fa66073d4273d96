// Activations: value and slope are computed in one pass over memory.  REAL is float or double.

typedef long long i64;

// y = max(x, 0), which is NaN where x is NaN.  slope = 1 where x > 0, and 0 elsewhere.
extern "C" __global__ void relu(const REAL* x, REAL* y, REAL* slope, i64 size) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    bool off = x[i] <= 0;
    y[i] = off ? (REAL)0 : x[i];
    slope[i] = x[i] > 0 ? (REAL)1 : (REAL)0;
}
