import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maskgil_jax.interop import engine, llamagen_gpt, maskgil_gpt
from maskgil_jax.models.token_models.llama import Llama
from maskgil_jax.training import generator_loss, optimizer
from tests.helpers import golden

FORMATS = {"train_maskgil": (maskgil_gpt, (16, 16)), "train_llamagen": (llamagen_gpt, (4, 4))}


@pytest.mark.parametrize("name", FORMATS)
def test_three_steps_equal_the_official_training(name):
    """Losses, gradients and weights of the released trainer, with its masks and dropped labels."""
    expected, tensors, (family, grid) = golden.arrays(name), golden.weights(name), FORMATS[name]
    config = family.config(tensors, heads=4, grid=grid)
    table = family.entries(config)
    like = jax.eval_shape(lambda: Llama(config, jax.random.key(0)))
    model = jax.tree.map(jnp.asarray, engine.load(table, tensors, like))
    recipe = golden.spec(name)["training"]
    adam, _ = optimizer.make(
        algorithm="adamw",
        learning_rate=recipe["lr"],
        beta1=recipe["betas"][0],
        beta2=recipe["betas"][1],
        weight_decay=recipe["weight_decay"],
        clip_norm=recipe["clip_grad_norm"],
        warmup_steps=0,
        schedule="constant",
        milestones=(),
        steps=recipe["steps"],
        decay_norms=not config.causal,
    )
    smoothing = recipe.get("label_smoothing", 0.0)
    loss_of = functools.partial(generator_loss.weighted_loss, label_smoothing=smoothing, chunk=8)
    codes = (expected["idx"] if config.causal else expected["code"]).reshape(-1, *grid)
    masks = expected.get("masks", np.ones((recipe["steps"], *codes.shape), bool))
    classes = np.where(expected["drop"], config.num_classes, expected["label"])

    @jax.jit
    def step(model, moments, masked):
        weight = jnp.full(codes.shape, 1 / codes.size)
        examples = {"codes": codes, "masked": masked, "weight": weight, "condition": classes}
        (loss, _), grads = jax.value_and_grad(loss_of, has_aux=True)(model, examples, None)
        updates, moments = adam.update(grads, moments, model)
        return optax.apply_updates(model, updates), moments, loss, grads

    moments, losses, norms, first = adam.init(model), [], [], None
    with jax.default_matmul_precision("highest"):
        for masked in masks:
            model, moments, loss, grads = step(model, moments, masked)
            first = first or engine.dump(table, grads)
            losses.append(loss)
            norms.append(optax.tree.norm(grads))
        if config.causal:  # its trainer's golden has the loss after the last step too
            losses.append(step(model, moments, masks[-1])[2])
        inputs = codes if config.causal else np.where(masks[1], config.mask_id, codes)
        logits = model(jnp.asarray(inputs), jnp.asarray(classes))

    golden.check(name, "losses", losses, expected["losses"])
    golden.check(name, "grad_norms", norms, expected["grad_norms"])
    gradients = {
        "grad0_wqkv": "layers.0.attention.wqkv.weight",
        "grad0_tok_emb": "tok_emb.weight",
        "grad0_cls": "cls_embedding.embedding_table.weight",
    }
    for output in expected.keys() & gradients.keys():
        golden.check(name, output, first[gradients[output]], expected[output])
    stride = logits.shape[1] // expected["final_logits"].shape[1]
    golden.check(name, "final_logits", logits[:2, ::stride], expected["final_logits"])
    after = engine.dump(table, model)
    for output in expected:
        if output.startswith("after_"):
            found = after[output.removeprefix("after_")]
            found = found[::4] if found.shape != expected[output].shape else found
            golden.check(name, output, found, expected[output])
