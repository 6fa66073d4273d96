// Sliding windows over images, channels last.  No two threads add to the same number, and neighbors
// in a warp read neighboring channels.
//
// Images are (M, H, W, C).  An image has rows by columns windows, each of kh by kw pixels.  Windows
// lie (down, across) pixels apart, and the first one starts (top, left) pixels outside the image.
// Pixels outside count as zeros.  REAL is float or double.

typedef long long i64;

#define GEOMETRY                                                                              \
    int H, int W, int C, int rows, int columns, int kh, int kw, int down, int across, int top, \
        int left

// Four neighboring channels, which are read and written by loads and stores of 128 bits.
struct alignas(16) Four {
    REAL of[4];
};

__device__ inline void operator+=(Four& sum, const Four& more) {
    for (int i = 0; i < 4; ++i) sum.of[i] += more.of[i];
}

// Copy windows: x (M, H, W, C) to out (groups, M, rows, columns, kh * kw, C / groups).  A thread
// copies one channel of one window, so that it finds out where the window lies once for all its
// pixels.  C counts channels of type T.
template <class T>
__device__ inline void copy_windows(const T* x, T* out, i64 size, int groups, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    unsigned windows = (unsigned)(size / C), window = (unsigned)i / C, c = (unsigned)i % C;
    unsigned line = window / columns, channels = C / groups;
    int q = (int)(window % columns) * across - left, p = (int)(line % rows) * down - top;
    x += (i64)(line / rows) * H * W * C + c;
    out += ((i64)(c / channels) * windows + window) * kh * kw * channels + c % channels;
    for (int h = p; h < p + kh; ++h)
        for (int w = q; w < q + kw; ++w) {
            bool inside = (unsigned)h < (unsigned)H && (unsigned)w < (unsigned)W;
            *out = inside ? x[(h * W + w) * C] : T();
            out += channels;
        }
}

// Add every window to its pixels: y (groups, M, rows, columns, kh * kw, C / groups) to
// out (M, H, W, C).  A thread adds up one channel of one pixel.  C counts channels of type T.
template <class T>
__device__ inline void add_windows(const T* y, T* out, i64 size, int groups, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    unsigned pixel = (unsigned)i / C, c = (unsigned)i % C, line = pixel / W, m = line / H;
    unsigned windows = (unsigned)(size / C / H / W) * rows * columns, channels = C / groups;
    int h = (int)(line % H) + top, w = (int)(pixel % W) + left;
    y += (i64)(c / channels) * windows * kh * kw * channels + c % channels;
    T sum = T();
    for (int a = h % down; a < kh && a <= h; a += down) {
        int p = (h - a) / down;
        if (p >= rows) continue;
        for (int b = w % across; b < kw && b <= w; b += across) {
            int q = (w - b) / across;
            i64 window = ((i64)m * rows + p) * columns + q;
            if (q < columns) sum += y[((window * kh + a) * kw + b) * channels];
        }
    }
    out[i] = sum;
}

#define NUMBERS groups, H, W, C, rows, columns, kh, kw, down, across, top, left

extern "C" __global__ void unfold(const REAL* x, REAL* out, i64 size, int groups, GEOMETRY) {
    copy_windows(x, out, size, NUMBERS);
}

extern "C" __global__ void unfold_fours(const REAL* x, REAL* out, i64 size, int groups, GEOMETRY) {
    copy_windows((const Four*)x, (Four*)out, size, NUMBERS);
}

extern "C" __global__ void fold(const REAL* y, REAL* out, i64 size, int groups, GEOMETRY) {
    add_windows(y, out, size, NUMBERS);
}

extern "C" __global__ void fold_fours(const REAL* y, REAL* out, i64 size, int groups, GEOMETRY) {
    add_windows((const Four*)y, (Four*)out, size, NUMBERS);
}

// Pick from each window one number for each of its pixels: planes (A, kh * kw, M, H, W) to
// out (A, kh * kw, M, rows, columns).  Where C is 1, plane a * kw + b holds the numbers of pixel
// (a, b) of all windows.
extern "C" __global__ void shift(const REAL* planes, REAL* out, i64 size, int M, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    unsigned line = (unsigned)i / columns, image = line / rows;
    int pixel = (int)(image / M % (kh * kw));
    int h = (int)(line % rows) * down + pixel / kw - top;
    int w = (int)((unsigned)i % columns) * across + pixel % kw - left;
    bool inside = (unsigned)h < (unsigned)H && (unsigned)w < (unsigned)W;
    out[i] = inside ? planes[((i64)image * H + h) * W + w] : (REAL)0;
}

// Sum the weighted pixels of each window: x (k, M, H, W, C) to out (k, M, rows, columns, C), with
// weights (kh * kw, M, rows, columns, C).
extern "C" __global__ void weighted_window_sum(
    const REAL* x, const REAL* weights, REAL* out, i64 size, i64 M, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    unsigned one = (unsigned)(M * rows * columns * C), of_one = (unsigned)i % one;
    unsigned window = (unsigned)i / C, line = window / columns, m = line / rows;
    int c = (int)((unsigned)i % C), q = (int)(window % columns), p = (int)(line % rows);
    REAL sum = 0;
    for (int a = 0; a < kh; ++a)
        for (int b = 0; b < kw; ++b) {
            int h = p * down + a - top, w = q * across + b - left;
            if (0 <= h && h < H && 0 <= w && w < W)
                sum += x[(((i64)m * H + h) * W + w) * C + c] *
                       weights[(i64)(a * kw + b) * one + of_one];
        }
    out[i] = sum;
}

// The transpose of the function above: y (k, M, rows, columns, C) to out (k, M, H, W, C).
extern "C" __global__ void weighted_window_sum_transpose(
    const REAL* y, const REAL* weights, REAL* out, i64 size, i64 M, GEOMETRY) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    i64 one = M * rows * columns * C;
    unsigned pixel = (unsigned)i / C, line = pixel / W, m = line / H;
    int c = (int)((unsigned)i % C), w = (int)(pixel % W) + left, h = (int)(line % H) + top;
    i64 before = m / M * one;
    REAL sum = 0;
    for (int a = 0; a < kh; ++a)
        for (int b = 0; b < kw; ++b) {
            int p = h - a, q = w - b;
            if (p < 0 || q < 0 || p % down || q % across) continue;
            p /= down;
            q /= across;
            if (p >= rows || q >= columns) continue;
            i64 at = (((i64)m * rows + p) * columns + q) * C + c;
            sum += y[at] * weights[(a * kw + b) * one + at - before];
        }
    out[i] = sum;
}

// Add x (k, n) at positions (n) of zeros (k, size).  A position may occur several times.
extern "C" __global__ void scatter(
    const REAL* x, const i64* positions, REAL* out, i64 k, i64 n, i64 size) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < k * n) atomicAdd(out + i / n * size + positions[i % n], x[i]);
}
