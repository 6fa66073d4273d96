// Functions of rows: layer norm and its like, softmax, cross-entropy.
//
// Arrays are lists of rows of n contiguous entries.  LANES neighboring threads serve a row: a warp,
// a part of one, or, where rows are long, all THREADS of a block.  Thread `lane` has the vectors of
// WIDTH entries number lane, lane + LANES, and so on.  It keeps its VECTORS vectors in registers, so
// that a row is read once; where VECTORS is 0 a row has too many, and they are read at each use.
// LANES, THREADS and WIDTH are powers of 2, WIDTH divides n, and REAL is float or double.

typedef long long i64;

struct alignas(WIDTH * sizeof(REAL)) Vector {
    REAL entry[WIDTH];
};

// The row of this thread, and its place there.
struct Place {
    i64 row;
    int n, lane;
    bool here;
    __device__ Place(i64 block, i64 rows, int n)
        : row(block * (THREADS / LANES) + threadIdx.x / LANES), n(n), lane(threadIdx.x % LANES) {
        here = row < rows;
    }
    __device__ int vectors() const {
        return VECTORS ? VECTORS : (n + LANES * WIDTH - 1) / (LANES * WIDTH);
    }
    __device__ int first(int v) const { return (v * LANES + lane) * WIDTH; }  // of vector v
    __device__ bool has(int v) const { return here && first(v) < n; }
};

// The entries of a row that this thread has.
struct Row {
    const Place& p;
    const REAL* from;
    Vector kept[VECTORS ? VECTORS : 1];
    __device__ Row(const REAL* array, i64 row, const Place& p) : p(p), from(array + row * p.n) {
#pragma unroll
        for (int v = 0; v < VECTORS; ++v) kept[v] = read(v);
    }
    __device__ Vector read(int v) const {
        return p.has(v) ? *(const Vector*)(from + p.first(v)) : Vector{};
    }
    __device__ Vector operator[](int v) const { return VECTORS ? kept[VECTORS ? v : 0] : read(v); }

    // Call f(entry, v, i) for entry i of each vector v.
    template <class F>
    __device__ void each(F f) const {
#pragma unroll
        for (int v = 0; v < p.vectors(); ++v) {
            Vector x = (*this)[v];
            if (p.has(v))
                for (int i = 0; i < WIDTH; ++i) f(x.entry[i], v, i);
        }
    }

    // Write f(entry, v, i) for each entry into a row of another array.
    template <class F>
    __device__ void write(REAL* array, i64 row, F f) const {
#pragma unroll
        for (int v = 0; v < p.vectors(); ++v) {
            Vector x = (*this)[v];
            for (int i = 0; i < WIDTH; ++i) x.entry[i] = f(x.entry[i], v, i);
            if (p.has(v)) *(Vector*)(array + row * p.n + p.first(v)) = x;
        }
    }
};

struct Sum {
    __device__ REAL operator()(REAL a, REAL b) const { return a + b; }
};

struct Largest {
    __device__ REAL operator()(REAL a, REAL b) const { return b > a ? b : a; }
};

// Join the values of all threads of a row; all of them get the same result.
template <class Join>
__device__ inline REAL over_row(REAL value, Join join) {
#pragma unroll
    for (int by = (LANES < 32 ? LANES : 32) / 2; by; by /= 2)
        value = join(value, __shfl_xor_sync(0xffffffff, value, by));
#if LANES > 32
    __shared__ REAL room[LANES / 32];
    __syncthreads();  // before this nobody writes: the last result may still be read
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
    __syncthreads();
    value = room[0];
    for (int warp = 1; warp < LANES / 32; ++warp) value = join(value, room[warp]);
#endif
    return value;
}

// y = (x - mean) s, where s = 1 / sqrt(variance + epsilon).
extern "C" __global__ void __launch_bounds__(THREADS)
    normalized(const REAL* x, REAL* y, REAL* s, i64 rows, int n, REAL epsilon) {
    Place p(blockIdx.x, rows, n);
    Row row(x, p.row, p);
    REAL sum = 0, squares = 0;
    row.each([&](REAL entry, int, int) { sum += entry; });
    REAL mean = over_row(sum, Sum()) / n;
    row.each([&](REAL entry, int, int) { squares += (entry - mean) * (entry - mean); });
    REAL scale = 1 / sqrt(over_row(squares, Sum()) / n + epsilon);
    row.write(y, p.row, [&](REAL entry, int, int) { return (entry - mean) * scale; });
    if (p.here && p.lane == 0) s[p.row] = scale;
}

// out = (t - mean(t) - y mean(y t)) s for tangents t (k, rows, n).  A thread takes `each` of the k.
extern "C" __global__ void __launch_bounds__(THREADS) tangent_of_normalized(
    const REAL* t, const REAL* y, const REAL* s, REAL* out, i64 rows, int n, int k, int each) {
    int groups = (k + each - 1) / each, first = blockIdx.x % groups * each;
    Place p(blockIdx.x / groups, rows, n);
    Row of_y(y, p.row, p);
    REAL scale = p.here ? s[p.row] : (REAL)0;
    for (int d = first; d < first + each && d < k; ++d) {
        Row row(t, d * rows + p.row, p);
        REAL sum = 0, products = 0;
        row.each([&](REAL entry, int v, int i) {
            sum += entry;
            products += entry * of_y[v].entry[i];
        });
        REAL mean = over_row(sum, Sum()) / n, slope = over_row(products, Sum()) / n;
        row.write(out, d * rows + p.row, [&](REAL entry, int v, int i) {
            return (entry - of_y[v].entry[i] * slope - mean) * scale;
        });
    }
}

// The largest entry of a row.  Of NaN there is none, but what is computed with it becomes NaN.
__device__ inline REAL largest_of(const Row& row) {
    REAL largest = row.p.here ? row.from[0] : (REAL)0;
    row.each([&](REAL entry, int, int) { largest = Largest()(largest, entry); });
    return over_row(largest, Largest());
}

// p = exp(x) / sum(exp(x)).
extern "C" __global__ void __launch_bounds__(THREADS)
    softmax(const REAL* x, REAL* out, i64 rows, int n) {
    Place p(blockIdx.x, rows, n);
    Row row(x, p.row, p);
    REAL largest = largest_of(row), sum = 0;
    row.each([&](REAL entry, int, int) { sum += exp(entry - largest); });
    sum = over_row(sum, Sum());
    row.write(out, p.row, [&](REAL entry, int, int) { return exp(entry - largest) / sum; });
}

// out = p t - p sum(p t) for tangents t (k, rows, n) of x, where p is the softmax of x.
extern "C" __global__ void __launch_bounds__(THREADS) tangent_of_softmax(
    const REAL* t, const REAL* softmax, REAL* out, i64 rows, int n, int k, int each) {
    int groups = (k + each - 1) / each, first = blockIdx.x % groups * each;
    Place p(blockIdx.x / groups, rows, n);
    Row of_p(softmax, p.row, p);
    for (int d = first; d < first + each && d < k; ++d) {
        Row row(t, d * rows + p.row, p);
        REAL sum = 0;
        row.each([&](REAL entry, int v, int i) { sum += entry * of_p[v].entry[i]; });
        sum = over_row(sum, Sum());
        row.write(out, d * rows + p.row, [&](REAL entry, int v, int i) {
            return entry * of_p[v].entry[i] - of_p[v].entry[i] * sum;
        });
    }
}

// losses (rows) = -log softmax(logits)[label], and their derivatives by the logits, error (rows, n).
// The loss of a label that is out of range is NaN.
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(
    const REAL* logits, const i64* labels, REAL* losses, REAL* error, i64 rows, int n) {
    Place p(blockIdx.x, rows, n);
    Row row(logits, p.row, p);
    i64 label = p.here ? labels[p.row] : 0;
    REAL largest = largest_of(row), sum = 0;
    row.each([&](REAL entry, int, int) { sum += exp(entry - largest); });
    REAL log_sum = log(over_row(sum, Sum()));
    row.write(error, p.row, [&](REAL entry, int v, int i) {
        return exp(entry - largest - log_sum) - (REAL)(p.first(v) + i == label);
    });
    if (p.here && p.lane == 0) {
        bool known = 0 <= label && label < n;
        losses[p.row] = known ? log_sum - (row.from[label] - largest) : sqrt((REAL)-1);
    }
}
