// Sums of directions, each times a number that some of its entries share.  REAL is float or double.

typedef long long i64;

// out (size) = sum over k of d u.  u holds k stacks of (n, tokens, groups, channels), or, if they
// are swapped, of (n, groups, channels, tokens); d holds k stacks of (n, of_tokens, of_groups), each
// of the latter 1 where the number is the same for all.
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
