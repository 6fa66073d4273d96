// Small symmetric matrices of the inner products of k directions.  A block of threads serves one
// matrix.  REAL is float or double.  Matrices are (k, k), stored by rows, and k is at most MOST.

const int MOST = 256;

// Rotate the pair (x, y) by an angle.
__device__ inline void turn(REAL* x, REAL* y, REAL cosine, REAL sine) {
    REAL before = *x;
    *x = cosine * before - sine * *y;
    *y = sine * before + cosine * *y;
}

// Make A diagonal by rotations in planes (p, q), each of which makes A_pq zero.  V becomes the
// product of the rotations, so V diag(values) V^T is A.  The pairs of one round have no index in
// common, so they are rotated at the same time; k - 1 rounds, or k if k is odd, contain every pair
// once.
//
// Source: Jacobi 1846; Golub & Van Loan, "Matrix Computations", section 8.5, for the order.
extern "C" __global__ void eigen(REAL* all_a, REAL* all_v, REAL* values, int k, REAL small) {
    REAL* a = all_a + (long long)blockIdx.x * k * k;
    REAL* v = all_v + (long long)blockIdx.x * k * k;
    __shared__ REAL cosine[MOST / 2], sine[MOST / 2];
    __shared__ int first[MOST / 2], second[MOST / 2], turned;
    int players = k + k % 2, pairs = players / 2;
    for (int i = threadIdx.x; i < k * k; i += THREADS) v[i] = i / k == i % k;
    for (int sweep = 0; sweep < 30; ++sweep) {
        if (threadIdx.x == 0) turned = 0;
        __syncthreads();
        for (int round = 0; round < players - 1; ++round) {
            for (int i = threadIdx.x; i < pairs; i += THREADS) {
                int p = i ? (round + i) % (players - 1) : players - 1;
                int q = (round - i + players - 1) % (players - 1);
                REAL c = 1, s = 0;
                if (p < k && q < k) {
                    REAL app = a[p * k + p], aqq = a[q * k + q], apq = a[p * k + q];
                    if (fabs(apq) > small * sqrt(fabs(app)) * sqrt(fabs(aqq))) {
                        REAL tau = (aqq - app) / (2 * apq);
                        REAL t = (tau < 0 ? -1 : 1) / (fabs(tau) + sqrt(1 + tau * tau));
                        c = 1 / sqrt(1 + t * t);
                        s = t * c;
                        turned = 1;
                    }
                }
                first[i] = p, second[i] = q, cosine[i] = c, sine[i] = s;
            }
            __syncthreads();
            for (int i = threadIdx.x; i < pairs * k; i += THREADS) {
                int p = first[i / k], q = second[i / k], j = i % k;
                if (sine[i / k] == 0) continue;
                turn(a + p * k + j, a + q * k + j, cosine[i / k], sine[i / k]);
            }
            __syncthreads();
            for (int i = threadIdx.x; i < pairs * k; i += THREADS) {
                int p = first[i / k], q = second[i / k], j = i % k;
                if (sine[i / k] == 0) continue;
                turn(a + j * k + p, a + j * k + q, cosine[i / k], sine[i / k]);
                turn(v + j * k + p, v + j * k + q, cosine[i / k], sine[i / k]);
            }
            __syncthreads();
        }
        if (!turned) break;
        __syncthreads();
    }
    for (int i = threadIdx.x; i < k; i += THREADS) values[blockIdx.x * k + i] = a[i * k + i];
}

// out = L^-1, where L is lower triangular and L L^T is A.  A is overwritten.  The result has NaN if
// A has a negative eigenvalue.
extern "C" __global__ void inverse_cholesky(REAL* a, REAL* out, int k) {
    __shared__ REAL pivot;
    for (int j = 0; j < k; ++j) {
        if (threadIdx.x == 0) a[j * k + j] = pivot = sqrt(a[j * k + j]);
        __syncthreads();
        for (int i = j + 1 + threadIdx.x; i < k; i += THREADS) a[i * k + j] /= pivot;
        __syncthreads();
        int rest = k - j - 1;
        for (int i = threadIdx.x; i < rest * rest; i += THREADS) {
            int row = j + 1 + i / rest, column = j + 1 + i % rest;
            if (column <= row) a[row * k + column] -= a[row * k + j] * a[column * k + j];
        }
        __syncthreads();
    }
    for (int j = threadIdx.x; j < k; j += THREADS)
        for (int i = 0; i < k; ++i) {
            REAL sum = i == j;
            for (int l = j; l < i; ++l) sum -= a[i * k + l] * out[l * k + j];
            out[i * k + j] = i < j ? (REAL)0 : sum / a[i * k + i];
        }
}
