// Sliding windows over images, channels last.  Each thread computes one number of the result, so no
// two threads add to the same number, and neighbors in a warp read neighboring channels.
//
// Images are (M, H, W, C).  An image has rows by columns windows, each of kh by kw pixels.  Windows
// lie (down, across) pixels apart, and the first one starts (top, left) pixels outside the image.
// Pixels outside count as zeros.  REAL is float or double.

typedef long long i64;

#define GEOMETRY                                                                              \
    int H, int W, int C, int rows, int columns, int kh, int kw, int down, int across, int top, \
        int left

// Copy windows: x (M, H, W, C) to out (M, rows, columns, kh * kw, C).
extern "C" __global__ void unfold(const REAL* x, REAL* out, i64 size, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int c = (int)(i % C);
    i64 rest = i / C;
    int b = (int)(rest % kw);
    int a = (int)(rest / kw % kh);
    rest /= kh * kw;
    int h = (int)(rest / columns % rows) * down + a - top;
    int w = (int)(rest % columns) * across + b - left;
    i64 m = rest / columns / rows;
    bool inside = 0 <= h && h < H && 0 <= w && w < W;
    out[i] = inside ? x[((m * H + h) * W + w) * C + c] : (REAL)0;
}

// Add every window to its pixels: y (M, rows, columns, kh * kw, C) to out (M, H, W, C).
extern "C" __global__ void fold(const REAL* y, REAL* out, i64 size, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int c = (int)(i % C);
    int w = (int)(i / C % W) + left;
    int h = (int)(i / C / W % H) + top;
    i64 m = i / C / W / H;
    REAL sum = 0;
    for (int a = 0; a < kh; ++a)
        for (int b = 0; b < kw; ++b) {
            int p = h - a, q = w - b;
            if (p < 0 || q < 0 || p % down || q % across) continue;
            p /= down;
            q /= across;
            if (p < rows && q < columns)
                sum += y[(((m * rows + p) * columns + q) * kh * kw + a * kw + b) * C + c];
        }
    out[i] = sum;
}

// Sum the weighted pixels of each window: x (k, M, H, W, C) to out (k, M, rows, columns, C), with
// weights (kh * kw, M, rows, columns, C).
extern "C" __global__ void weighted_window_sum(
    const REAL* x, const REAL* weights, REAL* out, i64 size, i64 M, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    i64 one = M * rows * columns * C, of_one = i % one, m = i / C / columns / rows;
    int c = (int)(i % C);
    int q = (int)(i / C % columns), p = (int)(i / C / columns % rows);
    REAL sum = 0;
    for (int a = 0; a < kh; ++a)
        for (int b = 0; b < kw; ++b) {
            int h = p * down + a - top, w = q * across + b - left;
            if (0 <= h && h < H && 0 <= w && w < W)
                sum += x[((m * H + h) * W + w) * C + c] * weights[(a * kw + b) * one + of_one];
        }
    out[i] = sum;
}

// The transpose of the function above: y (k, M, rows, columns, C) to out (k, M, H, W, C).
extern "C" __global__ void weighted_window_sum_transpose(
    const REAL* y, const REAL* weights, REAL* out, i64 size, i64 M, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    i64 one = M * rows * columns * C, m = i / C / W / H;
    int c = (int)(i % C);
    int w = (int)(i / C % W) + left, h = (int)(i / C / W % H) + top;
    REAL sum = 0;
    for (int a = 0; a < kh; ++a)
        for (int b = 0; b < kw; ++b) {
            int p = h - a, q = w - b;
            if (p < 0 || q < 0 || p % down || q % across) continue;
            p /= down;
            q /= across;
            if (p >= rows || q >= columns) continue;
            i64 at = ((m * rows + p) * columns + q) * C + c;
            sum += y[at] * weights[(a * kw + b) * one + at % one];
        }
    out[i] = sum;
}

// Add x (k, n) at positions (n) of zeros (k, size).  A position may occur several times.
extern "C" __global__ void scatter(
    const REAL* x, const i64* positions, REAL* out, i64 k, i64 n, i64 size) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < k * n) atomicAdd(out + i / n * size + positions[i % n], x[i]);
}
