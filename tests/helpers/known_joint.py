"""Distributions over a few cells that are known whole, drawn from by the loop of masked decoding.

The network is exact: it predicts the conditional of each cell given those that are visible. What a
rule then gets wrong is its own.

Letters: N draws, K states, G states of which any cells are hidden, L cells,
V codes of each, n cells at a time.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from maskgil_jax.decoding import masked_loop, masked_plan, token_sampling
from maskgil_jax.models.token_models import orders

N = 20_000


class Joint:
    """A table of probabilities of all states, int [K, L] in 0 .. codes - 1."""

    def __init__(self, p_K, cells, codes=2):
        self.p_K = np.asarray(p_K) / np.sum(p_K)
        self.cells, self.codes = cells, codes
        self.states_KL = states(cells, codes)
        # Of each set of visible codes, `codes` where there is none: each cell given those.
        given_GL = states(cells, codes + 1)
        fits_GKL = (given_GL[:, None] == self.states_KL) | (given_GL[:, None] == codes)
        weight_GK = fits_GKL.all(axis=2) * self.p_K
        is_code_KLV = self.states_KL[..., None] == np.arange(codes)
        p_GLV = np.einsum("GK,KLV->GLV", weight_GK, is_code_KLV)
        p_GLV /= np.maximum(weight_GK.sum(axis=1), 1e-300)[:, None, None]
        self.logits_GLV = jnp.log(jnp.maximum(jnp.asarray(p_GLV), 1e-30))

    def predict(self, codes_NL, positions_Nn, scale):
        """Log-probabilities of each cell given the visible ones, [N, n, V]."""
        places_L = (self.codes + 1) ** np.arange(self.cells)[::-1]
        logits_NLV = self.logits_GLV[codes_NL @ places_L]
        return jnp.take_along_axis(logits_NLV, positions_Nn[..., None], axis=1)

    def draw(self, seed=0, n=N, **options):
        """History of draws, [S, n, L]."""
        plan, numbers = masked_plan.plan(np.full(n, self.cells), **options)
        key = jax.random.key(seed)

        def noise(use, draw, step):
            return draw(jax.random.fold_in(jax.random.fold_in(key, step), use), (n, self.cells))

        def sample(step, logits_NnV, positions_Nn, divisor):
            uniform_NL = noise(0, jax.random.uniform, step)
            uniform_Nn = jnp.take_along_axis(uniform_NL, positions_Nn, axis=1)
            return token_sampling.code(
                uniform_Nn[..., None], logits_NnV, (self.codes,), divisor=divisor
            )

        rank_L = np.argsort(orders.halton(1, self.cells))
        model = masked_loop.Model(
            self.predict,
            sample,
            functools.partial(noise, 1, jax.random.gumbel),
            jnp.tile(rank_L, (n, 1)),
            mask_id=self.codes,
        )
        masked_NL = jnp.full((n, self.cells), self.codes)
        run = jax.jit(lambda codes, numbers: masked_loop.decode(model, codes, numbers, plan))
        return np.asarray(run(masked_NL, numbers))

    def distance(self, draws_NL):
        """Total variation between draws and this distribution."""
        places = self.codes ** np.arange(self.cells)[::-1]
        share_K = np.bincount(draws_NL @ places, minlength=len(self.p_K)) / len(draws_NL)
        return 0.5 * np.abs(share_K - self.p_K).sum()

    @property
    def noise(self):
        """The expected distance of N draws of this distribution itself."""
        return 0.5 * np.sqrt(2 * self.p_K * (1 - self.p_K) / (np.pi * N)).sum()

    @property
    def independent(self):
        """Cells with the same marginals that tell nothing about one another."""
        marginals_LV = np.stack([
            [self.p_K[self.states_KL[:, cell] == code].sum() for code in range(self.codes)]
            for cell in range(self.cells)
        ])  # fmt: skip
        p_KL = np.take_along_axis(marginals_LV[None], self.states_KL[..., None], axis=2)[..., 0]
        return Joint(p_KL.prod(axis=1), self.cells, self.codes)


def states(cells, codes):
    """All of them, int [codes ** cells, cells]."""
    return np.array(list(itertools.product(range(codes), repeat=cells)))


def passes(history_SNL, mask_id):
    """Steps that each draw took part in, int [N]."""
    before_SNL = np.concatenate([np.full_like(history_SNL[:1], mask_id), history_SNL[:-1]])
    return (before_SNL == mask_id).any(axis=2).sum(axis=0)


def chain(cells=4):
    """A Markov chain of two codes, of which one is more frequent and both tend to stay."""
    first, then = np.array([0.65, 0.35]), np.array([[0.8, 0.2], [0.3, 0.7]])
    states_KL = states(cells, 2)
    p_K = first[states_KL[:, 0]] * then[states_KL[:, :-1], states_KL[:, 1:]].prod(axis=1)
    return Joint(p_K, cells)


def copies(cells=8):
    """Cells of which every second is the same as the one before it, and pairs are independent."""
    states_KL = states(cells, 2)
    same_K = (states_KL[:, ::2] == states_KL[:, 1::2]).all(axis=1)
    return Joint(same_K * np.array([0.4, 0.6])[states_KL[:, ::2]].prod(axis=1), cells)
