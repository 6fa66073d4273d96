// Activations: the value and the slope from one look at the argument.  REAL is float or double.

typedef long long i64;

// y = max(x, 0), which is NaN where x is, and slope = 1 where x > 0, else 0
extern "C" __global__ void relu(const REAL* x, REAL* y, REAL* slope, i64 size) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    bool off = x[i] <= 0;
    y[i] = off ? (REAL)0 : x[i];
    slope[i] = x[i] > 0 ? (REAL)1 : (REAL)0;
}
