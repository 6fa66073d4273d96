// Convolution as a matrix product whose factors are read where they lie: no window is ever copied.
//
// A block of threads computes a tile of ROWS by COLUMNS numbers of the product, 8 by 16 of them in
// each thread.  In each step it moves DEPTH columns of the left factor and DEPTH rows of the right
// one to shared memory.  While it multiplies these, those of the next step are on their way from
// global memory to registers.
//
// Images are (M, H, W, C), kernels (K, kh, kw, C / groups, Q), outputs (K, M, rows, columns, Q).
// Windows lie (down, across) pixels apart, and the first one starts (top, left) pixels outside the
// image.  Pixels outside count as zeros.  All are float32 and aligned to 16 bytes.  Within a group,
// the channels that are summed divide by DEPTH, and the others by 4.
//
// Where tiles are too few to fill a device, each sum is divided into `splits` parts, which other
// blocks compute.  Then out has one more axis in front, for the parts, and sum_parts adds them up.
//
// Where TENSOR is 1, tensor cores multiply, and factors are rounded to TF32.

#ifndef TENSOR
#define TENSOR 0
#endif

typedef long long i64;

#define SIZES                                                                             \
    int M, int K, int Q, int groups, int splits, int H, int W, int C, int rows, int columns, \
        int kh, int kw, int down, int across, int top, int left

const int ROWS = 128, COLUMNS = THREADS, DEPTH = TENSOR ? 16 : 8;

// N neighboring numbers, which are read and written at once.
template <int N>
struct alignas(4 * N) Run {
    float of[N];
};
typedef Run<4> Four;

__device__ inline int ceiling(int n, int size) { return (n + size - 1) / size; }

// Round to TF32, which has 11 significant bits.
__device__ inline float rounded(float x) {
#ifdef __CUDA_ARCH__
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
#else
    union {
        float number;
        unsigned bits;
    } both = {x};
    if (x - x == 0) both.bits = (both.bits + 0x1000u) & 0xffffe000u;
    return both.number;
#endif
}

// The parts of both factors that two neighboring steps multiply.
//
// Entry (k, n) lies at n ^ swizzle(k) of row k.  The padding and the swizzle are such that the 32
// threads of a warp meet 32 different banks, be it that they write columns or that they read rows.
struct alignas(16) Tiles {
    static const int PADDING = TENSOR ? 8 : 4;
    float left[2][DEPTH][ROWS + PADDING], right[2][DEPTH][COLUMNS + PADDING];
};

__device__ inline int swizzle(int k) { return TENSOR ? k / 4 * 8 : 0; }

// Write the entries (k, n) to (k, n + 3) of a tile.
template <int WIDTH>
__device__ inline void put_row(float (&tile)[DEPTH][WIDTH], int k, int n, Four x) {
    for (float& number : x.of) number = TENSOR ? rounded(number) : number;
    *(Four*)(tile[k] + (n ^ swizzle(k))) = x;
}

// Write the entries (k, n) to (k + 3, n) of a tile; k divides by 4.
template <int WIDTH>
__device__ inline void put_column(float (&tile)[DEPTH][WIDTH], int k, int n, Four x) {
    for (int i = 0; i < 4; ++i)
        tile[k + i][n ^ swizzle(k)] = TENSOR ? rounded(x.of[i]) : x.of[i];
}

// Where in its tile the 8 by 16 numbers of a thread lie.  A warp has 64 by 64 of them.
__device__ inline int row_of(int i) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = warp % 2 * 64;
    return first + (TENSOR ? i / 2 * 16 + i % 2 * 8 + lane / 4 : i / 4 * 32 + lane / 4 * 4 + i % 4);
}

__device__ inline int column_of(int j) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = warp / 2 * 64;
    return first + (TENSOR ? j / 2 * 8 + lane % 4 * 2 + j % 2 : j / 4 * 16 + lane % 4 * 4 + j % 4);
}

// Add the product of the two factors in buffer n to the sums of this thread.
__device__ inline void multiply(const Tiles& tiles, int n, float (&sums)[8][16]) {
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
        Four left[2], right[4];
#pragma unroll
        for (int i = 0; i < 2; ++i) left[i] = *(const Four*)(tiles.left[n][k] + row_of(4 * i));
#pragma unroll
        for (int j = 0; j < 4; ++j) right[j] = *(const Four*)(tiles.right[n][k] + column_of(4 * j));
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 16; ++j)
                sums[i][j] += left[i / 4].of[i % 4] * right[j / 4].of[j % 4];
    }
}

// The same on tensor cores.  A warp multiplies 16 by 8 numbers with 8 by 8 at once, and the sums of
// row_of and column_of are those that the instruction leaves in a thread.
__device__ inline void multiply_on_tensor_cores(
    const Tiles& tiles, int n, float (&sums)[8][16]) {
#ifdef __CUDA_ARCH__
    int lane = threadIdx.x % 32, first_column = threadIdx.x / 64 * 64 + lane / 4;
    auto bits = [](const float* row, int n, int k) { return __float_as_uint(row[n ^ swizzle(k)]); };
#pragma unroll
    for (int step = 0; step < DEPTH; step += 8) {
        int k = step + lane % 4, l = k + 4;
        const float *left_k = tiles.left[n][k], *left_l = tiles.left[n][l];
        const float *right_k = tiles.right[n][k], *right_l = tiles.right[n][l];
        unsigned right[8][2];
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            right[j][0] = bits(right_k, first_column + 8 * j, step);
            right[j][1] = bits(right_l, first_column + 8 * j, step + 4);
        }
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
            unsigned left[4] = {
                bits(left_k, row_of(i), step), bits(left_k, row_of(i + 1), step),
                bits(left_l, row_of(i), step + 4), bits(left_l, row_of(i + 1), step + 4)};
#pragma unroll
            for (int j = 0; j < 16; j += 2)
                asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
                    "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                    : "+f"(sums[i][j]), "+f"(sums[i][j + 1]), "+f"(sums[i + 1][j]),
                      "+f"(sums[i + 1][j + 1])
                    : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[j / 2][0]),
                      "r"(right[j / 2][1]));
        }
    }
#else
    for (int k = 0; k < DEPTH; ++k)
        for (int i = 0; i < 8; ++i)
            for (int j = 0; j < 16; ++j)
                sums[i][j] += tiles.left[n][k][row_of(i) ^ swizzle(k)] *
                              tiles.right[n][k][column_of(j) ^ swizzle(k)];
#endif
}

// Sum the products of all steps.  fetch(true) reads the numbers of the next step from global memory,
// fetch(false) puts zeros in their place, and put(n) writes them to buffer n.
//
// There is no branch around fetch and put, because compilers would then move the loads to where
// their numbers are used, behind the multiplication instead of before it.
template <class Fetch, class Put>
__device__ inline void accumulate(
    const Tiles& tiles, float (&sums)[8][16], int steps, Fetch fetch, Put put) {
    if (steps <= 0) return;
    fetch(true);
    put(0);
    __syncthreads();
    for (int n = 0; n < steps; ++n) {
        fetch(n + 1 < steps);
        if (TENSOR)
            multiply_on_tensor_cores(tiles, n % 2, sums);
        else
            multiply(tiles, n % 2, sums);
        put((n + 1) % 2);
        __syncthreads();
    }
}

// Write the 16 numbers of one row of a thread to a row of the result, which has `breadth` columns.
__device__ inline void write(float* row, const float (&sums)[16], int first_column, int breadth) {
    const int N = TENSOR ? 2 : 4;
#pragma unroll
    for (int j = 0; j < 16; j += N) {
        int column = first_column + column_of(j);
        Run<N> numbers;
        for (int i = 0; i < N; ++i) numbers.of[i] = sums[j + i];
        if (column < breadth) *(Run<N>*)(row + column) = numbers;
    }
}

// The number of a block as a number of several digits.
struct Digits {
    unsigned rest = blockIdx.x;

    __device__ int next(int base) {
        int digit = rest % base;
        rest /= base;
        return digit;
    }
};

// Convolve images with kernels, `from` being the images; or, where BACK, map outputs back to images,
// `from` being the outputs of one kernel.
//
// A row of the product is a pixel of the result.  Where BACK and windows lie some pixels apart, the
// pixels of an image fall into down * across classes, by what remains of their places.  Each class
// has its own pixels of the window, which lie as far apart, and within it windows move by one pixel.
// Classes with many pixels of the window come first for the usual padding, so that blocks end at
// about the same time.
template <bool BACK>
__device__ inline void convolution(
    const float* __restrict__ from, const float* __restrict__ w, float* __restrict__ out,
    SIZES) {
    __shared__ Tiles tiles;
    const int LEFT = ROWS * DEPTH / 4 / THREADS, RIGHT = DEPTH / 4;
    int depth = (BACK ? Q : C) / groups, breadth = (BACK ? C : Q) / groups;
    int from_h = BACK ? rows : H, from_w = BACK ? columns : W, from_channels = BACK ? Q : C;
    int lines = BACK ? ceiling(H, down) : rows, places = BACK ? ceiling(W, across) : columns;
    int pixels = M * lines * places, t = threadIdx.x;

    Digits digits;
    int first_column = digits.next(ceiling(breadth, COLUMNS)) * COLUMNS;
    int kernel = digits.next(K);
    int first_row = digits.next(ceiling(pixels, ROWS)) * ROWS;
    int group = digits.next(groups), split = digits.next(splits);
    int which = BACK ? down * across - 1 - (int)digits.rest : 0;
    int r = which / across, s = which % across;
    int first_a = BACK ? (r + top) % down : 0, first_b = BACK ? (s + left) % across : 0;
    int step_a = BACK ? down : 1, step_b = BACK ? across : 1, sign = BACK ? -1 : 1;
    int count_a = ceiling(kh - first_a, step_a), count_b = ceiling(kw - first_b, step_b);
    from += group * depth;
    w += ((i64)kernel * kh * kw * C / groups) * Q + group * (Q / groups);

    // the left factor: places of this thread's rows, of which it reads 4 channels at once
    int from_p[LEFT], from_q[LEFT], from_place[LEFT], quarter = t % (DEPTH / 4) * 4;
#pragma unroll
    for (int i = 0; i < LEFT; ++i) {
        int pixel = first_row + (t + i * THREADS) / (DEPTH / 4);
        bool exists = pixel < pixels;
        int line = pixel / places, p = line % lines, q = pixel % places;
        from_p[i] = !exists ? -(1 << 30) : BACK ? p + (r + top) / down : p * down - top;
        from_q[i] = BACK ? q + (s + left) / across : q * across - left;
        from_place[i] =
            exists ? (line / lines * from_h + from_p[i]) * from_w + from_q[i] : 0;
    }
    // the right factor: this thread's columns
    int right_k[RIGHT], right_n[RIGHT];
#pragma unroll
    for (int i = 0; i < RIGHT; ++i) {
        int n = t + i * THREADS;
        right_k[i] = BACK ? quarter : n / (COLUMNS / 4);
        right_n[i] = first_column + (BACK ? n / (DEPTH / 4) : n % (COLUMNS / 4) * 4);
    }

    int all_steps = count_a * count_b * (depth / DEPTH);
    int first_step = all_steps * split / splits, steps = all_steps * (split + 1) / splits - first_step;
    int lines_done = steps > 0 ? first_step / count_b : 0;
    int b = first_step - lines_done * count_b, a = 0, c = 0;
    if (steps > 0) a = lines_done % count_a, c = lines_done / count_a * DEPTH;
    Four left_numbers[LEFT], right_numbers[RIGHT];
    auto fetch = [&](bool any) {
        int move_p = sign * a, move_q = sign * b, move = move_p * from_w + move_q;
        int pixel = (first_a + a * step_a) * kw + first_b + b * step_b;
#pragma unroll
        for (int i = 0; i < LEFT; ++i) {
            bool inside = any && (unsigned)(from_p[i] + move_p) < (unsigned)from_h &&
                          (unsigned)(from_q[i] + move_q) < (unsigned)from_w;
            const float* place = from + (from_place[i] + move) * from_channels + c + quarter;
            left_numbers[i] = inside ? *(const Four*)place : Four();
        }
#pragma unroll
        for (int i = 0; i < RIGHT; ++i) {
            int n = right_n[i], k = c + right_k[i];
            int place = BACK ? (pixel * breadth + n) * Q + k : (pixel * depth + k) * Q + n;
            right_numbers[i] = any && n < breadth ? *(const Four*)(w + place) : Four();
        }
        if (++b == count_b) {
            b = 0;
            if (++a == count_a) a = 0, c += DEPTH;
        }
    };
    auto put = [&](int n) {
#pragma unroll
        for (int i = 0; i < LEFT; ++i)
            put_column(tiles.left[n], quarter, (t + i * THREADS) / (DEPTH / 4), left_numbers[i]);
#pragma unroll
        for (int i = 0; i < RIGHT; ++i)
            if (BACK)
                put_column(tiles.right[n], quarter, right_n[i] - first_column, right_numbers[i]);
            else
                put_row(tiles.right[n], right_k[i], right_n[i] - first_column, right_numbers[i]);
    };
    float sums[8][16] = {};
    accumulate(tiles, sums, steps, fetch, put);

    out += (i64)split * K * M * (BACK ? (i64)H * W * C : (i64)rows * columns * Q);
    out += group * breadth;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int pixel = first_row + row_of(i);
        int line = pixel / places, h = line % lines * down + r, v = pixel % places * across + s;
        if (pixel >= pixels || (BACK && (h >= H || v >= W))) continue;
        i64 place = BACK ? ((i64)(line / lines) * H + h) * W + v : (i64)kernel * pixels + pixel;
        write(out + place * (BACK ? C : Q), sums[i], first_column, breadth);
    }
}

// Map outputs back to kernels: x (M, H, W, C) and y (K, M, rows, columns, Q) to
// out (K, kh, kw, C / groups, Q).  A row of the product is a channel of a pixel of the window, and
// the sums are over all windows.
__device__ inline void gradient(
    const float* __restrict__ x, const float* __restrict__ y, float* __restrict__ out,
    SIZES) {
    __shared__ Tiles tiles;
    const int LEFT = ROWS * DEPTH / 4 / THREADS, RIGHT = DEPTH / 4;
    int channels = C / groups, breadth = Q / groups, height = kh * kw * channels;
    int windows = M * rows * columns, t = threadIdx.x;

    Digits digits;
    int first_column = digits.next(ceiling(breadth, COLUMNS)) * COLUMNS;
    int kernel = digits.next(K);
    int first_row = digits.next(ceiling(height, ROWS)) * ROWS;
    int group = digits.next(groups), split = digits.rest;
    int all_steps = ceiling(windows, DEPTH);
    int first_step = (i64)all_steps * split / splits;
    int steps = (int)((i64)all_steps * (split + 1) / splits) - first_step;

    // the left factor: 4 channels of one pixel of the window, in LEFT windows of each step
    int row = first_row + t % (ROWS / 4) * 4, pixel = row / channels;
    int a = pixel / kw - top, b = pixel % kw - left, image[LEFT], p[LEFT], q[LEFT];
    x += group * channels + row % channels;
#pragma unroll
    for (int i = 0; i < LEFT; ++i) {
        int window = first_step * DEPTH + (t + i * THREADS) / (ROWS / 4), line = window / columns;
        q[i] = window % columns, p[i] = line % rows, image[i] = line / rows;
    }
    // the right factor: 4 columns of the outputs
    int column = first_column + t % (COLUMNS / 4) * 4, first_window = first_step * DEPTH;
    y += (i64)kernel * windows * Q + group * breadth + column;

    Four left_numbers[LEFT], right_numbers[RIGHT];
    auto fetch = [&](bool any) {
#pragma unroll
        for (int i = 0; i < LEFT; ++i) {
            int h = p[i] * down + a, v = q[i] * across + b;
            bool inside = any && image[i] < M && row < height && (unsigned)h < (unsigned)H &&
                          (unsigned)v < (unsigned)W;
            const float* place = x + ((image[i] * H + h) * W + v) * C;
            left_numbers[i] = inside ? *(const Four*)place : Four();
            q[i] += DEPTH % columns;
            p[i] += DEPTH / columns % rows + (q[i] >= columns);
            image[i] += DEPTH / columns / rows + (p[i] >= rows);
            q[i] -= q[i] >= columns ? columns : 0;
            p[i] -= p[i] >= rows ? rows : 0;
        }
#pragma unroll
        for (int i = 0; i < RIGHT; ++i) {
            int window = first_window + (t + i * THREADS) / (COLUMNS / 4);
            bool inside = any && window < windows && column < breadth;
            right_numbers[i] = inside ? *(const Four*)(y + window * Q) : Four();
        }
        first_window += DEPTH;
    };
    auto put = [&](int n) {
#pragma unroll
        for (int i = 0; i < LEFT; ++i) {
            int k = (t + i * THREADS) / (ROWS / 4);
            put_row(tiles.left[n], k, row - first_row, left_numbers[i]);
        }
#pragma unroll
        for (int i = 0; i < RIGHT; ++i) {
            int k = (t + i * THREADS) / (COLUMNS / 4);
            put_row(tiles.right[n], k, column - first_column, right_numbers[i]);
        }
    };
    float sums[8][16] = {};
    accumulate(tiles, sums, steps, fetch, put);

    out += ((i64)split * K + kernel) * height * Q + group * breadth;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int n = first_row + row_of(i);
        if (n < height) write(out + (i64)n * Q, sums[i], first_column, breadth);
    }
}

#define NUMBERS \
    M, K, Q, groups, splits, H, W, C, rows, columns, kh, kw, down, across, top, left
// At least so many blocks are resident at once, with 255 registers for each thread.
#define BOUNDS __launch_bounds__(THREADS, 256 / THREADS)

extern "C" __global__ void BOUNDS convolve(
    const float* x, const float* w, float* out, SIZES) {
    convolution<false>(x, w, out, NUMBERS);
}

extern "C" __global__ void BOUNDS convolve_back(
    const float* y, const float* w, float* out, SIZES) {
    convolution<true>(y, w, out, NUMBERS);
}

extern "C" __global__ void BOUNDS kernel_gradient(
    const float* x, const float* y, float* out, SIZES) {
    gradient(x, y, out, NUMBERS);
}

// Add up the parts of a result, parts (splits, size) to out (size), four numbers in a thread.
extern "C" __global__ void sum_parts(const float* parts, float* out, i64 size, int splits) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size / 4) return;
    Four sum = ((const Four*)parts)[i];
#pragma unroll 8
    for (int n = 1; n < splits; ++n) {
        Four more = ((const Four*)parts)[n * (size / 4) + i];
        for (int j = 0; j < 4; ++j) sum.of[j] += more.of[j];
    }
    ((Four*)out)[i] = sum;
}
