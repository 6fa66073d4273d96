// Weighted sums of directions, with one weight for several entries.  REAL is float or double.

typedef long long i64;

// out = sum over the k directions of d u, with out of one direction's shape.  Each of the k
// directions u is (n, tokens, groups, channels), or (n, groups, channels, tokens) if swapped.  Each
// of the k weights d is (n, of_tokens, of_groups); of_tokens is 1 where all tokens have the same
// weight, and of_groups is 1 where all groups have.
extern "C" __global__ void weighted_sum(
    const REAL* d, const REAL* u, REAL* out, i64 size, int k, int n, int tokens, int groups,
    int channels, int of_tokens, int of_groups, int swapped) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    i64 rest = i, token = 0;
    if (swapped) token = rest % tokens, rest /= tokens;
    rest /= channels;
    i64 group = rest % groups;
    rest /= groups;
    if (!swapped) token = rest % tokens, rest /= tokens;
    i64 of = (rest * of_tokens + (of_tokens > 1 ? token : 0)) * of_groups;
    if (of_groups > 1) of += group;
    i64 step = (i64)n * of_tokens * of_groups;
    REAL sum = 0;
    for (int j = 0; j < k; ++j) sum += d[j * step + of] * u[j * size + i];
    out[i] = sum;
}
