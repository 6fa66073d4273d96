"""Programs of the field in plain NumPy, as people write them, to be differentiated as they are.

`dualnet.numpy` stands beside NumPy only where NumPy asks nobody: lists of values that become an
array, and buffers that are filled in a loop (`put_at`).
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import dualnet as dn
import dualnet.numpy as dnp

try:
    from scipy.special import erf
except ImportError:
    erf = dn.custom_jvp(lambda x: np.vectorize(math.erf)(x))
    erf.defjvps(lambda t, out, x: t * (2 / np.sqrt(np.pi) * np.exp(-np.square(x))))


@dataclass(frozen=True)
class Program:
    """A function, and where to differentiate it.

    Attributes:
        function: takes floats and arrays; returns an array.
        at: its arguments.
        hessian: the sum of the result is differentiated twice, too.
    """

    function: Callable
    at: tuple
    hessian: bool

    def __str__(self) -> str:
        return self.function.__name__

    def by(self, **modules: Any) -> Callable:
        """Return the same program with other modules under the names that it uses."""
        namespace = {**globals(), **modules}
        return types.FunctionType(self.function.__code__, namespace, str(self))


PROGRAMS: list[Program] = []


def program(*at: Any, hessian: bool = False) -> Callable:
    """Register a program with its arguments."""

    def register(function: Callable) -> Callable:
        values = tuple(np.asarray(x, float) for x in at)
        PROGRAMS.append(Program(function, values, hessian))
        return function

    return register


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# --- equations that are solved -------------------------------------------------------------------


@program(1.2, 0.4, hessian=True)
def kepler(M, e):
    """The eccentric anomaly E with E - e sin E = M, by Newton's method."""
    E = M
    step = 1.0
    while abs(step) > 1e-12:
        step = (E - e * np.sin(E) - M) / (1 - e * np.cos(E))
        E = E - step
    return E


@program(drawn(1, 12, 2), 0.5)
def logistic_regression_by_newton(X, decay):
    """The weights that Newton's method finds, by the data and the weight decay."""
    y = np.arange(12) % 3 == 0
    w = np.zeros(2)
    for _ in range(8):
        p = 1 / (1 + np.exp(-(X @ w)))
        gradient = X.T @ (p - y) + decay * w
        curvature = (X.T * (p * (1 - p))) @ X + decay * np.eye(2)
        w = w - np.linalg.solve(curvature, gradient)
    return w


@program(drawn(2, 5), 0.3)
def ising_mean_field(h, J):
    """Magnetizations m = tanh(h + J (left + right neighbor)), by iteration."""
    m = np.zeros(5)
    for _ in range(60):
        m = np.tanh(h + J * (np.roll(m, 1) + np.roll(m, -1)))
    return m


@program(np.abs(drawn(3, 4, 4)) + 0.1, 0.85)
def pagerank(links, damping):
    """Ranks by the power method."""
    P = links / links.sum(axis=0)
    rank = np.ones(4) / 4
    for _ in range(60):
        rank = damping * (P @ rank) + (1 - damping) / 4
    return rank


@program(drawn(4, 6) / 4, drawn(5, 6) / 4 + 4.0, drawn(6, 6) / 4, drawn(7, 6))
def thomas_algorithm(lower, diagonal, upper, b):
    """The solution of a tridiagonal system."""
    n = len(b)
    c, d = [upper[0] / diagonal[0]], [b[0] / diagonal[0]]
    for i in range(1, n):
        pivot = diagonal[i] - lower[i] * c[-1]
        c.append(upper[i] / pivot)
        d.append((b[i] - lower[i] * d[-1]) / pivot)
    x = [d[-1]]
    for i in range(n - 2, -1, -1):
        x.append(d[i] - c[i] * x[-1])
    return dnp.array(x[::-1])


@program([1.0, 0.1], [[0.2]], [2.0, 1.0], 0.3, hessian=True)
def linear_quadratic_regulator(q, r, dynamics, dt):
    """The cost-to-go of a double integrator with drag, by Riccati's recursion."""
    A = np.eye(2) + dt * dnp.array([[0.0, dynamics[0]], [0.0, -dynamics[1]]])
    B = dnp.array([[0.0], [dt]])
    Q = np.diag(q)
    P = Q
    for _ in range(20):
        K = np.linalg.solve(r + B.T @ P @ B, B.T @ P @ A)
        P = Q + A.T @ P @ (A - B @ K)
    x = np.array([1.0, -0.5])
    return x @ P @ x


@program(drawn(8, 9), hessian=True)
def polynomial_fit_by_least_squares(y):
    """The value at 0.3 of the cubic that fits y best, squared."""
    t = np.linspace(-1, 1, 9)
    A = np.vander(t, 4)
    coefficients = np.linalg.lstsq(A, y, rcond=None)[0]
    return np.polyval(coefficients, 0.3) ** 2


@program(np.linspace(0, 3, 7) + 0.1 * drawn(9, 7), drawn(10, 7))
def cubic_spline_interpolation(x, y):
    """Values of the natural cubic spline through the points (x, y)."""
    h = np.diff(x)
    slope = np.diff(y) / h
    A = np.diag(2 * (h[:-1] + h[1:])) + np.diag(h[1:-1], 1) + np.diag(h[1:-1], -1)
    inner = np.linalg.solve(A, 6 * np.diff(slope))
    second = np.concatenate([[0.0], inner, [0.0]])
    at = np.array([0.7, 1.4, 2.6])
    i = np.searchsorted(x, at) - 1
    left, right = (at - x[i]) / h[i], (x[i + 1] - at) / h[i]
    bend = (left**3 - left) * second[i + 1] + (right**3 - right) * second[i]
    return left * y[i + 1] + right * y[i] + h[i] ** 2 / 6 * bend


# --- differential equations ----------------------------------------------------------------------


@program([0.6, 0.0], 9.81, 1.3, hessian=True)
def pendulum_by_runge_kutta(start, gravity, length):
    """The state of a pendulum after one second, by the classical method of fourth order."""

    def f(s):
        return np.stack([s[1], -gravity / length * np.sin(s[0])])

    s, h = start, 0.05
    for _ in range(20):
        k1 = f(s)
        k2 = f(s + h / 2 * k1)
        k3 = f(s + h / 2 * k2)
        k4 = f(s + h * k3)
        s = s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return s


@program([2.0, 0.5], 1.5)
def van_der_pol_by_adaptive_heun(start, mu):
    """The state of an oscillator, by steps whose size follows their error."""

    def f(y):
        return np.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])

    t, y, h = 0.0, start, 0.1
    while t < 1.0:
        h = np.minimum(h, 1.0 - t)
        k1 = f(y)
        k2 = f(y + h * k1)
        error = h / 2 * np.linalg.norm(k2 - k1)
        if error < 1e-3:
            t = t + h
            y = y + h / 2 * (k1 + k2)
        h = 0.9 * h * np.clip(np.sqrt(1e-3 / error), 0.2, 5.0)
    return y


@program([1.0, 0.0], [0.0, 1.1], 1.0)
def orbit_by_verlet(position, velocity, mass):
    """A planet's position after some steps of the leapfrog."""

    def acceleration(q):
        return -mass * q / np.linalg.norm(q) ** 3

    dt = 0.05
    a = acceleration(position)
    for _ in range(30):
        velocity = velocity + dt / 2 * a
        position = position + dt * velocity
        a = acceleration(position)
        velocity = velocity + dt / 2 * a
    return np.concatenate([position, velocity])


@program(0.8, 0.3)
def cooling_by_euler_in_a_buffer(rate, room):
    """A temperature over time, filled into a buffer step by step."""
    dt = 0.1
    T = np.zeros(20)
    T = dnp.put_at(T, 0, 1.0)
    for i in range(19):
        T = dnp.put_at(T, i + 1, T[i] - dt * rate * (T[i] - room))
    return T


@program([1.1, 0.4, 0.1, 0.4], hessian=True)
def lotka_volterra(p):
    """The sum of squares between predators and prey and what was counted, by the four rates."""
    counted = np.array([[10.0, 5.0], [8.0, 9.0], [4.0, 9.5], [2.5, 7.0]])
    s, h, loss = np.array([10.0, 5.0]), 0.02, 0.0
    for i in range(60):
        if i % 15 == 0:
            loss = loss + np.sum((np.log(s) - np.log(counted[i // 15])) ** 2)
        prey, predators = s[0], s[1]
        growth = p[0] * prey - p[1] * prey * predators
        hunted = p[2] * prey * predators - p[3] * predators
        s = s + h * np.stack([growth, hunted])
    return loss


@program([0.9, 2.0, 0.5], hessian=True)
def fit_of_a_damped_oscillation(p):
    """The sum of squares of a simulated oscillation against data."""
    t = np.linspace(0, 3, 30)
    data = np.exp(-0.4 * t) * np.cos(2.2 * t)
    x, v, residuals = 1.0, 0.0, []
    for y in data:
        residuals.append(p[0] * x - y)
        v = v + 0.1 * (-(p[1] ** 2) * x - 2 * p[2] * v)
        x = x + 0.1 * v
    return dnp.sum(dnp.array(residuals) ** 2)


@program(np.exp(-((np.linspace(-2, 2, 20)) ** 2)), 0.7)
def wave_equation(u, speed):
    """A string with fixed ends, by differences in space and time."""
    before = u
    for _ in range(15):
        bend = u[2:] - 2 * u[1:-1] + u[:-2]
        inner = 2 * u[1:-1] - before[1:-1] + speed**2 * bend
        before, u = u, np.concatenate([[0.0], inner, [0.0]])
    return u


@program(20.0, 0.9, 0.05)
def projectile_with_drag(speed, angle, drag):
    """How far a ball flies: integrated until it is under the ground, the last step cut short."""
    x, y = 0.0, 0.0
    vx, vy = speed * np.cos(angle), speed * np.sin(angle)
    dt = 0.05
    while True:
        v = np.sqrt(vx**2 + vy**2)
        vx, vy = vx - dt * drag * v * vx, vy - dt * (9.81 + drag * v * vy)
        new_x, new_y = x + dt * vx, y + dt * vy
        if new_y < 0:
            part = y / (y - new_y)
            return x + part * (new_x - x)
        x, y = new_x, new_y


@program(drawn(11, 3, 6) / 2, drawn(12, 6, 2) / 2, drawn(13, 4, 2))
def neural_ode(W1, W2, x):
    """Points that flow along a small network's vector field."""
    for i in range(10):
        time = np.full((len(x), 1), i / 10)
        x = x + 0.1 * np.tanh(np.hstack([x, time]) @ W1) @ W2
    return x


# --- statistics ----------------------------------------------------------------------------------


@program(0.3, 0.5, 0.2, hessian=True)
def kalman_filter(q, r, drag):
    """The log-likelihood of positions, by the noise of a moving point and of its measurement."""
    z = np.array([0.1, 0.4, 0.5, 1.1, 1.2, 1.6])
    F = dnp.array([[1.0, 1.0], [0.0, 1.0 - drag]])
    H = np.array([[1.0, 0.0]])
    x, P, total = np.zeros(2), np.eye(2), 0.0
    for zi in z:
        x, P = F @ x, F @ P @ F.T + q * np.eye(2)
        S = (H @ P @ H.T)[0, 0] + r
        innovation = zi - (H @ x)[0]
        K = (P @ H.T)[:, 0] / S
        x, P = x + K * innovation, P - np.outer(K, H @ P)
        total = total - 0.5 * (np.log(2 * np.pi * S) + innovation**2 / S)
    return total


@program([0.1, -0.4, -1.5], hessian=True)
def gaussian_process(theta):
    """The negative log marginal likelihood, by the logarithms of three hyperparameters."""
    x = np.linspace(0, 3, 10)
    y = np.sin(2 * x) + 0.1 * np.cos(17 * x)
    scale, length, noise = np.exp(theta)
    K = scale**2 * np.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + noise**2 * np.eye(10)
    L = np.linalg.cholesky(K)
    alpha = np.linalg.solve(L.T, np.linalg.solve(L, y))
    return 0.5 * y @ alpha + np.sum(np.log(np.diag(L))) + 5 * np.log(2 * np.pi)


@program(drawn(14, 3, 3), drawn(15, 3, 4), hessian=True)
def hidden_markov_model(transitions, emissions):
    """The log-likelihood of symbols by the forward algorithm, in logarithms."""
    seen = [0, 2, 1, 3, 3, 0]
    A = transitions - np.log(np.sum(np.exp(transitions), axis=1, keepdims=True))
    B = emissions - np.log(np.sum(np.exp(emissions), axis=1, keepdims=True))
    alpha = B[:, seen[0]] - np.log(3)
    for symbol in seen[1:]:
        paths = alpha[:, None] + A
        top = np.max(paths, axis=0)
        alpha = B[:, symbol] + top + np.log(np.sum(np.exp(paths - top), axis=0))
    return np.log(np.sum(np.exp(alpha)))


@program(drawn(16, 3, 2), drawn(17, 3), [0.2, -0.1, 0.4], hessian=True)
def mixture_of_gaussians(means, log_scales, logits):
    """The log-likelihood of points under a mixture of round Gaussians."""
    x = drawn(18, 15, 2)
    squares = np.sum((x[:, None] - means) ** 2, axis=-1)
    log_weights = logits - np.log(np.sum(np.exp(logits)))
    scaled = -0.5 * squares / np.exp(2 * log_scales) - 2 * log_scales - np.log(2 * np.pi)
    parts = log_weights + scaled
    top = parts.max(axis=1, keepdims=True)
    return np.sum(top[:, 0] + np.log(np.sum(np.exp(parts - top), axis=1)))


@program(drawn(19, 3, 2))
def soft_k_means(centers):
    """Centers after some rounds in which every point belongs to all of them by its distance."""
    x = drawn(20, 20, 2)
    for _ in range(5):
        distances = np.sum((x[:, None] - centers[None]) ** 2, axis=2)
        weights = np.exp(-distances)
        weights /= weights.sum(axis=1, keepdims=True)
        centers = weights.T @ x / weights.sum(axis=0)[:, None]
    return centers


@program([0.3, -0.2], 0.4, hessian=True)
def annealed_importance_weight(mean, log_scale):
    """The log of the mean weight of draws that are held fixed."""
    noise = drawn(21, 30, 2)
    x = mean + np.exp(log_scale) * noise
    log_q = -0.5 * np.sum(noise**2, axis=1) - 2 * log_scale
    log_p = -np.sum(x**4, axis=1) / 4 - x[:, 0] * x[:, 1]
    log_w = np.zeros(30)
    for beta in np.linspace(0.2, 1.0, 5):
        log_w = log_w + 0.2 * (log_p - log_q)
        x = x - 0.01 * beta * (x**3 + x[:, ::-1])
        log_p = -np.sum(x**4, axis=1) / 4 - x[:, 0] * x[:, 1]
    top = np.max(log_w)
    return top + np.log(np.mean(np.exp(log_w - top)))


@program(100.0, 0.02, 0.25, 0.75, hessian=True)
def black_scholes(spot, rate, volatility, maturity):
    """The price of a European call at a strike of 105."""
    deviation = volatility * np.sqrt(maturity)
    d1 = (np.log(spot / 105.0) + (rate + volatility**2 / 2) * maturity) / deviation
    d2 = d1 - deviation
    cdf1 = 0.5 * (1 + erf(d1 / np.sqrt(2)))
    cdf2 = 0.5 * (1 + erf(d2 / np.sqrt(2)))
    return spot * cdf1 - 105.0 * np.exp(-rate * maturity) * cdf2


@program(drawn(22, 5, 2), drawn(23, 4, 2), hessian=True)
def wasserstein_by_sinkhorn(x, y):
    """The cost of moving the points x to the points y, with entropy."""
    cost = np.sum((x[:, None] - y[None]) ** 2, axis=-1)
    K = np.exp(-cost / 0.5)
    u, v = np.ones(5), np.ones(4)
    for _ in range(30):
        u = 0.2 / (K @ v)
        v = 0.25 / (K.T @ u)
    return np.sum(u[:, None] * K * v * cost)


# --- networks ------------------------------------------------------------------------------------


@program(drawn(24, 5, 12) / 2, drawn(25, 12) / 2, drawn(26, 4, 2))
def lstm(W, b, inputs):
    """The hidden state of an LSTM cell after a sequence."""

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    h, c = np.zeros(3), np.zeros(3)
    for x in inputs:
        i, f, o, g = np.split(np.concatenate([x, h]) @ W + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


@program(drawn(27, 2, 4, 6), drawn(28, 2, 5, 6), drawn(29, 2, 5, 3))
def attention(q, k, v):
    """Scaled dot products of queries and keys weigh the values; later keys are hidden."""
    scores = np.einsum("bqd,bkd->bqk", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(np.tri(4, 5, dtype=bool), scores, -np.inf)
    scores = scores - scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores)
    weights = weights / weights.sum(axis=-1, keepdims=True)
    return np.einsum("bqk,bkd->bqd", weights, v)


@program(drawn(30, 4, 3) / 2, drawn(31, 3, 4) / 2, hessian=True)
def variational_autoencoder(encoder, decoder):
    """The evidence lower bound of a linear autoencoder with draws that are held fixed."""
    x = drawn(32, 6, 4)
    mean = np.tanh(x @ encoder)
    log_variance = -1.0 + 0.1 * mean**2
    z = mean + np.exp(log_variance / 2) * drawn(33, 6, 3)
    divergence = 0.5 * np.sum(np.exp(log_variance) + mean**2 - 1 - log_variance)
    return -0.5 * np.sum((x - z @ decoder) ** 2) - divergence


# --- linear algebra and geometry -----------------------------------------------------------------


@program([1.0, 1.5, 2.5, 2.0], [1.0, 2.0, 1.5], hessian=True)
def lowest_frequency(springs, masses):
    """The lowest frequency of masses between springs, which a designer would maximize."""
    K = np.diag(springs[:-1] + springs[1:])
    K = K - np.diag(springs[1:-1], 1) - np.diag(springs[1:-1], -1)
    half = 1 / np.sqrt(masses)
    return np.sqrt(np.linalg.eigvalsh(half[:, None] * K * half)[0])


@program(drawn(34, 5, 4))
def truncated_svd(A):
    """The best approximation of rank 2."""
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return (U[:, :2] * s[:2]) @ Vt[:2]


@program(drawn(35, 3, 4), drawn(36, 3))
def chain_of_rotations(quaternions, point):
    """A point turned by several quaternions, one after the other."""

    def turned(q, v):
        q = q / np.linalg.norm(q)
        w, u = q[0], q[1:]
        t = 2 * np.cross(u, v)
        return v + w * t + np.cross(u, t)

    for q in quaternions:
        point = turned(q, point)
    return point


@program(0.1, 0.05, [5.0, -6.0], hessian=True)
def ray_through_a_lens(height, slope, radii):
    """Where a ray of light meets a screen behind a thick lens, by Snell's law at two spheres."""
    x, y, angle, index = 0.0, height, np.arctan(slope), 1.0
    for radius, position, new_index in ((radii[0], 1.0, 1.5), (radii[1], 1.4, 1.0)):
        center = position + radius
        dx, dy = np.cos(angle), np.sin(angle)
        b = (x - center) * dx + y * dy
        distance = -b - np.sign(radius) * np.sqrt(b**2 - (x - center) ** 2 - y**2 + radius**2)
        x, y = x + distance * dx, y + distance * dy
        normal = np.arcsin(y / radius)
        incidence = angle + normal
        refracted = np.arcsin(index / new_index * np.sin(incidence))
        angle, index = refracted - normal, new_index
    return y + np.tan(angle) * (12.0 - x)


@program(drawn(37, 6), 2.4, hessian=True)
def b_spline(control, t):
    """The value of a cubic B-spline with uniform knots, by de Boor's algorithm."""
    degree = 3
    knots = np.arange(-3.0, 7.0)
    span = int(np.floor(dn.stop_gradient(t))) + degree
    d = [control[j + span - degree] for j in range(degree + 1)]
    for r in range(1, degree + 1):
        for j in range(degree, r - 1, -1):
            low, high = knots[j + span - degree], knots[j + 1 + span - r]
            alpha = (t - low) / (high - low)
            d[j] = (1 - alpha) * d[j - 1] + alpha * d[j]
    return d[degree]


@program(drawn(38, 5), drawn(39, 6))
def dynamic_time_warping(a, b):
    """The distance of two series that may be stretched in time, by a table that is filled."""
    table = np.full((6, 7), np.inf)
    table = dnp.put_at(table, (0, 0), 0.0)
    for i in range(1, 6):
        for j in range(1, 7):
            cost = (a[i - 1] - b[j - 1]) ** 2
            best = np.minimum(np.minimum(table[i - 1, j], table[i, j - 1]), table[i - 1, j - 1])
            table = dnp.put_at(table, (i, j), cost + best)
    return table[5, 6]


@program([0.4, 0.6, -0.3], [1.0, 0.8, 0.5])
def robot_arm_by_gauss_newton(angles, lengths):
    """Joint angles after some steps toward a point, by an inner derivative."""

    def hand(angles):
        turned = np.cumsum(angles)
        return np.stack([np.sum(lengths * np.cos(turned)), np.sum(lengths * np.sin(turned))])

    for _ in range(4):
        J = jacobian_of(hand)(angles)
        gap = np.array([1.2, 0.9]) - hand(angles)
        angles = angles + np.linalg.solve(J.T @ J + 0.1 * np.eye(3), J.T @ gap)
    return angles


jacobian_of = dn.jacfwd
